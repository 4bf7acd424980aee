"""A worker process of the ray engine: what runs in it, and how messages reach it.

Records travel as plain dicts of ndarrays, which Ray hands over without copying or encoding;
Flower's own classes are put around them again on the other side.
"""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.app.metadata import Metadata
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fedpdm.config.imports import import_all
from fedpdm.engines.hardware import keep_memory
from fedpdm.engines.local_grid import answer, make_context, refusal
from fedpdm.engines.stacked.sites import StackedSites, Work
from fedpdm.errors import FedPdmError
from fedpdm.storage import cut
from fedpdm.wire.flower import array_record, become_server, rebuilt
from fedpdm.wire.records import LiveArray

Parcel = dict[str, tuple[str, dict[str, Any]]]
"""A RecordDict on its way: kind and plain values of each record by key."""

CONTENTS_KEPT = 4
"""A worker remembers the last few contents: those of one round are one, rarely two."""


@dataclass(frozen=True)
class Task:
    """One site's work: a message without its content, and the site's state if it has one."""

    site: str
    metadata: Metadata
    state: Parcel | None


@dataclass(frozen=True)
class Result:
    """What came of a task: a reply's metadata, its content or error, the site's new state."""

    metadata: Metadata
    content: Parcel | None
    error: tuple[int, str | None] | None
    state: Parcel | None

    def reply(self) -> Message:
        """Return the reply, as the app made it."""
        if self.error is not None:
            return rebuilt(Error(*self.error), self.metadata)
        assert self.content is not None
        return rebuilt(unpack(self.content, own=True), self.metadata)


class Worker:
    """A long-lived process that answers for its sites, on one torch thread.

    Data and model stay here from round to round.

    Args:
        path: where modules are looked for, in the order of the server's process.
        modules: a user's own, to be imported before the app is unpickled.
        app: a reference to what answers messages; it came here without data and model.
        sites: how many sites the federation has.
        share: share of a GPU's memory that this process may use at most; 0 without a GPU.
        stacks: options of ``StackedSites``, to train sites that come together as a stack; None
            trains one after the other.
    """

    def __init__(
        self,
        path: list[str],
        modules: list[str],
        app: list[Any],
        sites: int,
        share: float,
        stacks: dict[str, Any] | None = None,
    ) -> None:
        import ray

        sys.path[:] = [*path, *(place for place in sys.path if place not in path)]
        import_all(modules)
        torch.set_num_threads(1)
        keep_memory()
        np.seterr(all="ignore")  # as in the server's process
        become_server()
        if share > 0:
            torch.cuda.set_per_process_memory_fraction(min(share, 1.0))
        self._app: ClientApp = ray.get(app[0])
        self._sites = sites
        self._stacks = None if stacks is None else StackedSites(self._app, **stacks)
        self._contents: OrderedDict[int, RecordDict] = OrderedDict()

    def hello(self) -> int:
        """Say that everything needed is imported; return the process id."""
        return os.getpid()

    def work(self, number: int, content: list[Any], tasks: list[Task]) -> list[Result]:
        """Answer messages of the same content, in order.

        Args:
            number: identifies the content.
            content: a reference to its parcel, fetched when it is new here.
            tasks: the sites that got it.
        """
        received = self._content(number, content[0])
        works = [
            Work(
                task.site,
                rebuilt(received, task.metadata),
                RecordDict() if task.state is None else unpack(task.state),
            )
            for task in tasks
        ]
        if self._stacks is None or tasks[0].metadata.message_type != MessageType.TRAIN:
            return [self._do(work) for work in works]
        try:
            self._stacks.train(works)
        except FedPdmError as error:
            return [result(refusal(error, work.message)) for work in works]
        results = [self._do(work) for work in works]
        self._stacks.forget()
        return results

    def _content(self, number: int, reference: Any) -> RecordDict:
        """Return the same object for all sites of a round: they decode it once."""
        if number not in self._contents:
            import ray

            self._contents[number] = unpack(ray.get(reference))
            while len(self._contents) > CONTENTS_KEPT:
                self._contents.popitem(last=False)
        return self._contents[number]

    def _do(self, work: Work) -> Result:
        node = work.message.metadata.dst_node_id
        context = make_context(node, work.site, self._sites, work.state)
        return result(answer(self._app, work.message, context), context.state)


def result(reply: Message, state: RecordDict | None = None) -> Result:
    """Return a reply, and the state that its site has now, as they go home."""
    if reply.has_error():
        return Result(reply.metadata, None, (reply.error.code, reply.error.reason), None)
    return Result(reply.metadata, pack(reply.content), None, pack(state) if state else None)


def pack(content: RecordDict) -> Parcel:
    """Return a record as plain values; arrays of one type are joined, which costs Ray less."""
    parcel: Parcel = {}
    for key, record in content.items():
        if isinstance(record, ArrayRecord):
            parcel[key] = "arrays", joined(record)
        else:
            kind = "metrics" if isinstance(record, MetricRecord) else "config"
            parcel[key] = kind, dict(record)
    return parcel


def joined(record: ArrayRecord) -> dict[str, Any]:
    """Return ``names`` in order, ``blocks`` of (names, shapes, (N,) values), and ``others``."""
    groups: dict[np.dtype[Any], dict[str, NDArray[Any]]] = {}
    others: dict[str, Array] = {}
    for name, array in record.items():
        if isinstance(array, LiveArray):
            groups.setdefault(array.ndarray.dtype, {})[name] = array.ndarray
        else:
            others[name] = array
    blocks = [
        (
            list(group),
            [array.shape for array in group.values()],
            np.concatenate([array.reshape(-1) for array in group.values()]),
        )
        for group in groups.values()
    ]
    return {"names": list(record), "blocks": blocks, "others": others}


def apart(values: dict[str, Any], own: bool) -> ArrayRecord:
    """Return the record behind ``joined``; with ``own``, of memory of its own."""
    found: dict[str, Array] = dict(values["others"])
    for names, shapes, block in values["blocks"]:
        mine = cut(block.copy() if own else block, dict(zip(names, shapes, strict=True)))
        found |= {name: LiveArray(array) for name, array in mine.items()}
    return array_record({name: found[name] for name in values["names"]})


def unpack(parcel: Parcel, own: bool = False) -> RecordDict:
    """Return the record in a parcel.

    Args:
        parcel: made by ``pack``.
        own: copy arrays out of Ray's store, where they are read-only and hold their place.
    """
    content = RecordDict()
    for key, (kind, values) in parcel.items():
        if kind == "arrays":
            content[key] = apart(values, own)
        else:
            content[key] = MetricRecord(values) if kind == "metrics" else ConfigRecord(values)
    return content

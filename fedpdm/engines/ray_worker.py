"""What runs in a worker process of the ray engine, and how messages get there and back.

Records travel as plain dicts of ndarrays, which Ray hands over without copying or encoding;
Flower's own classes are put around them again on the other side.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.app.metadata import Metadata
from flwr.clientapp import ClientApp

from fedpdm.engines.flower import become_server
from fedpdm.engines.local import answer, make_context
from fedpdm.messages import LiveArray

Parcel = dict[str, tuple[str, dict[str, Any]]]
"""A RecordDict on its way: kind and plain values of each record by key."""

CONTENTS_KEPT = 4
"""A worker remembers the last few contents: those of one round are one, rarely two."""


@dataclass(frozen=True)
class Task:
    """One plant's work: a message without its content, and the plant's state if it has one."""

    site: str
    metadata: Metadata
    state: Parcel | None


@dataclass(frozen=True)
class Result:
    """What came of a task: a reply's metadata, its content or error, the plant's new state."""

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
    """A long-lived process that answers for its plants, one at a time, on one torch thread.

    Data and model stay here from round to round.

    Args:
        app: answers messages; came here without data and model.
        plants: how many plants the federation has.
        share: share of a GPU's memory that this process may use at most; 0 without a GPU.
    """

    def __init__(self, app: ClientApp, plants: int, share: float) -> None:
        torch.set_num_threads(1)
        np.seterr(all="ignore")  # as in the server's process
        become_server()
        if share > 0:
            torch.cuda.set_per_process_memory_fraction(min(share, 1.0))
        self._app, self._plants = app, plants
        self._contents: OrderedDict[int, RecordDict] = OrderedDict()

    def hello(self) -> int:
        """Say that everything needed is imported; return the process id."""
        return os.getpid()

    def work(self, number: int, content: list[Any], tasks: list[Task]) -> list[Result]:
        """Answer messages of the same content, in order.

        Args:
            number: identifies the content.
            content: a reference to its parcel, fetched when it is new here.
            tasks: the plants that got it.
        """
        return [self._do(self._content(number, content[0]), task) for task in tasks]

    def _content(self, number: int, reference: Any) -> RecordDict:
        """Return the same object for all plants of a round: they decode it once."""
        if number not in self._contents:
            import ray

            self._contents[number] = unpack(ray.get(reference))
            while len(self._contents) > CONTENTS_KEPT:
                self._contents.popitem(last=False)
        return self._contents[number]

    def _do(self, content: RecordDict, task: Task) -> Result:
        message = rebuilt(content, task.metadata)
        state = None if task.state is None else unpack(task.state)
        context = make_context(task.metadata.dst_node_id, task.site, self._plants, state)
        reply = answer(self._app, message, context)
        if reply.has_error():
            return Result(reply.metadata, None, (reply.error.code, reply.error.reason), None)
        kept = pack(context.state) if len(context.state) else None
        return Result(reply.metadata, pack(reply.content), None, kept)


def rebuilt(content: RecordDict | Error, metadata: Metadata) -> Message:
    """Return a message of given metadata, as Flower itself makes one that came over a wire."""
    return cast(Message, cast(Any, Message)(content, metadata=metadata))


def pack(content: RecordDict) -> Parcel:
    """Return a record as plain values; arrays are not copied."""
    parcel: Parcel = {}
    for key, record in content.items():
        if isinstance(record, ArrayRecord):
            parcel[key] = (
                "arrays",
                {
                    name: array.ndarray if isinstance(array, LiveArray) else array
                    for name, array in record.items()
                },
            )
        else:
            kind = "metrics" if isinstance(record, MetricRecord) else "config"
            parcel[key] = kind, dict(record)
    return parcel


def unpack(parcel: Parcel, own: bool = False) -> RecordDict:
    """Return the record in a parcel.

    Args:
        parcel: made by ``pack``.
        own: copy arrays out of Ray's store, where they are read-only and hold their place.
    """
    content = RecordDict()
    for key, (kind, values) in parcel.items():
        if kind == "arrays":
            arrays = ArrayRecord()
            for name, value in values.items():
                if isinstance(value, Array):
                    arrays[name] = value
                else:
                    arrays[name] = LiveArray(value.copy() if own else value)
            content[key] = arrays
        else:
            content[key] = MetricRecord(values) if kind == "metrics" else ConfigRecord(values)
    return content

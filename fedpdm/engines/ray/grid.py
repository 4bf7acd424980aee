"""The ray engine's Grid: sites work in long-lived processes, on one machine or a cluster.

Weights are put into Ray's object store once a round. A site stays with its worker, where
its data and the model stay, too. Replies are taken in site order, and workers are only so
far ahead of the reader that memory does not grow with the number of sites. Which worker
did what changes no bit: a worker computes what the serial engine would.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fedpdm.engines.hardware import check_counts, check_workers
from fedpdm.engines.local_grid import LocalGrid
from fedpdm.engines.ray.dispatch import RayDispatch
from fedpdm.engines.ray.worker import Result, Task, pack, unpack
from fedpdm.engines.ray.workers import Workers, reachable
from fedpdm.engines.stacked.refusals import check_training
from fedpdm.errors import ConfigError
from fedpdm.training.loop import TrainingSettings
from fedpdm.training.objective import Objective
from fedpdm.wire.flower import set_message_id

AHEAD_PER_WORKER = 16
"""Twice the sites that a worker gets at a time."""
STACK = 32
"""Sites that a worker gets at a time to train as stacks, unless ``chunk`` says how many."""

SLACK = 2
"""A site moves to another worker rather than let its own get so many sites behind."""


class RayGrid(LocalGrid):
    """Sites work in parallel in worker processes.

    Args:
        client_app: answers messages; must be picklable (cloudpickle).
        sites: sites, in site order.
        workers: processes; None is one per physical core, at most one per site.
        num_gpus_per_worker: share of a GPU, 0 to 1; a worker cannot use more of its memory.
        address: HOST:PORT of an existing Ray cluster, or "auto"; None starts a private Ray.
        ahead: how many replies may wait for the reader; None is 16 per worker, with stacks two
            stacks per worker.
        stacked: whether workers train the sites they get together as stacks, as engine=batched.
        chunk: sites in one stack; None is 32.

    Raises:
        ConfigError: a setting cannot work, or Ray is not installed.
    """

    name = "ray"
    in_process = False

    def __init__(
        self,
        client_app: ClientApp,
        sites: Sequence[str],
        workers: int | None = None,
        num_gpus_per_worker: float = 0,
        address: str | None = None,
        ahead: int | None = None,
        stacked: bool = False,
        chunk: int | None = None,
    ) -> None:
        super().__init__(client_app, sites)
        client = getattr(client_app, "client", None)
        self.check(
            getattr(client, "device", torch.device("cpu")), workers=workers, ahead=ahead,
            num_gpus_per_worker=num_gpus_per_worker, address=address, stacked=stacked, chunk=chunk,
        )  # fmt: skip
        self._ahead = ahead
        self._per_worker = 2 * (chunk or STACK) if stacked else AHEAD_PER_WORKER
        stacks = {"chunk": chunk} if stacked else None
        self._contents = 0
        self._known: dict[int, set[int]] = {}
        self.processes = Workers(
            client_app, len(self.sites), workers, num_gpus_per_worker, address, stacks
        )

    @classmethod
    def check(cls, device: torch.device, **settings: Any) -> None:
        counts = {name: settings.get(name) for name in ("workers", "ahead", "chunk")}
        check_counts(null=True, **counts)
        _check_gpus(device, settings.get("num_gpus_per_worker", 0))
        if settings.get("address") is not None:
            reachable(str(settings["address"]))
        else:
            check_workers(settings.get("workers"))

    @classmethod
    def check_training(
        cls, module: nn.Module, objective: Objective, training: TrainingSettings, **settings: Any
    ) -> None:
        """Refuse training that no stack of sites can do, if there are to be stacks."""
        if settings.get("stacked"):
            check_training(module, objective, training)

    def close(self) -> None:
        self.processes.close()

    def stream(
        self, messages: Iterable[Message], timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield the replies in site order; who is not done in time is left out."""
        ordered = self.numbered(messages)
        if not ordered:
            return
        self.processes.ready()
        ahead = self._ahead or self._per_worker * len(self.processes.seats)
        dispatch = RayDispatch(self, self.processes, ordered, self._assign(ordered), ahead, timeout)
        try:
            for position in range(len(ordered)):
                result = dispatch.fetch(position)
                if isinstance(result, Result):
                    reply = result.reply()
                    if result.state is not None:
                        site = self.sites[reply.metadata.src_node_id]
                        self.states[site] = unpack(result.state, own=True)
                    yield reply
                elif result is not None:
                    reply = Message(result, reply_to=ordered[position])
                    set_message_id(reply, f"reply-to-{reply.metadata.reply_to_message_id}")
                    yield reply
        finally:
            dispatch.stop()

    def task(self, message: Message) -> Task:
        """Return a message as it goes to a worker, its content aside."""
        site = self.sites[message.metadata.dst_node_id]
        state = self.states.get(site)
        return Task(site, message.metadata, None if state is None else pack(state))

    def put(self, content: RecordDict) -> tuple[int, list[Any]]:
        """Put a content into the object store; return its number and, in a list that keeps Ray
        from fetching it for every call, the reference."""
        self._contents += 1
        return self._contents, [self.processes.ray.put(pack(content))]

    def _assign(self, messages: Sequence[Message]) -> list[int]:
        """Return each site's worker: one that knows it, unless others would have to wait."""
        seats = self.processes.seats
        load = {n: 0 for n, seat in enumerate(seats) if not seat.lost}
        chosen = []
        for message in messages:
            node = message.metadata.dst_node_id
            knows = self._known.setdefault(node, {(node - 1) % len(seats)})
            least = min(load, key=load.__getitem__)
            worker = min(sorted(knows & load.keys()) or [least], key=load.__getitem__)
            if load[worker] - load[least] >= SLACK:
                worker = least
            knows.add(worker)
            load[worker] += 1
            chosen.append(worker)
        return chosen


def _check_gpus(device: torch.device, share: Any) -> None:
    """Refuse shares of a GPU that cannot work.

    Raises:
        ConfigError: says what to set.
    """
    number = isinstance(share, int | float) and not isinstance(share, bool)
    if not number or not math.isfinite(share) or not 0 <= share <= 1:
        raise ConfigError(f"engine.num_gpus_per_worker={share} must be a number from 0 to 1")
    if device.type != "cuda":
        if share:
            raise ConfigError(
                f"engine.num_gpus_per_worker={share:g} has no use with device={device.type}; set "
                "device=cuda, or leave it at 0"
            )
    elif not share:
        raise ConfigError(
            "engine=ray with device=cuda needs engine.num_gpus_per_worker, the share of a GPU that "
            "each worker gets, e.g. 0.5 for two workers on one"
        )
    elif device.index is not None:
        raise ConfigError(
            f"device={device}: with engine=ray it is Ray that deals out GPUs; set device=cuda"
        )

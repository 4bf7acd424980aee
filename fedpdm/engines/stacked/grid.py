"""The batched engine: the sites of a round train as one stacked model on one device.

Where a model is small, calling its layers costs more than computing them; a stack of a
hundred sites makes one call in place of a hundred. Evaluation and queries go through the
sites one by one, as in the serial engine.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fedpdm.engines.hardware import check_counts, check_workers
from fedpdm.engines.local_grid import LocalGrid
from fedpdm.engines.stacked.refusals import check_options, check_training
from fedpdm.engines.stacked.schedule import sites_at_hand
from fedpdm.engines.stacked.sites import StackedSites, Work
from fedpdm.errors import ConfigError
from fedpdm.training.loop import TrainingSettings
from fedpdm.training.objective import Objective


class BatchedGrid(LocalGrid):
    """Trains sites in stacks.

    Args:
        client_app: fedpdm's own; another app's training cannot be looked into.
        sites: the sites.
        chunk: sites in one stack, which bounds memory; None lets the trainer choose.
        compile: run the stacked step through ``torch.compile``.
        cuda_graphs: on a GPU, record a step once and replay it.
        workers: 1. With more of them ``settle_engine`` makes a ``RayGrid`` of stacks.
    """

    name = "batched"

    def __init__(
        self,
        client_app: ClientApp,
        sites: Sequence[str],
        chunk: int | None = None,
        compile: bool = False,
        cuda_graphs: bool = False,
        workers: int = 1,
    ) -> None:
        super().__init__(client_app, sites)
        self._stacks = StackedSites(
            client_app, chunk=chunk, compile=compile, cuda_graphs=cuda_graphs
        )
        # Several stacks may be made of them.
        self._group = sites_at_hand(self._stacks.device)

    @classmethod
    def check(cls, device: torch.device, **settings: Any) -> None:
        workers = settings.get("workers", 1)
        check_counts(workers=workers)
        check_workers(workers)
        one_process = [name for name in ("compile", "cuda_graphs") if settings.get(name)]
        if workers > 1 and one_process:
            raise ConfigError(
                f"engine.{one_process[0]}=true works in one process: leave engine.workers at 1"
            )
        check_options(device, settings.get("chunk"), bool(settings.get("cuda_graphs")))

    @staticmethod
    def settle(settings: Mapping[str, Any], device: torch.device) -> dict[str, Any] | None:
        """Return the settings of ``conf/engine/ray.yaml`` that mean the same; None for one process.

        Workers share the GPUs that there are.
        """
        workers = int(settings.get("workers", 1))
        if workers < 2:
            return None
        share = min(1.0, torch.cuda.device_count() / workers) if device.type == "cuda" else 0
        return {
            "workers": workers, "stacked": True, "chunk": settings.get("chunk"),
            "num_gpus_per_worker": share,
        }  # fmt: skip

    @classmethod
    def check_training(
        cls, module: nn.Module, objective: Objective, training: TrainingSettings, **settings: Any
    ) -> None:
        """Refuse training that no stack of sites can do, before a run starts."""
        check_training(module, objective, training)

    def stream(
        self, messages: Iterable[Message], timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield replies stack by stack; stacks that are not done in time are left out."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for kind, group in groupby(self.numbered(messages), lambda m: m.metadata.message_type):
            together, train = list(group), kind == "train"
            size = self._group if train else 1
            for begin in range(0, len(together), size):
                if deadline is not None and time.monotonic() >= deadline:
                    return
                stack = together[begin : begin + size]
                if train:
                    self._stacks.train([self._work(message) for message in stack])
                replies = [self.answer(message) for message in stack]
                if deadline is None or time.monotonic() < deadline:
                    yield from replies
        self._stacks.forget()

    def _work(self, message: Message) -> Work:
        site = self.sites[message.metadata.dst_node_id]
        return Work(site, message, self.states.get(site, RecordDict()))

"""The batched engine: the sites of a round train as one stacked model on one device.

Where a model is small, calling its layers costs more than computing them; a stack of a
hundred sites makes one call in place of a hundred. Evaluation and queries go through the
sites one by one, as in the serial engine.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor, nn

from fedpdm.client.app import SiteApp
from fedpdm.client.site_client import SiteClient
from fedpdm.client.strategy_runtime import halves_of
from fedpdm.data.rows import Split
from fedpdm.engines.local_grid import LocalGrid
from fedpdm.engines.stacked.refusals import check_options, check_training
from fedpdm.engines.stacked.schedule import sites_at_hand
from fedpdm.engines.stacked.trainer import SiteData, StackedTrainer
from fedpdm.errors import ConfigError
from fedpdm.training.loop import TrainingSettings
from fedpdm.training.objective import Objective
from fedpdm.transforms.masking import SECAGG
from fedpdm.wire.records import CONFIG, Arrays, config_in


class BatchedGrid(LocalGrid):
    """Trains sites in stacks.

    Args:
        client_app: fedpdm's own; another app's training cannot be looked into.
        sites: the sites.
        chunk: sites in one stack, which bounds memory; None lets the trainer choose.
        compile: run the stacked step through ``torch.compile``.
        cuda_graphs: on a GPU, record a step once and replay it.
    """

    name = "batched"

    def __init__(
        self,
        client_app: ClientApp,
        sites: Sequence[str],
        chunk: int | None = None,
        compile: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        super().__init__(client_app, sites)
        if not isinstance(client_app, SiteApp):
            raise ConfigError(
                "engine=batched trains with fedpdm's own client app only; use engine=serial"
            )
        client = self._client = client_app.client
        self._trainer = stacked_trainer(
            client, chunk=chunk, compile=compile, cuda_graphs=cuda_graphs
        )
        self._group = sites_at_hand(client.device)  # the trainer may make several stacks of them
        self._done: dict[str, tuple[Arrays, float]] = {}
        client.trainer = self

    @classmethod
    def check(cls, device: torch.device, **settings: Any) -> None:
        check_options(device, settings.get("chunk"), bool(settings.get("cuda_graphs")))

    @classmethod
    def check_training(
        cls, module: nn.Module, objective: Objective, settings: TrainingSettings
    ) -> None:
        """Refuse training that no stack of sites can do, before a run starts."""
        check_training(module, objective, settings)

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
                    self._done.clear()
                    for same in alike(self._opened(stack)):
                        self._train(same)
                replies = [self.answer(message) for message in stack]
                if deadline is None or time.monotonic() < deadline:
                    yield from replies
        self._done.clear()

    def trained(self, site: str) -> tuple[Arrays, float] | None:
        """Return what the stack found for a site; asked by the site's own app."""
        return self._done.pop(site, None)

    def _opened(self, messages: Sequence[Message]) -> list[Message]:
        """Return messages with whole models; whose cannot be read, its own answer says why."""
        found = []
        for message in messages:
            state = self.states.get(self.sites[message.metadata.dst_node_id], RecordDict())
            with contextlib.suppress(Exception):
                found.append(self._client.opened(message, state))
        return found

    def _train(self, messages: Sequence[Message]) -> None:
        """Train the sites of these messages, which were all sent the same."""
        client, members = self._client, []
        config, order = client.order(messages[0])
        halves, nothing = halves_of(order["terms"]), RecordDict()
        for message in messages:
            try:
                name = self.sites[message.metadata.dst_node_id]
                site = client.site(message, name)
                x, y = client.tensors(site, Split.TRAIN)
            except Exception:
                continue  # its own answer will say what is wrong with it
            state = self.states.get(name, nothing)
            memory = client.runtime.memory(halves, message.content, state) if halves else {}
            local = client.local(state) if state else {}
            members.append(SiteData(name, client.key(name, config), x, y, memory, local))
        if not members:
            return
        received = {**client.initial, **client.received(messages[0])}
        for result in self._trainer.train(received, members, **order):
            self._done[result.name] = (result.weights, result.train_loss)


def obstacle(client: SiteClient, x: Tensor, y: Tensor) -> str | None:
    """Return why a site's model cannot be stacked, or None: one step with a few of its rows."""
    few = [SiteData(name, (name,), x[:rows], y[:rows]) for name, rows in (("a", 5), ("b", 3))]
    try:
        trainer = stacked_trainer(replace(client, device=torch.device("cpu")))
        received = client.build_model().get_parameters()
        list(trainer.train(received, few, epochs=1))
    except ConfigError as error:
        return str(error).removeprefix("engine=batched ").removesuffix(": use engine=serial")
    return None


def stacked_trainer(client: SiteClient, **options: Any) -> StackedTrainer:
    """Return the trainer of stacks of such sites."""
    return StackedTrainer(
        client.build_model().module, client.minimised, client.settings,
        shared=client.parts.shared, seed=client.seed, device=client.device, **options,
    )  # fmt: skip


def alike(messages: Sequence[Message]) -> list[list[Message]]:
    """Return messages in groups of equal records and config; a strategy may send several.

    What secure aggregation tells each site comes after its training.
    """
    groups: dict[tuple[object, ...], list[Message]] = {}
    keys: dict[int, tuple[object, ...]] = {}
    for message in messages:
        content = message.content
        if id(content) not in keys:  # most strategies send one content to all
            config = repr(sorted(config_in(content).items()))
            records = sorted((k, id(r)) for k, r in content.items() if k not in (CONFIG, SECAGG))
            keys[id(content)] = *records, config
        groups.setdefault(keys[id(content)], []).append(message)
    return list(groups.values())

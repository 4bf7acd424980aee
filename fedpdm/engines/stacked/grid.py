"""The batched engine: the plants of a round train as one stacked model on one device.

Where a model is small, calling its layers costs more than computing them; a stack of a
hundred plants makes one call in place of a hundred. Evaluation and queries go through the
plants one by one, as in the serial engine.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, cast

import torch
from flwr.app import Message
from flwr.clientapp import ClientApp
from torch import Tensor

from fedpdm.client.app import Plant, PlantApp
from fedpdm.data.rows import Split
from fedpdm.engines.local_grid import LocalGrid
from fedpdm.engines.stacked.memory import plants_at_hand
from fedpdm.engines.stacked.step import RowLosses
from fedpdm.engines.stacked.trainer import PlantData, StackedTrainer, check_options
from fedpdm.errors import ConfigError
from fedpdm.tasks import Task
from fedpdm.wire.records import CONFIG, Arrays, config_in


class BatchedGrid(LocalGrid):
    """Trains plants in stacks.

    Args:
        client_app: fedpdm's own; another app's training cannot be looked into.
        sites: the plants.
        chunk: plants in one stack, which bounds memory; None lets the trainer choose.
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
        if not isinstance(client_app, PlantApp):
            raise ConfigError(
                "engine=batched trains with fedpdm's own client app only; use engine=serial"
            )
        plant = self._plant = client_app.plant
        self._trainer = stacked_trainer(
            plant, chunk=chunk, compile=compile, cuda_graphs=cuda_graphs
        )
        self._group = plants_at_hand(plant.device)  # the trainer may make several stacks of them
        self._done: dict[str, tuple[Arrays, float]] = {}
        plant.trainer = self

    @classmethod
    def check(cls, device: torch.device, **settings: Any) -> None:
        check_options(device, settings.get("chunk"), bool(settings.get("cuda_graphs")))

    def stream(
        self, messages: Iterable[Message], timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield replies stack by stack; stacks that are not done in time are left out."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for train, group in groupby(self.numbered(messages), key=is_training):
            together = list(group)
            size = self._group if train else 1
            for begin in range(0, len(together), size):
                if deadline is not None and time.monotonic() >= deadline:
                    return
                stack = together[begin : begin + size]
                if train:
                    self._train(stack)
                replies = [self.answer(message) for message in stack]
                if deadline is None or time.monotonic() < deadline:
                    yield from replies
        self._done.clear()

    def trained(self, site: str) -> tuple[Arrays, float] | None:
        """Return what the stack found for a plant; asked by the plant's own app."""
        return self._done.pop(site, None)

    def _train(self, messages: Sequence[Message]) -> None:
        """Train the plants of these messages, each with others that were sent the same."""
        self._done.clear()
        for together in alike(messages):
            self._train_stack(together)

    def _train_stack(self, messages: Sequence[Message]) -> None:
        """Train the plants of these messages, which were all sent the same."""
        plant, plants = self._plant, []
        config, order = config_in(messages[0].content), plant.order(messages[0])
        for message in messages:
            try:
                context = self.context(message.metadata.dst_node_id)
                site = plant.site(message, context)
                x, y = plant.tensors(site, Split.TRAIN)
            except Exception:
                continue  # its own answer will say what is wrong with it
            memory = plant.side.memory(order["terms"], message.content, context.state)
            plants.append(PlantData(site.name, plant.key(site.name, config), x, y, memory))
        if not plants:
            return
        received = plant.received(messages[0])
        for result in self._trainer.train(received, plants, **order):
            self._done[result.name] = (result.weights, result.train_loss)


def obstacle(plant: Plant, x: Tensor, y: Tensor) -> str | None:
    """Return why a plant's model cannot be stacked, or None: one step with a few of its rows."""
    trainer = stacked_trainer(replace(plant, device=torch.device("cpu")))
    few = [PlantData(name, (name,), x[:rows], y[:rows]) for name, rows in (("a", 5), ("b", 3))]
    try:
        received = plant.build_model().get_parameters()
        list(trainer.train(received, few, epochs=1))
    except ConfigError as error:
        return str(error).removeprefix("engine=batched ").removesuffix(": use engine=serial")
    return None


def stacked_trainer(plant: Plant, **options: Any) -> StackedTrainer:
    """Return the trainer of stacks of such plants."""
    task = plant.federation.task
    known = type(task).row_losses is not Task.row_losses
    return StackedTrainer(
        plant.build_model().module, task.loss, plant.settings,
        row_losses=cast(RowLosses, task.row_losses) if known else None,
        seed=plant.seed, device=plant.device, **options,
    )  # fmt: skip


def alike(messages: Sequence[Message]) -> list[list[Message]]:
    """Return messages in groups of equal records and config; a strategy may send several."""
    groups: dict[tuple[object, ...], list[Message]] = {}
    keys: dict[int, tuple[object, ...]] = {}
    for message in messages:
        content = message.content
        if id(content) not in keys:  # most strategies send one content to all
            config = repr(sorted(config_in(content).items()))
            records = sorted((key, id(record)) for key, record in content.items() if key != CONFIG)
            keys[id(content)] = *records, config
        groups.setdefault(keys[id(content)], []).append(message)
    return list(groups.values())


def is_training(message: Message) -> bool:
    """Return whether a message asks a plant to train."""
    return message.metadata.message_type == "train"

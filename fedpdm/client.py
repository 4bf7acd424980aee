"""What a plant does: train on its own windows, evaluate, and reduce rows to sums.

The same app runs in simulation and under Flower's supernodes. Which plant it is, it
reads from ``context.node_config["site"]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict
from weakref import WeakKeyDictionary

import numpy as np
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from torch import Tensor

from fedpdm.aggregation import not_finite
from fedpdm.data.normalise import Scaler
from fedpdm.data.rows import Split
from fedpdm.engines.flower import content_of
from fedpdm.federation import Federation, Site
from fedpdm.messages import (
    ARRAYS,
    BUFFERS,
    METRICS,
    MOMENTS,
    SCALER,
    Arrays,
    arrays_in,
    config_in,
    metric_record,
    moments_record,
    scaler_in,
    to_record,
    to_tensors,
)
from fedpdm.models import ModelWrapper
from fedpdm.strategies import gradient_terms
from fedpdm.strategies.halves import ClientHalf, Outcome, Work
from fedpdm.strategies.memory import recall, remember
from fedpdm.training import (
    GradientTerm,
    Memory,
    PlantTerm,
    TrainingSettings,
    fit,
    outputs,
    tensors,
)

Key = tuple[str | int, ...]


class Order(TypedDict):
    """What of a round's message concerns local training, for all plants that got it."""

    epochs: int
    first_epoch: int
    terms: list[GradientTerm | PlantTerm]


class Trainer(Protocol):
    """Something that has trained plants before their messages are answered."""

    def trained(self, site: str) -> tuple[Arrays, float] | None:
        """Return a plant's new weights and training loss, once; None to train it here."""


@dataclass
class Plant:
    """Everything local work needs. One resident model serves all plants of a process.

    What a round's messages have in common, the weights and the scaler, is decoded once.
    """

    federation: Federation
    build_model: Callable[[], ModelWrapper]
    settings: TrainingSettings
    seed: int
    device: torch.device = torch.device("cpu")
    trainer: Trainer | None = None
    """Trains in place of ``fit``, for engines that train many plants at once."""

    def __post_init__(self) -> None:
        self._model: ModelWrapper | None = None
        self._buffer_names: tuple[str, ...] = ()
        self._received: tuple[Any, dict[str, Tensor]] = (None, {})
        self._sent: dict[str, tuple[Any, list[Tensor]]] = {}
        self._scaler: tuple[Any, Scaler | None] = (None, None)
        # As long as the federation keeps the plant, its tensors stay on the device.
        self._tensors: WeakKeyDictionary[Site, dict[Split, tuple[Tensor, Tensor]]] = (
            WeakKeyDictionary()
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process without model and data; it makes its own."""
        return type(self), (
            self.federation, self.build_model, self.settings, self.seed, self.device, self.trainer
        )  # fmt: skip

    @property
    def model(self) -> ModelWrapper:
        if self._model is None:
            self._model = self.build_model()
            self._model.module.to(self.device)
            self._buffer_names = self._model.buffer_names
        return self._model

    def name(self, context: Context) -> str:
        """Return which plant this is; Flower's simulation runtime only numbers them."""
        config = context.node_config
        return str(config.get("site") or self.federation.sites[int(config["partition-id"])])

    def site(self, message: Message, context: Context) -> Site:
        """Return the plant's windows, scaled as the message asks."""
        name = self.name(context)
        record = message.content.get(SCALER)
        if record is None:
            return self.federation.site(name, self.federation.moments(name).scaler())
        if self._scaler[0] is not record:
            self._scaler = (record, scaler_in(message.content))
        assert self._scaler[1] is not None
        return self.federation.site(name, self._scaler[1])

    def received(self, message: Message) -> dict[str, Tensor]:
        """Return the received parameters and buffers on the device; not to be changed."""
        content = message.content
        record = content.get(ARRAYS)
        if self._received[0] is not record:
            arrays = {**arrays_in(content, ARRAYS), **arrays_in(content, BUFFERS)}
            self.model.check_names(arrays)
            weights = {name: t.to(self.device) for name, t in to_tensors(arrays).items()}
            self._received = (record, weights)
        return self._received[1]

    def tensors(self, site: Site, split: Split) -> tuple[Tensor, Tensor]:
        """Return a split's inputs and targets on the device, where they stay."""
        part = site.windows[split]
        found = self._tensors.get(site)
        if found is None:
            found = self._tensors[site] = {}
        if split not in found:
            found[split] = tensors(part.x, part.y, self.device)
        return found[split]

    def train(self, message: Message, context: Context) -> Message:
        """Train ``local_epochs`` epochs and reply with the new weights."""
        site, config = self.site(message, context), config_in(message.content)
        if len(site.train) == 0:
            self.federation.check([site])  # says why there is nothing to train on
        weights, task = self.received(message), self.federation.task
        report: dict[str, float] = {}
        if config.get("report-received-loss"):
            self.model.set_parameters(weights)
            x, y = self.tensors(site, Split.TRAIN)
            report["received_loss"] = float(task.loss(outputs(self.model.module, x), y))
        trained = self.trainer.trained(site.name) if self.trainer else None
        order = self.order(message)
        if trained is None:
            self.model.set_parameters(weights)
            x, y = self.tensors(site, Split.TRAIN)
            loss = fit(
                self.model.module, x, y, task.loss, self.settings, seed=self.seed,
                key=self.key(site.name, config), epochs=order["epochs"],
                first_epoch=order["first_epoch"], terms=self._own_terms(order, message, context),
            )  # fmt: skip
            trained = self.model.snapshot(), loss
        arrays, report["train_loss"] = trained
        buffers = {name: arrays.pop(name) for name in self._buffer_names}
        records: dict[str, Arrays] = {}
        for half in halves_of(order["terms"]):
            outcome = self._finish(half, arrays, len(site.train), order, message, context)
            records |= outcome.records
            report |= outcome.metrics
        reply = content_of(
            {ARRAYS: to_record(arrays), METRICS: metric_record(len(site.train), report)}
        )
        for name, beside in {BUFFERS: buffers, **records}.items():
            if beside:
                reply[name] = to_record(beside)
        return Message(reply, reply_to=message)

    def _own_terms(self, order: Order, message: Message, context: Context) -> list[GradientTerm]:
        """Return the terms of a round as they are for this plant."""
        memory = self.memory(order["terms"], message, context)
        weights = self.received(message)
        received = [weights[name] for name in self.trainable]
        made = [
            term.term(received, memory[term.key]) if isinstance(term, PlantTerm) else term
            for term in order["terms"]
        ]
        return [term for term in made if term is not None]

    def _finish(
        self,
        half: ClientHalf,
        trained: Arrays,
        rows: int,
        order: Order,
        message: Message,
        context: Context,
    ) -> Outcome:
        """Return what a strategy's half makes of a round, and remember what it says."""
        received = arrays_in(message.content, ARRAYS)
        work = Work(
            received=received,
            trained=trained,
            memory=recall(context.state, half.key, half.groups, received),
            sent={name: arrays_in(message.content, name) for name in half.reads},
            rates=self.settings.rates(rows, order["epochs"], order["first_epoch"]),
        )
        with np.errstate(all="ignore"):  # weights may have gone astray; the server says so
            outcome = half.finish(work)
        # The server refuses such an update; remembered, it would spoil every later one.
        if all(not_finite(arrays) is None for arrays in (trained, *outcome.memory.values())):
            remember(context.state, half.key, outcome.memory)
        return outcome

    def key(self, site: str, config: Mapping[str, Any]) -> Key:
        """Return what a plant's shuffling and dropout are drawn for in this round."""
        return ("train", site, int(config["server-round"]), int(config.get("attempt", 0)))

    def order(self, message: Message) -> Order:
        """Return how every plant that got this message is to train.

        Raises:
            ConfigError: the strategy's formulas do not describe these settings.
        """
        epochs, config = self.settings.local_epochs, config_in(message.content)
        terms = gradient_terms(config)
        for half in halves_of(terms):
            half.check(self.settings)
            half.sent = {name: self._sent_tensors(name, message) for name in half.reads}
        return {
            "epochs": epochs,
            "first_epoch": (int(config["server-round"]) - 1) * epochs,
            "terms": terms,
        }

    @property
    def trainable(self) -> list[str]:
        """Names of the parameters that have a gradient, in the order of ``fit``."""
        return [n for n, p in self.model.module.named_parameters() if p.requires_grad]

    def _sent_tensors(self, name: str, message: Message) -> list[Tensor]:
        """Return a record that came beside the parameters, decoded once for all plants."""
        record = message.content[name]
        if name not in self._sent or self._sent[name][0] is not record:
            found = to_tensors(arrays_in(message.content, name))
            made = [found[parameter].to(self.device) for parameter in self.trainable]
            self._sent[name] = (record, made)
        return self._sent[name][1]

    def memory(
        self, terms: Sequence[GradientTerm | PlantTerm], message: Message, context: Context
    ) -> dict[str, Memory]:
        """Return what a plant remembers for each term that asks for it, on the device."""
        like, names = arrays_in(message.content, ARRAYS), self.trainable
        memories: dict[str, Memory] = {}
        for half in halves_of(terms):
            groups = recall(context.state, half.key, half.groups, like)
            memories[half.key] = {
                group: [
                    torch.from_numpy(np.array(arrays[name], copy=True)).to(self.device)
                    for name in names
                ]
                for group, arrays in groups.items()
            }
        return memories

    def evaluate(self, message: Message, context: Context) -> Message:
        """Reply with the loss and the metrics on the plant's validation windows."""
        site, task = self.site(message, context), self.federation.task
        self.model.set_parameters(self.received(message))
        part = site.validation
        x, y = self.tensors(site, Split.VALIDATION)
        output = outputs(self.model.module, x)
        if len(part) == 0:
            output = torch.zeros((0, task.outputs))
        values = {
            "loss": float(task.loss(output, y)) if len(part) else None,
            **task.metrics(part.y, part.truth, task.scores(output)),
        }
        return Message(RecordDict({METRICS: metric_record(len(part), values)}), reply_to=message)

    def moments(self, message: Message, context: Context) -> Message:
        """Reply with counts, sums and sums of squares of the training rows."""
        sums = self.federation.moments(self.name(context))
        return Message(RecordDict({MOMENTS: moments_record(sums)}), reply_to=message)


def halves_of(terms: Sequence[GradientTerm | PlantTerm]) -> list[ClientHalf]:
    """Return those of the terms that are the client half of a strategy."""
    return [term for term in terms if isinstance(term, ClientHalf)]


class PlantApp(ClientApp):
    """The Flower app of plants, with what is behind it in reach of engines."""

    def __init__(self, plant: Plant, train_mods: Sequence[Mod] = ()) -> None:
        super().__init__()
        self.plant = plant
        self.train_mods = list(train_mods)
        self.train(mods=self.train_mods)(plant.train)
        self.evaluate()(plant.evaluate)
        self.query("moments")(plant.moments)

    def __reduce__(self) -> tuple[type[PlantApp], tuple[Plant, list[Mod]]]:
        return type(self), (self.plant, self.train_mods)


def make_client_app(
    federation: Federation,
    build_model: Callable[[], ModelWrapper],
    settings: TrainingSettings,
    *,
    seed: int,
    device: torch.device = torch.device("cpu"),
    train_mods: Sequence[Mod] = (),
) -> PlantApp:
    """Return the Flower app of a plant.

    Args:
        federation: where the plant finds its data.
        build_model: makes the model; its initial weights do not matter.
        settings: local training.
        seed: the run's seed.
        device: where to train.
        train_mods: Flower client mods around training.
    """
    return PlantApp(Plant(federation, build_model, settings, seed, device), train_mods)

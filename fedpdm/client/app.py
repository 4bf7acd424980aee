"""What a site does: train on its own windows, evaluate, and reduce rows to sums.

The same app runs in simulation and under Flower's supernodes. Which site it is, it
reads from ``context.node_config["site"]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict
from weakref import WeakKeyDictionary

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from torch import Tensor

from fedpdm.client.encoding import encoded
from fedpdm.client.strategy_runtime import StrategyRuntime, Terms, halves_of
from fedpdm.data.normalise import Scaler
from fedpdm.data.rows import Split
from fedpdm.federation import Federation, Site
from fedpdm.models import ModelWrapper
from fedpdm.training.loop import TrainingSettings, fit, outputs, tensors
from fedpdm.transforms.chain import Chain
from fedpdm.wire.flower import content_of
from fedpdm.wire.records import (
    ARRAYS,
    BUFFERS,
    EXAMPLES,
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

Key = tuple[str | int, ...]


class Order(TypedDict):
    """What of a round's message concerns local training, for all sites that got it."""

    epochs: int
    first_epoch: int
    terms: Terms


class Trainer(Protocol):
    """Something that has trained sites before their messages are answered."""

    def trained(self, site: str) -> tuple[Arrays, float] | None:
        """Return a site's new weights and training loss, once; None to train it here."""


@dataclass
class SiteClient:
    """Everything local work needs. One resident model serves all sites of a process.

    What a round's messages have in common, the weights and the scaler, is decoded once.
    """

    federation: Federation
    build_model: Callable[[], ModelWrapper]
    settings: TrainingSettings
    seed: int
    device: torch.device = torch.device("cpu")
    trainer: Trainer | None = None
    """Trains in place of ``fit``, for engines that train many sites at once."""
    transforms: Chain = field(default_factory=Chain)
    """What the update goes through before it is sent."""

    def __post_init__(self) -> None:
        self._model: ModelWrapper | None = None
        self._buffer_names: tuple[str, ...] = ()
        self._received: tuple[Any, dict[str, Tensor]] = (None, {})
        self._side: StrategyRuntime | None = None
        self._scaler: tuple[Any, Scaler | None] = (None, None)
        # As long as the federation keeps the site, its tensors stay on the device.
        self._tensors: WeakKeyDictionary[Site, dict[Split, tuple[Tensor, Tensor]]] = (
            WeakKeyDictionary()
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process without model and data; it makes its own."""
        return type(self), (
            self.federation, self.build_model, self.settings, self.seed, self.device, self.trainer,
            self.transforms,
        )  # fmt: skip

    @property
    def model(self) -> ModelWrapper:
        if self._model is None:
            self._model = self.build_model()
            self._model.module.to(self.device)
            self._buffer_names = self._model.buffer_names
        return self._model

    @property
    def side(self) -> StrategyRuntime:
        """The strategy's half that works here."""
        if self._side is None:
            named = self.model.module.named_parameters()
            names = [name for name, parameter in named if parameter.requires_grad]
            self._side = StrategyRuntime(self.settings, names, self.device)
        return self._side

    def name(self, context: Context) -> str:
        """Return which site this is; Flower's simulation runtime only numbers them."""
        config = context.node_config
        return str(config.get("site") or self.federation.sites[int(config["partition-id"])])

    def site(self, message: Message, context: Context) -> Site:
        """Return the site's windows, scaled as the message asks."""
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
                first_epoch=order["first_epoch"],
                terms=self.side.bound(order["terms"], weights, message.content, context.state),
            )  # fmt: skip
            trained = self.model.snapshot(), loss
        arrays, report["train_loss"] = trained
        buffers = {name: arrays.pop(name) for name in self._buffer_names}
        records: dict[str, Arrays] = {}
        rates = self.settings.rates(len(site.train), order["epochs"], order["first_epoch"])
        for half in halves_of(order["terms"]):
            outcome = self.side.finish(half, arrays, rates, message.content, context.state)
            records |= outcome.records
            report |= outcome.metrics
        records = {ARRAYS: arrays, BUFFERS: buffers, **records}
        if len(self.transforms):
            metrics = {EXAMPLES: float(len(site.train)), **report}
            update = encoded(self.transforms, site.name, records, metrics, message, context)
            records = dict(update.records)
            report = {name: value for name, value in update.metrics.items() if name != EXAMPLES}
        reply = content_of({METRICS: metric_record(len(site.train), report)})
        for name, arrays in records.items():
            if arrays:
                reply[name] = to_record(arrays)
        return Message(reply, reply_to=message)

    def key(self, site: str, config: Mapping[str, Any]) -> Key:
        """Return what a site's shuffling and dropout are drawn for in this round."""
        return ("train", site, int(config["server-round"]), int(config.get("attempt", 0)))

    def order(self, message: Message) -> Order:
        """Return how every site that got this message is to train.

        Raises:
            ConfigError: the strategy's formulas do not describe these settings.
        """
        epochs, config = self.settings.local_epochs, config_in(message.content)
        return {
            "epochs": epochs,
            "first_epoch": (int(config["server-round"]) - 1) * epochs,
            "terms": self.side.terms(message.content),
        }

    def evaluate(self, message: Message, context: Context) -> Message:
        """Reply with the loss and the metrics on the site's validation windows."""
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


class SiteApp(ClientApp):
    """The Flower app of sites, with what is behind it in reach of engines."""

    def __init__(self, client: SiteClient, train_mods: Sequence[Mod] = ()) -> None:
        super().__init__()
        self.client = client
        self.train_mods = list(train_mods)
        self.train(mods=self.train_mods)(client.train)
        self.evaluate()(client.evaluate)
        self.query("moments")(client.moments)

    def __reduce__(self) -> tuple[type[SiteApp], tuple[SiteClient, list[Mod]]]:
        return type(self), (self.client, self.train_mods)


def make_client_app(
    federation: Federation,
    build_model: Callable[[], ModelWrapper],
    settings: TrainingSettings,
    *,
    seed: int,
    device: torch.device = torch.device("cpu"),
    train_mods: Sequence[Mod] = (),
    transforms: Chain | None = None,
) -> SiteApp:
    """Return the Flower app of a site.

    Args:
        federation: where the site finds its data.
        build_model: makes the model; its initial weights do not matter.
        settings: local training.
        seed: the run's seed.
        device: where to train.
        train_mods: Flower client mods around training.
        transforms: what updates go through before they are sent.
    """
    client = SiteClient(federation, build_model, settings, seed, device)
    client.transforms = transforms or client.transforms
    return SiteApp(client, train_mods)

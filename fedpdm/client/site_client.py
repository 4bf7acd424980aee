"""A site's local work: training and evaluation with the weights it received.

Knows messages only as far as it reads them; replies are made in ``fedpdm.client.app``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, Protocol, TypedDict
from weakref import WeakKeyDictionary

import torch
from flwr.app import Context, Message, RecordDict
from torch import Tensor

from fedpdm.aggregation.screening import not_finite
from fedpdm.client.attacks.base import Attack
from fedpdm.client.state import LOCAL, OBJECTIVE
from fedpdm.client.strategy_runtime import StrategyRuntime, Terms, halves_of
from fedpdm.data.normalise import Scaler
from fedpdm.data.rows import Split
from fedpdm.federation import Federation, Site
from fedpdm.models import ModelWrapper
from fedpdm.models.policy import ALL, ParameterPolicy, Parts
from fedpdm.seeding import torch_generator
from fedpdm.tasks.base import Metrics
from fedpdm.training.loop import TrainingSettings, fit, tensors
from fedpdm.training.objective import LocalContext, LocalWork, Objective, Supervised
from fedpdm.transforms.base import Chain
from fedpdm.wire.flower import rebuilt
from fedpdm.wire.records import (
    ARRAYS,
    BUFFERS,
    SCALER,
    Arrays,
    arrays_in,
    config_in,
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

    Attributes:
        federation: where a site finds its data.
        build_model: makes the model, whose local tensors a site starts from.
        settings: local training.
        seed: the run's seed.
        device: where to train.
        policy: which tensors travel.
        objective: what is minimised; None for the supervised loss of the task.
        trainer: trains in place of ``fit``, for engines that train many sites at once.
        transforms: what an update goes through before it is sent.
        attack: what malicious sites do; None where all are honest.
    """

    federation: Federation
    build_model: Callable[[], ModelWrapper]
    settings: TrainingSettings
    seed: int
    device: torch.device = torch.device("cpu")
    policy: ParameterPolicy = ALL
    objective: Objective | None = None
    trainer: Trainer | None = None
    transforms: Chain = field(default_factory=Chain)
    attack: Attack | None = None

    def __post_init__(self) -> None:
        self.minimised = self.objective or Supervised.of(self.federation.task)
        self._order: tuple[Any, dict[str, Any], Order | None] = (None, {}, None)
        self._received: tuple[Any, dict[str, Tensor]] = (None, {})
        self._scaler: tuple[Any, Scaler | None] = (None, None)
        # As long as the federation keeps the site, its tensors stay on the device.
        self._tensors: WeakKeyDictionary[Site, dict[Split, tuple[Tensor, Tensor]]] = (
            WeakKeyDictionary()
        )
        self._poisoned: WeakKeyDictionary[Site, Site] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process without model and data; it makes its own."""
        return type(self), tuple(getattr(self, each.name) for each in fields(self))

    @cached_property
    def model(self) -> ModelWrapper:
        """The resident model; its weights are those of whoever worked last."""
        model = self.build_model()
        model.to(self.device)
        return model

    @cached_property
    def parts(self) -> Parts:
        """Which of the model's tensors travel."""
        return self.policy.parts(self.model)

    @cached_property
    def initial(self) -> dict[str, Tensor]:
        """The local tensors of a site that has not trained yet."""
        if not self.parts.local:
            return {}
        tensors = self.build_model().get_parameters()
        return {name: tensors[name].to(self.device) for name in self.parts.local}

    @cached_property
    def runtime(self) -> StrategyRuntime:
        """The strategy's half that works here."""
        named, shared = self.model.module.named_parameters(), set(self.parts.shared)
        names = [name for name, p in named if p.requires_grad and name in shared]
        return StrategyRuntime(self.settings, names, self.device)

    # What messages and states say -------------------------------------------------------

    def opened(self, message: Message, state: RecordDict) -> Message:
        """Return a message with the whole model, where one came with what changed of it.

        Raises:
            SiteError: the site does not hold the model that it changed from.
        """
        if self.transforms.down is None:
            return message
        return rebuilt(self.transforms.down.opened(message.content, state), message.metadata)

    def name(self, context: Context) -> str:
        """Return which site this is; Flower's simulation runtime only numbers them."""
        config = context.node_config
        return str(config.get("site") or self.federation.sites[int(config["partition-id"])])

    def site(self, message: Message, name: str) -> Site:
        """Return a site's windows, scaled as the message asks; a malicious one may have others."""
        site, attack = self._honest(message, name), self.attack
        if attack is None or not attack.poisons:
            return site
        if not attack.active(name, int(config_in(message.content)["server-round"])):
            return site
        if site not in self._poisoned:
            train = attack.windows(site.train, name)
            self._poisoned[site] = Site(name, {**site.windows, Split.TRAIN: train})
        return self._poisoned[site]

    def _honest(self, message: Message, name: str) -> Site:
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
            self.model.check_names({*arrays, *self.parts.local})
            self._received = (record, to_tensors(arrays, self.device))
        return self._received[1]

    def local(self, state: RecordDict) -> dict[str, Tensor]:
        """Return the tensors of the model that a site keeps; none before it has trained."""
        return self._on_device(state, LOCAL)

    def load(self, message: Message, state: RecordDict) -> None:
        """Give the resident model the weights of a site: received, and its own."""
        self.model.set_parameters({**self.initial, **self.received(message), **self.local(state)})

    def context(self, message: Message, state: RecordDict) -> LocalContext:
        """Return what the objective sees of a site outside of training."""
        return LocalContext(self.received(message), self._on_device(state, OBJECTIVE))

    def tensors(self, site: Site, split: Split) -> tuple[Tensor, Tensor]:
        """Return a split's inputs and targets on the device, where they stay."""
        part = site.windows[split]
        found = self._tensors.get(site)
        if found is None:
            found = self._tensors[site] = {}
        if split not in found:
            found[split] = tensors(part.x, part.y, self.device)
        return found[split]

    def key(self, site: str, config: Mapping[str, Any]) -> Key:
        """Return what a site's shuffling and dropout are drawn for in this round."""
        job = (str(config["job"]),) if "job" in config else ()  # two may start from one version
        return ("train", site, int(config["server-round"]), int(config.get("attempt", 0)), *job)

    def order(self, message: Message) -> tuple[dict[str, Any], Order]:
        """Return the config of a message, and how every site that got it is to train.

        Raises:
            ConfigError: the strategy's formulas do not describe these settings.
        """
        content, config, order = self._order
        new = config_in(message.content)
        # Terms are made for each site: one of a user's own may keep something in itself.
        if not order or order["terms"] or content is not message.content or config != new:
            epochs = self.settings.local_epochs
            order = {
                "epochs": epochs,
                "first_epoch": (int(new["server-round"]) - 1) * epochs,
                "terms": self.runtime.terms(message.content),
            }
            self._order = (message.content, new, order)
        return new, order

    # The work ---------------------------------------------------------------------------

    def train(
        self, site: Site, message: Message, state: RecordDict
    ) -> tuple[dict[str, Arrays], dict[str, float]]:
        """Train ``local_epochs`` epochs; what the site keeps goes into ``state``.

        Returns:
            The records to send, by name: ``arrays``, ``buffers``, and those of the strategy's
            client halves; and the metrics: ``train_loss``, and what the halves report.
        """
        if len(site.train) == 0:
            self.federation.check([site])  # says why there is nothing to train on
        report: dict[str, float] = {}
        config, order = self.order(message)
        if config.get("report-received-loss"):
            report["received_loss"] = self.training_loss(site, message, state)
        self.personalise("train", site, message, state)
        trained = self.trainer.trained(site.name) if self.trainer else None
        weights, report["train_loss"] = trained or self._fit(
            site, message, state, self.key(site.name, config), order
        )
        parts = self.parts
        arrays = {name: weights[name] for name in parts.shared}
        records = {ARRAYS: arrays, BUFFERS: {name: weights[name] for name in parts.buffers}}
        if parts.local:
            local = {name: weights[name] for name in parts.local}
            # The server refuses an update that is not finite; kept, it would spoil later ones.
            if not_finite(local) is None:
                state[LOCAL] = to_record(local)
        for half in halves_of(order["terms"]):
            rates = self.settings.rates(len(site.train), order["epochs"], order["first_epoch"])
            outcome = self.runtime.finish(half, arrays, rates, message.content, state, site.train.y)
            records |= outcome.records
            report |= outcome.metrics
        return records, report

    def training_loss(self, site: Site, message: Message, state: RecordDict) -> float:
        """Return the loss of the received model on the site's training windows."""
        self.load(message, state)
        return self.minimised.mean_loss(
            self.model.module, *self.tensors(site, Split.TRAIN), self.context(message, state)
        )

    def evaluate(self, site: Site, message: Message, state: RecordDict) -> Metrics:
        """Return the loss and the metrics on the site's validation windows."""
        self.personalise("evaluate", site, message, state)
        self.load(message, state)
        return self.minimised.evaluate(
            self.model.module, *self.tensors(site, Split.VALIDATION), site.validation.truth,
            self.federation.task, self.context(message, state),
        )  # fmt: skip

    def personalise(
        self,
        moment: Literal["train", "evaluate"],
        site: Site,
        message: Message,
        state: RecordDict,
        key: Key | None = None,
    ) -> None:
        """Let the objective fit what the site keeps for itself, if this is the moment for it.

        Args:
            moment: what comes next.
            site: whose windows it is fitted to.
            message: with the model that was received.
            state: what is kept goes into it.
            key: what draws are for; None for the message's round.
        """
        if self.minimised.personalises != moment or len(site.train) == 0:
            return
        config = {} if key else config_in(message.content)
        key = key or (moment, *self.key(site.name, config)[1:])
        epochs = self.settings.local_epochs
        work = LocalWork(
            *self.tensors(site, Split.TRAIN), self.settings, self.seed, key, epochs,
            (int(config.get("server-round", 1)) - 1) * epochs,
            self.tensors(site, Split.VALIDATION) if moment == "evaluate" else None,
        )  # fmt: skip
        self.load(message, state)
        memory = self._on_device(state, OBJECTIVE)
        generator = torch_generator(self.seed, "personal", *key)
        context = LocalContext(self.received(message), memory, generator, work)
        self.minimised.personalise(self.model.module, context)
        self._keep(memory, state)

    def _keep(self, memory: Mapping[str, Tensor], state: RecordDict) -> None:
        """Put what an objective keeps into a site's state, if it is finite."""
        kept = {name: tensor.detach().cpu().numpy() for name, tensor in memory.items()}
        if kept and not_finite(kept) is None:
            state[OBJECTIVE] = to_record(kept)

    def _fit(
        self, site: Site, message: Message, state: RecordDict, key: Key, order: Order
    ) -> tuple[Arrays, float]:
        """Train here, and return all tensors of the model and the training loss."""
        self.load(message, state)
        received, content = self.received(message), message.content
        memory = self._on_device(state, OBJECTIVE)
        loss = fit(
            self.model.module, *self.tensors(site, Split.TRAIN), self.minimised, self.settings,
            seed=self.seed, key=key, epochs=order["epochs"],
            first_epoch=order["first_epoch"],
            terms=self.runtime.bound(order["terms"], received, content, state),
            shared=self.parts.shared, received=received, memory=memory,
        )  # fmt: skip
        weights = self.model.snapshot()
        self._keep(memory, state)
        return weights, loss

    def _on_device(self, state: RecordDict, name: str) -> dict[str, Tensor]:
        return to_tensors(arrays_in(state, name), self.device)

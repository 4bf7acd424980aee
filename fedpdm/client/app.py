"""The Flower app of a site: train on its own windows, evaluate, and reduce rows to sums.

The same app runs in simulation and under Flower's supernodes. Which site it is, it
reads from ``context.node_config["site"]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

import torch
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from fedpdm.aggregation.screening import not_finite
from fedpdm.aggregation.update import Base, Update
from fedpdm.client.attacks.base import Attack
from fedpdm.client.secagg import SecAggSite
from fedpdm.client.site_client import SiteClient
from fedpdm.client.state import STRATEGY, remember
from fedpdm.client.trees import TreeClient
from fedpdm.federation import Federation
from fedpdm.models import ModelWrapper
from fedpdm.models.policy import ALL, ParameterPolicy
from fedpdm.seeding import numpy_generator
from fedpdm.training.loop import TrainingSettings
from fedpdm.training.objective import Objective
from fedpdm.transforms.base import Chain
from fedpdm.wire.flower import RecordType, content_of
from fedpdm.wire.records import (
    ARRAYS,
    BUFFERS,
    EXAMPLES,
    METRICS,
    MOMENTS,
    ON_TRAINING,
    Arrays,
    arrays_in,
    config_in,
    from_record,
    metric_record,
    moments_record,
    to_record,
)


def train(client: SiteClient, message: Message, context: Context) -> Message:
    """Train and reply with the new weights."""
    message = client.opened(message, context.state)
    site = client.site(message, client.name(context))
    records, report = client.train(site, message, context.state)
    if client.attack is not None:
        records = client.attack.sent(site.name, records, message.content)
    metrics = {EXAMPLES: float(len(site.train)), **report}
    if client.transforms.transforms:
        sent = encoded(client.transforms, site.name, records, metrics, message, context)
        records, metrics = dict(sent.records), dict(sent.metrics)
    reply: dict[str, RecordType] = {METRICS: metric_record(int(metrics.pop(EXAMPLES)), metrics)}
    reply |= {name: to_record(arrays) for name, arrays in records.items() if arrays}
    if client.transforms.down is not None:
        client.transforms.down.keep(message.content, context.state)
    return Message(content_of(reply), reply_to=message)


def evaluate(client: SiteClient, message: Message, context: Context) -> Message:
    """Reply with the loss and the metrics on the site's validation windows.

    A message that says ``on-training`` gets the loss on training windows alone.
    """
    message = client.opened(message, context.state)
    site = client.site(message, client.name(context))
    if config_in(message.content).get(ON_TRAINING):
        loss = client.training_loss(site, message, context.state)
        metrics = metric_record(len(site.train), {"loss": loss})
    else:
        values = client.evaluate(site, message, context.state)
        metrics = metric_record(len(site.validation), values)
    if client.transforms.down is not None:
        client.transforms.down.keep(message.content, context.state, first=False)
    return Message(RecordDict({METRICS: metrics}), reply_to=message)


def moments(client: SiteClient, message: Message, context: Context) -> Message:
    """Reply with the moments of the training rows: sums, never rows."""
    sums = client.federation.moments(client.name(context))
    return Message(RecordDict({MOMENTS: moments_record(sums)}), reply_to=message)


class SiteApp(ClientApp):
    """The Flower app of sites, with what is behind it in reach of engines."""

    def __init__(self, client: SiteClient, train_mods: Sequence[Mod] = ()) -> None:
        super().__init__()
        self.client = client
        self.train_mods = list(train_mods)
        secagg = SecAggSite(client)
        self.train(mods=[secagg.mask, *self.train_mods])(partial(train, client))
        self.train("secagg")(secagg.answer)
        self.train("trees", mods=self.train_mods)(TreeClient(client))
        self.evaluate()(partial(evaluate, client))
        self.query("moments")(partial(moments, client))

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
    policy: ParameterPolicy = ALL,
    objective: Objective | None = None,
    transforms: Chain | None = None,
    attack: Attack | None = None,
) -> SiteApp:
    """Return the Flower app of a site.

    Args:
        federation: where the site finds its data.
        build_model: makes the model; the site starts from its tensors that do not travel.
        settings: local training.
        seed: the run's seed.
        device: where to train.
        train_mods: Flower client mods around training.
        policy: which tensors travel, and which stay at the site.
        objective: what is minimised; None for the loss of the task.
        transforms: what updates go through before they are sent.
        attack: what malicious sites do.
    """
    client = SiteClient(
        federation, build_model, settings, seed, device, policy, objective,
        transforms=transforms or Chain(), attack=attack,
    )  # fmt: skip
    return SiteApp(client, train_mods)


def encoded(
    chain: Chain,
    site: str,
    records: Mapping[str, Arrays],
    metrics: Mapping[str, float],
    message: Message,
    context: Context,
) -> Update:
    """Return a site's update as it is sent.

    Args:
        chain: the run's transforms.
        site: its name.
        records: what it would send: arrays, buffers, and the strategy's.
        metrics: what it reports, ``num-examples`` among it.
        message: what it answers.
        context: of the site; what transforms remember goes into its state.
    """
    config = config_in(message.content)
    number, attempt = int(config["server-round"]), int(config.get("attempt", 0))
    sent = {name: arrays_in(message.content, name) for name in (ARRAYS, BUFFERS)}
    base = Base(number - 1, sent[ARRAYS], sent[BUFFERS], config)
    update = Update(site, base, records, metrics, metrics[EXAMPLES])
    key = site, number, attempt, str(config.get("job", ""))
    for each in chain.transforms:
        start = f"{STRATEGY}transform-{each.name}."
        memory = {
            name.removeprefix(start): from_record(cast(ArrayRecord, record))
            for name, record in context.state.items()
            if name.startswith(start)
        }
        generator = numpy_generator(chain.seed, "transform", each.name, *key)
        update = each.encode(update, memory, generator)
        # The server refuses an update that is not finite; remembered, it would spoil later ones.
        if all(not_finite(arrays) is None for arrays in memory.values()):
            remember(context.state, f"transform-{each.name}", memory)
    return update

"""What a plant does: train on its own windows, evaluate, and reduce rows to sums.

The same app runs in simulation and under Flower's supernodes. Which plant it is, it
reads from ``context.node_config["site"]``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from fedpdm.federation import Federation, Site
from fedpdm.messages import (
    ARRAYS,
    BUFFERS,
    METRICS,
    MOMENTS,
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
from fedpdm.training import TrainingSettings, fit, outputs, tensors


@dataclass
class Plant:
    """Everything local work needs. One resident model serves all plants of a process."""

    federation: Federation
    build_model: Callable[[], ModelWrapper]
    settings: TrainingSettings
    seed: int
    device: torch.device = torch.device("cpu")
    _model: ModelWrapper | None = None

    @property
    def model(self) -> ModelWrapper:
        if self._model is None:
            self._model = self.build_model()
            self._model.module.to(self.device)
        return self._model

    def receive(self, message: Message, context: Context) -> Site:
        """Load the received weights and return the plant's scaled windows."""
        content = message.content
        self.model.set_parameters(
            to_tensors({**arrays_in(content, ARRAYS), **arrays_in(content, BUFFERS)})
        )
        name = str(context.node_config["site"])
        scaler = scaler_in(content) or self.federation.moments(name).scaler()
        return self.federation.site(name, scaler)

    def train(self, message: Message, context: Context) -> Message:
        """Train ``local_epochs`` epochs and reply with the new weights."""
        site, config = self.receive(message, context), config_in(message.content)
        server_round, attempt = int(config["server-round"]), int(config.get("attempt", 0))
        module, task = self.model.module, self.federation.task
        x, y = tensors(site.train.x, site.train.y, self.device)
        report = {}
        if config.get("report-received-loss"):
            report["received_loss"] = float(task.loss(outputs(module, x), y))
        report["train_loss"] = fit(
            module, x, y, task.loss, self.settings,
            seed=self.seed,
            key=("train", site.name, server_round, attempt),
            epochs=self.settings.local_epochs,
            first_epoch=(server_round - 1) * self.settings.local_epochs,
            terms=gradient_terms(config),
        )  # fmt: skip
        weights = {name: t.cpu().numpy() for name, t in self.model.get_parameters().items()}
        buffers = {name: weights.pop(name) for name in self.model.buffer_names}
        reply = RecordDict(
            {ARRAYS: to_record(weights), METRICS: metric_record(len(site.train), report)}
        )
        if buffers:
            reply[BUFFERS] = to_record(buffers)
        return Message(reply, reply_to=message)

    def evaluate(self, message: Message, context: Context) -> Message:
        """Reply with the loss and the metrics on the plant's validation windows."""
        site, task = self.receive(message, context), self.federation.task
        part = site.validation
        x, y = tensors(part.x, part.y, self.device)
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
        sums = self.federation.moments(str(context.node_config["site"]))
        return Message(RecordDict({MOMENTS: moments_record(sums)}), reply_to=message)


def make_client_app(
    federation: Federation,
    build_model: Callable[[], ModelWrapper],
    settings: TrainingSettings,
    *,
    seed: int,
    device: torch.device = torch.device("cpu"),
    train_mods: Sequence[Mod] = (),
) -> ClientApp:
    """Return the Flower app of a plant.

    Args:
        federation: where the plant finds its data.
        build_model: makes the model; its initial weights do not matter.
        settings: local training.
        seed: the run's seed.
        device: where to train.
        train_mods: Flower client mods around training.
    """
    plant = Plant(federation, build_model, settings, seed, device)
    app = ClientApp()
    app.train(mods=list(train_mods))(plant.train)
    app.evaluate()(plant.evaluate)
    app.query("moments")(plant.moments)
    return app

"""Local objectives of one's own: without labels, with a second model, with single gradients."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedpdm.client.state import OBJECTIVE, PersonalModels
from fedpdm.data.rows import Bools, Floats, Rows
from fedpdm.engines.local_grid import LocalGrid
from fedpdm.engines.serial import SerialGrid
from fedpdm.engines.stacked.grid import BatchedGrid
from fedpdm.engines.stacked.sites import obstacle
from fedpdm.errors import ConfigError
from fedpdm.models import register
from fedpdm.models import registry as models
from fedpdm.tasks import Failure, Task
from fedpdm.tasks.base import Metrics
from fedpdm.testing.federated import Federated, distance, federate, same
from fedpdm.training.loop import TrainingSettings, fit
from fedpdm.training.objective import LocalContext, Objective, outputs
from fedpdm.wire.flower import pack_state
from fedpdm.wire.records import arrays_in

RAGGED = {f"p{n}": {"machines": 1 + n % 3, "rows": 60 + 7 * n} for n in range(5)}
SGD = TrainingSettings(2, 16, 0.05, clip_norm=1.0, optimizer="sgd")
OPTIONS: dict[str, Any] = {"sites": RAGGED, "rounds": 3, "settings": SGD}


def packed(run: Federated) -> dict[str, bytes]:
    return {site: pack_state(state) for site, state in run.grid.states.items()}


# Reconstruction -----------------------------------------------------------------------------


class Autoencoder(nn.Module):
    """Squeezes a window's readings through two numbers a step: (B, T, F) to (B, T, F)."""

    def __init__(self, input_dim: int, num_classes: int, sequence_length: int | None = 8) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Linear(input_dim, 2), nn.Linear(2, input_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.wide(torch.tanh(self.narrow(x)))  # type: ignore[no-any-return]


class Errors(nn.Module):
    """An error of reconstruction as two logits: the larger, the more likely a failure."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        error = (self.model(x) - x).square().mean((1, 2))
        return torch.stack([-error, error], dim=1)


class Reconstruction(Objective):
    """Learns what is usual, without labels; what it cannot reconstruct is likely to fail."""

    stacks = True

    def losses(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        return (model(x) - x).square().mean((1, 2))

    def predictor(self, model: nn.Module, context: LocalContext) -> nn.Module:
        return Errors(model)

    def evaluate(
        self, model: nn.Module, x: Tensor, y: Tensor, truth: Floats, task: Task,
        context: LocalContext,
    ) -> Metrics:  # fmt: skip
        worst = outputs(Errors(model), x, columns=2)[:, 1].max().item() if len(x) else None
        return {**super().evaluate(model, x, y, truth, task, context), "worst_error": worst}


class Inverted(Failure):
    """The same windows with the opposite labels."""

    def targets(self, rows: Rows) -> tuple[NDArray[np.generic], Floats, Bools]:
        y, truth, known = super().targets(rows)
        return 1 - np.asarray(y, np.int64), 1 - truth, known


@pytest.fixture(autouse=True)
def autoencoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(models, "_classes", dict(models._classes))
    register("autoencoder")(Autoencoder)
    yield


@pytest.mark.parametrize("engine", [SerialGrid, BatchedGrid])
def test_a_reconstruction_learns_without_labels(tmp_path: Path, engine: type[LocalGrid]) -> None:
    def run(task: Task) -> Federated:
        return federate(
            tmp_path / type(task).__name__, model="autoencoder", objective=Reconstruction(),
            engine=engine, task=task, **OPTIONS,
        )  # fmt: skip

    plain, inverted = run(Failure(4.0)), run(Inverted(4.0))
    assert same(plain.weights(), inverted.weights())
    rounds = plain.history.rounds()
    losses = [record.metrics["validation_loss"] for record in rounds[1:]]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    assert rounds[-1].metrics["worst_error"] > losses[-1]
    scores = [run.history.rounds()[-1].metrics["average_precision"] for run in (plain, inverted)]
    assert scores[0] is not None and scores[0] != scores[1]


def test_a_stack_reconstructs_as_each_site_does(tmp_path: Path) -> None:
    runs = [
        federate(
            tmp_path / engine.__name__, "fedprox", model="autoencoder", engine=engine,
            objective=Reconstruction(), double=True, **OPTIONS,
        )
        for engine in (SerialGrid, BatchedGrid)
    ]  # fmt: skip
    for name, array in runs[0].weights().items():
        np.testing.assert_allclose(runs[1].weights()[name], array, rtol=0, atol=1e-10)
    last = [run.history.rounds()[-1].metrics["train_loss"] for run in runs]
    assert last[1] == pytest.approx(last[0], rel=1e-6)


# A second model -----------------------------------------------------------------------------


class Personal(Objective):
    """A personal model beside the shared one (Ditto): near what was received, never sent."""

    def begin(self, model: nn.Module, context: LocalContext) -> None:
        self.second = self.predictor(model, context).train()
        self.anchor = {n: t.clone() for n, t in context.received.items()}

    def losses(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        return nn.functional.cross_entropy(model(x), y, reduction="none")

    def backward(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        keep = torch.rand(len(x), generator=context.generator) < 0.8
        loss = (self.losses(self.second, x, y, context) * keep).mean()
        named = dict(self.second.named_parameters())
        with torch.no_grad():
            for (n, p), g in zip(
                named.items(), torch.autograd.grad(loss, list(named.values())), strict=True
            ):
                p -= 0.05 * (g + 0.1 * (p - self.anchor[n]))
        return super().backward(model, x, y, context)

    def end(self, model: nn.Module, context: LocalContext) -> None:
        context.memory.update(self.second.state_dict())

    def predictor(self, model: nn.Module, context: LocalContext) -> nn.Module:
        second = copy.deepcopy(model)
        second.load_state_dict({**model.state_dict(), **context.memory})
        return second


def test_a_personal_model_stays_beside_the_shared_one(tmp_path: Path) -> None:
    run = federate(tmp_path / "personal", objective=Personal(), **OPTIONS)
    plain = federate(tmp_path / "plain", **OPTIONS)
    # It looks on: what is learnt together does not know of it; what is measured does.
    assert distance(run.weights(), plain.weights()) < 1e-6
    measured = [each.history.rounds()[-1].sites for each in (run, plain)]
    assert measured[0] != measured[1]
    client = run.grid.client_app.client  # type: ignore[attr-defined]
    personal = PersonalModels(
        client.build_model(), run.weights(), (), run.grid.states, client.minimised, client.device
    )
    kept = arrays_in(run.grid.states["p1"], OBJECTIVE)
    assert all((t.numpy() == kept[n]).all() for n, t in personal("p1").state_dict().items())
    assert not same(kept, run.weights())


def test_what_an_objective_keeps_is_resumed_and_taken_back(tmp_path: Path) -> None:
    whole = federate(tmp_path / "whole", objective=Personal(), **OPTIONS)
    first = federate(tmp_path / "parts", objective=Personal(), **{**OPTIONS, "rounds": 2})
    before = packed(first)
    first.history.close()
    parts = federate(tmp_path / "parts", objective=Personal(), **OPTIONS)
    assert same(parts.weights(), whole.weights()) and packed(parts) == packed(whole)
    federate(tmp_path / "nan", objective=Personal(), **{**OPTIONS, "rounds": 2}).history.close()
    refused = federate(tmp_path / "nan", objective=Personal(), faults={"nan": "p1@3"}, **OPTIONS)
    assert [s for s, data in packed(refused).items() if data == before[s]] == ["p1"]


def test_an_objective_that_cannot_be_stacked_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Personal as a stack.*use engine=serial"):
        federate(tmp_path / "batched", objective=Personal(), engine=BatchedGrid, **OPTIONS)
    run = federate(tmp_path / "serial", objective=Personal(), **{**OPTIONS, "rounds": 1})
    client = run.grid.client_app.client  # type: ignore[attr-defined]
    found = obstacle(client, torch.zeros(8, 8, 3), torch.zeros(8, dtype=torch.int64))
    assert found is not None and "stacks = True" in found


# Gradients of single windows ----------------------------------------------------------------


class Clipped(Objective):
    """Clips the gradient of every window before the mean, as DP-SGD does."""

    def losses(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        return (model(x) - y).square().flatten(1).sum(1)

    def backward(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        named = dict(model.named_parameters())

        def loss(parameters: dict[str, Tensor], row: Tensor, target: Tensor) -> Tensor:
            output = functional_call(model, parameters, (row.unsqueeze(0),))
            return (output - target.unsqueeze(0)).square().sum()

        each = vmap(grad(loss), in_dims=(None, 0, 0))(named, x, y)
        for name, parameter in named.items():
            gradient = each[name]
            norms = gradient.flatten(1).norm(dim=1).clamp(min=1.0)
            parameter.grad = (gradient / norms.view(-1, 1, 1)).mean(0)
        with torch.no_grad():
            return self.losses(model, x, y, context).mean()


def test_gradients_of_single_windows_are_within_reach() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 2.0)
    x, y = torch.tensor([[1.0], [0.1]]), torch.zeros(2, 1)
    how = TrainingSettings(1, 2, 0.1, optimizer="sgd")
    loss = fit(module, x, y, Clipped(), how, seed=0, key=("hand",), epochs=1)
    # Gradients 2 w x² are 4 and 0.04; the first is clipped to 1: the step is 0.1 · 1.04 / 2.
    assert module.weight.item() == pytest.approx(2.0 - 0.1 * 0.52)
    assert loss == pytest.approx((4.0 + 0.04) / 2)

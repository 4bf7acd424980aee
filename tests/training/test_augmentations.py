"""Augmented batches against closed forms; what is evaluated is never augmented."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fedpdm.config.compose import compose
from fedpdm.errors import ConfigError
from fedpdm.runs.experiment import build
from fedpdm.tasks import Failure
from fedpdm.training.augmentations import Augmentations, Augmented, warped
from fedpdm.training.loop import TrainingSettings, fit
from fedpdm.training.objective import LocalContext, Objective, Supervised

EACH = {"mixup": 0.4, "cutmix": 0.5, "jitter": 0.05, "scaling": 0.1, "time_warp": 0.12}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_mixup_is_its_formula() -> None:
    x = torch.randn(6, 5, 2)
    mixed, order, own = Augmentations(mixup=0.4).mixed(x, rng())
    torch.testing.assert_close(mixed, own * x + (1 - own) * x[order])
    assert 0 < own < 1 and sorted(order.tolist()) == list(range(6))


def test_cutmix_takes_one_run_of_steps_and_says_its_share() -> None:
    x = torch.arange(8.0)[:, None, None].expand(8, 20, 3)
    shares = []
    for seed in range(20):
        mixed, order, own = Augmentations(cutmix=0.5).mixed(x, np.random.default_rng(seed))
        other = (mixed == x[order]).all(dim=2) & (mixed != x).all(dim=2)
        for row in other[order != torch.arange(8)]:
            assert row.float().mean().item() == pytest.approx(1 - own)
            assert int((row[1:] != row[:-1]).sum()) <= 2  # one run
        shares.append(own)
    assert len(set(shares)) > 5
    assert torch.equal(x, torch.arange(8.0)[:, None, None].expand(8, 20, 3))


def test_jitter_and_scaling_have_the_stated_size_in_the_stated_share() -> None:
    x = torch.ones(4000, 3, 2)
    noise = (Augmentations(jitter=0.05).changed(x, rng()) - x).flatten(1)
    moved = (noise != 0).all(dim=1)
    assert moved.float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert noise[moved].std().item() == pytest.approx(0.05, rel=0.05)
    scaled = Augmentations(scaling=0.1).changed(x, rng())
    assert torch.equal(scaled[:, 0], scaled[:, 2])  # one factor for all steps of a sensor
    factor = scaled[:, 0][(scaled[:, 0] != 1).all(dim=1)]
    assert len(factor) / 4000 == pytest.approx(0.3, abs=0.03)
    assert factor.std().item() == pytest.approx(0.1, rel=0.1)


def test_a_warped_ramp_keeps_its_ends_and_its_order() -> None:
    ramp = torch.linspace(0, 1, 30)[None, :, None].expand(200, 30, 2)
    found = warped(ramp, 0.12, np.ones(200, dtype=bool), rng())
    torch.testing.assert_close(found[:, [0, -1]], ramp[:, [0, -1]])
    assert (found.diff(dim=1) > 0).all() and not torch.allclose(found, ramp)
    still = warped(ramp, 0.12, np.zeros(200, dtype=bool), rng())
    torch.testing.assert_close(still, ramp)


class Seen(nn.Module):
    """Keeps what it was given, in training and in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.seen: dict[bool, list[torch.Tensor]] = {True: [], False: []}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen[self.training].append(x.detach().clone())
        result: torch.Tensor = self.layer(x.mean(dim=1))
        return result


@pytest.mark.parametrize("name", EACH)
def test_validation_and_test_never_see_it(name: str) -> None:
    task, model = Failure(7), Seen()
    plain = Supervised.of(task)
    objective = Augmented(plain, Augmentations(**{name: EACH[name]}))
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 12, 2, generator=generator), torch.arange(40) % 2
    settings = TrainingSettings(1, 8, 0.01)
    fit(model, x, y, objective, settings, seed=0, key=("a",), epochs=1)
    windows = {tuple(row.flatten().tolist()) for row in x}
    changed = [r for b in model.seen[True] for r in b if tuple(r.flatten().tolist()) not in windows]
    assert changed, "training batches are augmented"
    found = objective.evaluate(model, x, y, np.zeros(40), task, LocalContext())
    assert found == plain.evaluate(model, x, y, np.zeros(40), task, LocalContext())
    assert model.seen[False] and all(torch.equal(batch, x) for batch in model.seen[False])
    assert objective.predictor(model, LocalContext()) is model


def test_the_same_key_draws_the_same() -> None:
    def trained(key: str) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(24, 2))
        x, y = torch.linspace(-1, 1, 480).reshape(20, 12, 2), torch.arange(20) % 2
        objective = Augmented(Supervised(functional.cross_entropy), Augmentations(**EACH))
        fit(model, x, y, objective, TrainingSettings(2, 8, 0.1), seed=1, key=(key,), epochs=2)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(trained("a"), trained("a"))
    assert not torch.equal(trained("a"), trained("b"))


def test_a_command_switches_it_on_and_what_cannot_work_is_refused() -> None:
    def objective(*words: str) -> Objective:
        return build(compose(["debug=quick", *words])).objective

    assert type(objective()) is Supervised
    made = objective("training.augment.mixup=0.4", "objective=focal")
    assert isinstance(made, Augmented) and made.augmentations == Augmentations(mixup=0.4)
    refused: list[tuple[Any, ...]] = [
        ("training.augment.mixup=-1",),
        ("training.augment.jitter=x",),
        ("training.augment.jitter=nan",),
        ("training.augment.mixing=1",),
        ("training.augment.cutmix=1", "features=statistics", "model=mlp"),
    ]
    for words in refused:
        with pytest.raises(ConfigError, match="augment|Augmented"):
            objective(*words)
    with pytest.raises(ConfigError):
        Augmentations(jitter=math.nan)

"""FedSGD: one step a round is the step on all rows together; Adam's formula at the server."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedpdm.aggregation.sums import Sums
from fedpdm.config.compose import compose
from fedpdm.errors import ConfigError
from fedpdm.runs.experiment import build
from fedpdm.strategies.fedsgd import FedSGD


def sums_of(mean: np.ndarray) -> Sums:
    return Sums([{"num-examples": 1.0}], 1.0, {"w": mean.astype(np.float64)}, {})


def test_the_server_steps_as_torchs_adam_does_on_the_gradient() -> None:
    weight = nn.Parameter(torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64))
    adam = torch.optim.Adam([weight], lr=0.01, betas=(0.9, 0.99), eps=1e-8)
    server = FedSGD(eta=0.01, beta_1=0.9, beta_2=0.99, tau=1e-8)
    ours, rate = {"w": weight.detach().numpy().copy()}, 0.3
    for step in range(20):
        gradient = np.array([1.0, -0.5, 0.1]) * ours["w"] + step
        weight.grad = torch.from_numpy(gradient.copy())
        adam.step()
        # With the sites' rate 1 the change is minus the gradient; Adam forgets the scale.
        ours = server.combine(step + 1, ours, sums_of(ours["w"] - rate * gradient))
        assert np.allclose(ours["w"], weight.detach().numpy(), atol=1e-6)


def test_nothing_moves_where_nothing_changed() -> None:
    server = FedSGD()
    sent = {"w": np.array([0.1, -7.3], dtype=np.float32)}
    for number in range(1, 4):
        new = server.combine(number, sent, sums_of(sent["w"]))
        assert np.array_equal(new["w"].astype(np.float32), sent["w"])


def test_memory_makes_the_next_step_longer() -> None:
    fresh, used = FedSGD(tau=1e-3), FedSGD(tau=1e-3)
    sent = {"w": np.zeros(2)}
    used.combine(1, sent, sums_of(np.array([1.0, 1.0])))
    one = fresh.combine(1, sent, sums_of(np.array([0.1, 0.1])))
    two = used.combine(2, sent, sums_of(np.array([0.1, 0.1])))
    assert not np.allclose(one["w"], two["w"])


@pytest.mark.parametrize(
    ("key", "value"), [("eta", 0.0), ("tau", -1.0), ("beta_1", 1.0), ("beta_2", -0.1)]
)
def test_values_out_of_range_are_named(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"strategy.{key}={value}"):
        FedSGD(**{key: value})


def test_adam_at_the_sites_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.optimizer"):
        build(compose(["strategy=fedsgd", "training.optimizer=adam", "model=mlp"]))


def test_networks_alone_train_by_settings_of_their_own() -> None:
    experiment = build(compose(["strategy=fedsgd", "model=mlp", "site=detroit"]))
    assert experiment.settings.optimizer == "sgd" and experiment.settings.clip_norm is None
    pooled, alone = experiment.baselines.pooled.settings, experiment.baselines.alone.settings
    assert replace(pooled, epochs=alone.epochs) == alone
    assert experiment.baselines.pooled.settings.optimizer == "adam"
    assert (experiment.baselines.pooled.rounds, experiment.baselines.alone.rounds) == (30, 150)
    longer = ["baselines.alone.rounds=90", "+baselines.alone.training.step_size=40"]
    experiment = build(compose(["strategy=fedsgd", "model=mlp", "site=detroit", *longer]))
    assert experiment.baselines.pooled.rounds == 30 and experiment.baselines.alone.rounds == 90
    assert experiment.baselines.alone.settings.step_size == 40
    assert experiment.baselines.alone.settings.optimizer == "adam", "what is unsaid stays"
    with pytest.raises(ConfigError, match=r"baselines\.training\.rate"):
        build(compose(["site=detroit", "+baselines.training.rate=1"]))

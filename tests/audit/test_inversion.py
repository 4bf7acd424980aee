"""Gradient inversion: the closed form gives a window back, noise and batches hide it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedpdm.audit import inversion as attacks
from fedpdm.audit.__main__ import main, rebuilt
from fedpdm.audit.inversion import (
    Step,
    by_direction,
    by_length,
    closed_form,
    distance,
    errors,
    flat,
    noised,
    reading_layer,
)
from fedpdm.config.compose import compose
from fedpdm.models import ModelFactory
from fedpdm.simulate import simulate
from fedpdm.tasks import Failure
from fedpdm.training.objective import Supervised

SHAPE = (1, 6, 3)


def step(model: str = "mlp", batch: int = 1, seed: int = 0, **config: object) -> Step:
    torch.manual_seed(seed)
    task = Failure(horizon=4.0)
    wrapper = ModelFactory.create_model(model, 3, task.outputs, sequence_length=6, **config)
    y = torch.arange(batch) % 2
    return Step(wrapper.module.eval(), Supervised.of(task), y, (batch, *SHAPE[1:]))


def window(batch: int = 1, seed: int = 1) -> Tensor:
    return torch.randn((batch, *SHAPE[1:]), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(5))
def test_a_linear_layer_with_bias_gives_a_batch_of_one_away_exactly(seed: int) -> None:
    """Phong et al. 2018: x = dL/dW_i / dL/db_i, whatever lies behind the layer."""
    one, x = step(seed=seed), window(seed=seed + 50)
    layer = reading_layer(one)
    assert layer == "fc1"
    seen = one.gradients(x)
    unit = int(seen["fc1.bias"].abs().argmax())
    by_hand = seen["fc1.weight"][unit] / seen["fc1.bias"][unit]
    found = closed_form(seen, layer, SHAPE)
    assert found is not None
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(by_hand.reshape(SHAPE), x, rtol=1e-3, atol=1e-4)


def test_of_a_batch_the_closed_form_is_a_mixture_and_of_nothing_it_is_nothing() -> None:
    """A sum of outer products: least squares over the units weighs the windows as here."""
    torch.manual_seed(0)
    x, deltas = torch.randn(4, 18, dtype=torch.float64), torch.randn(4, 7, dtype=torch.float64)
    seen = {"l.weight": deltas.T @ x, "l.bias": deltas.sum(0)}
    bias = seen["l.bias"]
    weights = (deltas @ bias) / (bias @ bias)
    assert float(weights.sum()) == pytest.approx(1.0)
    found = closed_form(seen, "l", (1, 18))
    assert found is not None
    torch.testing.assert_close(found[0].double(), weights @ x, rtol=1e-5, atol=1e-6)
    silent = {"l.weight": torch.zeros(7, 18), "l.bias": torch.zeros(7)}
    assert closed_form(silent, "l", (1, 18)) is None


def test_only_a_layer_that_reads_the_window_is_taken() -> None:
    assert reading_layer(step("lstm")) is None
    sized = Step(nn.Identity(), step().objective, torch.zeros(1, dtype=torch.int64), (1, 2))
    assert reading_layer(sized) is None


@pytest.mark.parametrize("attack", [by_direction, by_length])
def test_matching_finds_the_window_of_a_smooth_model(attack: object) -> None:
    """On a sigmoid network, as in Zhu et al., the gradient of one window determines it."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(18, 16), nn.Sigmoid(), nn.Linear(16, 2))
    one = Step(module, step().objective, torch.tensor([1]), SHAPE)
    x = window()
    found = attack(one, one.gradients(x), torch.Generator().manual_seed(0))  # type: ignore[operator]
    assert (
        errors(found.numpy(), x.numpy())[0]
        < 0.05
        < errors(np.zeros(SHAPE, np.float32), x.numpy())[0]
    )


def test_noise_of_a_private_step_hides_the_window() -> None:
    """The closed form's error grows with the noise, and passes that of a guess of zeros."""
    one, x = step(), window()
    own, worst = one.gradients(x), []
    for noise in (0.0, 0.001, 0.1, 1.0):
        found = [
            closed_form(noised([own], 1.0, noise, torch.Generator().manual_seed(k)), "fc1", SHAPE)
            for k in range(5)
        ]
        worst.append(np.mean([errors(f.numpy(), x.numpy())[0] for f in found if f is not None]))
    assert worst[0] < 1e-3 < worst[1] < worst[2] and worst[3] > 0.5
    # Clipping shortens a gradient and turns it nowhere: alone, it hides nothing.
    short = noised([own], 1e-3, 0.0, torch.Generator())
    names = list(own)
    assert float(flat(short, names).norm()) == pytest.approx(1e-3, rel=1e-4)
    direction = torch.nn.functional.cosine_similarity(flat(short, names), flat(own, names), dim=0)
    assert float(direction) == pytest.approx(1.0, abs=1e-6)


def test_noise_has_the_deviation_that_it_says() -> None:
    zeros = {"w": torch.zeros(100_000)}
    found = noised([zeros, zeros], 2.0, 1.5, torch.Generator().manual_seed(3))["w"]
    assert float(found.std()) == pytest.approx(2.0 * 1.5 / 2, rel=0.02)


def test_the_order_of_a_batch_does_not_count() -> None:
    x = window(5).numpy()
    assert errors(x[[3, 1, 4, 0, 2]], x).max() < 1e-6
    assert distance(x[:1], x)[0, 1] == pytest.approx(
        float(np.sqrt(np.mean((x[0].astype(float) - x[1]) ** 2))), rel=1e-6
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    words = [
        "model=mlp", "rounds=1", "site=detroit,houston", "data.days=200", "data.stride=8",
        "baselines.controls=[]", "evaluate.bootstrap=0", "engine=serial",
    ]  # fmt: skip
    simulate(compose(words), folder)
    return folder


def test_a_run_is_attacked_step_by_step_and_by_its_own_update(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(attacks, "STEPS", 8)
    monkeypatch.setattr(attacks, "CLOSURES", 2)
    assert main([str(run), "--inversion", "--out", str(tmp_path / "a.json")]) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    plain = [s for s in found["steps"] if s["noise"] is None and s["batch"] == 1]
    assert {s["model"] for s in plain} == {"untrained", "trained"}
    for each in plain:
        own = each["attacks"]["closed_form"]
        assert own["recovered"] == 1.0 and own["error"] < 0.01 < each["mean_window"]
    noisy = [s for s in found["steps"] if s["noise"] == 1.0 and s["batch"] == 1]
    assert all(s["attacks"]["closed_form"]["recovered"] == 0.0 for s in noisy)
    sent = found["update"]
    assert sent["site"] == "detroit" and sent["epochs"] == 3 and sent["windows"] > 100
    assert sent["error"] > 0 < sent["mean_window"]
    said = capsys.readouterr().out
    assert "gives windows away" in said and rebuilt(found) in said


def test_two_attacks_at_once_are_a_mistake(run: Path) -> None:
    assert main([str(run), "--inversion", "--control"]) == 2

"""The attack on members: closed forms, guessing, and a model that knows windows by heart."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from fedpdm.audit.__main__ import main, told
from fedpdm.audit.attack import membership
from fedpdm.audit.membership import Losses, advantage, attacked, auc, bound, threshold
from fedpdm.config.compose import compose
from fedpdm.errors import DataError
from fedpdm.simulate import simulate


def losses(shift: float, machines: int, seed: int, prefix: str = "m", windows: int = 20) -> Losses:
    random = np.random.default_rng(seed)
    names = np.repeat([f"{prefix}{i}" for i in range(machines)], windows)
    return Losses(random.normal(shift, 1.0, len(names)), names)


def test_auc_by_hand() -> None:
    assert auc(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 1.0
    assert auc(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 0.0
    assert auc(np.array([1.0, 1.0]), np.array([1.0])) == 0.5
    assert auc(np.array([1.0, 3.0]), np.array([2.0])) == 0.5


def test_auc_and_advantage_of_two_gaussians_are_the_closed_forms() -> None:
    """AUC Φ(d/√2); the best threshold lies in the middle: advantage 2Φ(d/2) − 1."""
    d = 1.0
    members, others = losses(0.0, 200, 1), losses(d, 200, 2, "o")
    found = attacked(members, others, 0, resamples=20)
    assert found["auc"]["value"] == pytest.approx(0.5 * (1 + math.erf(d / 2)), abs=0.02)
    assert found["advantage"]["value"] == pytest.approx(math.erf(d / 2 / math.sqrt(2)), abs=0.02)
    for name in ("auc", "advantage"):
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]
    assert threshold(members.loss, others.loss) == pytest.approx(d / 2, abs=0.3)


def test_of_equal_windows_nothing_is_found() -> None:
    """The threshold is chosen on other machines, so guessing has no advantage on average."""
    found = [
        attacked(losses(0, 12, k), losses(0, 6, 99 + k, "o"), k, resamples=2)["advantage"]["value"]
        for k in range(30)
    ]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found)) < 0.1


def test_intervals_hold_what_machines_share() -> None:
    """Windows of a machine that are all alike count as one: the interval is far wider."""
    members, others = losses(0, 10, 1, windows=40), losses(0, 10, 2, "o", windows=40)
    shared = {
        name: Losses(np.repeat(group.loss[::40], 40), group.machine)
        for name, group in (("m", members), ("o", others))
    }
    apart = attacked(members, others, 0, resamples=60)["auc"]
    alike = attacked(shared["m"], shared["o"], 0, resamples=60)["auc"]
    assert alike["high"] - alike["low"] > 2 * (apart["high"] - apart["low"])


def test_too_few_windows_or_machines_are_refused() -> None:
    with pytest.raises(DataError, match="20 training windows"):
        attacked(losses(0, 1, 0, windows=19), losses(0, 5, 1, "o"), 0)
    with pytest.raises(DataError, match="two machines"):
        one = losses(0, 1, 0)
        advantage(one, losses(0, 4, 1, "o"), (np.array(["m0"]), np.array(["o0", "o1"])))


def test_the_bound_is_that_of_randomised_response() -> None:
    assert bound(0.0, 0.0) == 0.0 and bound(None, 1e-5) == 1.0
    # Whoever tells the truth with probability e^ε/(1+e^ε) reaches it.
    truth = math.exp(1.5) / (1 + math.exp(1.5))
    assert bound(1.5, 0.0) == pytest.approx(2 * truth - 1)
    assert bound(50.0, 0.1) == 1.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    overrides = [
        "model=mlp", "rounds=2", "site=detroit,houston", "data.days=200", "data.stride=8",
        "sites.detroit.machines=12", "sites.houston.machines=12", "baselines.controls=[]",
        "evaluate.bootstrap=0", "engine=serial",
    ]  # fmt: skip
    simulate(compose(overrides), folder)
    return folder


def test_a_model_that_knows_windows_by_heart_is_found(run: Path, tmp_path: Path) -> None:
    found = membership(run, control=True)
    assert found["control"]["auc"]["low"] > 0.6 > found["untrained"]["auc"]["low"]
    assert found["control"]["advantage"]["value"] > found["model"]["advantage"]["value"]
    assert "by heart" in told(found) and found["bound"] is None
    assert main([str(run), "--out", str(tmp_path / "a.json")]) == 0
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["model"] == found["model"] and written["control"] is None


def test_a_mistake_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1

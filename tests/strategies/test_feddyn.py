"""FedDyn: its h is the mean correction, and unlike sites reach the common optimum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedpdm.errors import ConfigError
from fedpdm.strategies.feddyn import FedDyn
from fedpdm.testing.federated import distance, federate
from tests.strategies.both import FAR_APART, SGD, mean_memory
from tests.strategies.quadratics import optimum, settle


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_h_is_the_mean_of_the_sites_corrections(tmp_path: Path, fraction: float) -> None:
    run = federate(
        tmp_path, "feddyn", sites=4, rounds=4, settings=SGD, double=True,
        overrides=[f"strategy.fraction_train={fraction}"],
    )  # fmt: skip
    h = run.loop.strategy.h  # type: ignore[attr-defined]
    assert (len(run.grid.states) == 4) == (fraction == 1.0) or len(run.grid.states) > 2
    assert max(np.abs(a).max() for a in h.values()) > 1e-4
    assert distance(mean_memory(run, "feddyn-alpha", "lambda"), h) < 1e-12


def test_unlike_sites_reach_the_common_optimum_where_fedavg_stops_beside_it(
    tmp_path: Path,
) -> None:
    goal = optimum(FAR_APART)
    found = settle(
        tmp_path / "d", "feddyn", FAR_APART, rounds=40, rate=0.2, epochs=2,
        overrides=["strategy.alpha=1.0"],
    )  # fmt: skip
    beside = settle(tmp_path / "a", "fedavg", FAR_APART, rounds=25, rate=0.2, epochs=2)
    assert np.abs(found - goal).max() < 1e-4
    assert np.abs(beside - goal).max() > 0.1


def test_clipping_does_not_move_where_they_stop(tmp_path: Path) -> None:
    found = settle(
        tmp_path, "feddyn", FAR_APART, rounds=40, rate=0.2, epochs=2, clip_norm=3.0,
        overrides=["strategy.alpha=1.0"],
    )  # fmt: skip
    assert np.abs(found - optimum(FAR_APART)).max() < 1e-4


def test_the_first_round_goes_twice_as_far_as_the_mean(tmp_path: Path) -> None:
    # From fresh state h/α is the mean change, so w_1 = mean + (mean − w_0), whatever α is as
    # long as the sites' steps hardly feel it: FedDyn does not become FedAvg as α goes to 0.
    options = {"rounds": 1, "settings": SGD, "double": True, "sites": 2}
    sites = {"p0": {"machines": 4}, "p1": {"machines": 4}}
    run = federate(tmp_path / "d", "feddyn", overrides=["strategy.alpha=1e-9"],
                   **{**options, "sites": sites})  # fmt: skip
    updates = federate(tmp_path / "s", "scaffold", **{**options, "sites": sites})  # plain mean
    start, mean, end = run.weights(0), updates.weights(1), run.weights(1)
    assert distance({n: 2 * mean[n] - start[n] for n in mean}, end) < 1e-6


@pytest.mark.parametrize("alpha", [0.0, -0.1])
def test_an_alpha_that_cannot_work_is_refused(alpha: float) -> None:
    with pytest.raises(ConfigError, match=r"strategy\.alpha="):
        FedDyn(alpha=alpha)

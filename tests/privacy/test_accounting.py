"""The account of the budget: closed forms, the library itself, and how noise is solved for."""

from __future__ import annotations

import builtins
import math
from typing import Any

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant

from fedpdm.errors import ConfigError
from fedpdm.privacy.accounting import Mechanism

DELTA = 1e-5


def closed_form(noise: float, releases: int) -> float:
    """Return epsilon of Gaussian releases by hand: Rényi divergence α·T/(2z²), over all α > 1.

    Converted by Canonne, Kamath and Steinke 2020, proposition 12.
    """
    alpha = np.linspace(1.001, 300, 600_000)
    rdp = alpha * releases / (2 * noise**2)
    found = rdp + np.log1p(-1 / alpha) - (np.log(DELTA) + np.log(alpha)) / (alpha - 1)
    return float(found.min())


@pytest.mark.parametrize(("noise", "releases"), [(2.0, 20), (5.0, 10), (8.0, 100), (30.0, 200)])
def test_without_sampling_epsilon_is_the_closed_form(noise: float, releases: int) -> None:
    found = Mechanism(noise, "poisson", drawn=1.0).epsilon(releases, DELTA)
    # The library looks at a grid of α, so it is never below.
    assert found == pytest.approx(closed_form(noise, releases), abs=1e-3 + 5e-4 * found)
    assert found >= closed_form(noise, releases) - 1e-6


def test_neighbours_that_replace_cost_what_half_the_noise_costs() -> None:
    added = Mechanism(4.0, "poisson", drawn=1.0).epsilon(10, DELTA)
    for replaced in (Mechanism(8.0), Mechanism(8.0, "fixed", units=50, drawn=50)):
        assert replaced.epsilon(10, DELTA) == pytest.approx(added, abs=1e-9)
    assert Mechanism(1.0).sensitivity == 2.0 and Mechanism(1.0, "poisson").sensitivity == 1.0


def composed(event: Any, relation: Any, releases: int) -> float:
    accountant = RdpAccountant(neighboring_relation=relation)
    accountant.compose(event, releases)
    return float(accountant.get_epsilon(DELTA))


def test_samples_are_accounted_as_they_are_drawn() -> None:
    relation, gauss = dp_accounting.NeighboringRelation, dp_accounting.GaussianDpEvent
    poisson = composed(
        dp_accounting.PoissonSampledDpEvent(0.1, gauss(2.0)), relation.ADD_OR_REMOVE_ONE, 50
    )
    fixed = composed(
        dp_accounting.SampledWithoutReplacementDpEvent(100, 10, gauss(1.0)),
        relation.REPLACE_ONE, 50,
    )  # fmt: skip
    assert Mechanism(2.0, "poisson", drawn=0.1).epsilon(50, DELTA) == pytest.approx(poisson)
    assert Mechanism(2.0, "fixed", units=100, drawn=10).epsilon(50, DELTA) == pytest.approx(fixed)
    # A fixed cohort is worth less, and no sampling is worth the least.
    assert poisson < fixed < Mechanism(2.0).epsilon(50, DELTA)


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 10.0])
def test_noise_is_the_least_that_keeps_to_a_budget(epsilon: float) -> None:
    solved = Mechanism(0.0, "poisson", drawn=0.2).with_epsilon(epsilon, 30, DELTA)
    assert 0.99 * epsilon < solved.epsilon(30, DELTA) <= epsilon
    assert solved.epsilon(31, DELTA) > solved.epsilon(30, DELTA)


def test_the_ends_of_the_scale() -> None:
    assert Mechanism(0.0).epsilon(1, DELTA) is None
    assert Mechanism(0.0).epsilon(0, DELTA) == 0.0 == Mechanism(1.0).epsilon(0, DELTA)
    assert not math.isinf(Mechanism(1e-3).epsilon(1, DELTA))
    with pytest.raises(ConfigError, match="cannot be kept"):
        Mechanism(0.0).with_epsilon(1e-6, 1000, 1e-12)


def test_without_the_package_one_sentence_says_how_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def gone(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("dp_accounting"):
            raise ImportError("No module named 'dp_accounting'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", gone)
    with pytest.raises(ConfigError, match=r"pip install 'fedpdm\[dp\]'"):
        Mechanism(1.7).epsilon(3, DELTA)

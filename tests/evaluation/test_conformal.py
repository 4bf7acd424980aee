"""Intervals that cover what they promise, on machines whose windows are alike."""

from __future__ import annotations

import numpy as np
import pytest

from fedpdm.evaluation import conformal
from fedpdm.evaluation.conformal import (
    Interval,
    at_least,
    binomial_interval,
    calibrate,
    covered,
    expected_quantile,
    scale,
)

CAP = 100.0


def test_with_one_window_per_machine_it_is_the_order_statistic() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 20))  # 1 … 19
    machines = np.arange(19)
    assert expected_quantile(scores, machines, 19, 0.9) == 18.0  # ceil(20 · 0.9)
    assert expected_quantile(scores, machines, 19, 0.5) == 10.0
    assert expected_quantile(scores[:9], machines[:9], 9, 0.9) == scores[:9].max()
    assert expected_quantile(scores[:8], machines[:8], 8, 0.9) == np.inf


def test_windows_of_a_machine_count_as_one() -> None:
    scores = np.arange(1.0, 20)
    many = np.repeat(scores, np.arange(1, 20))  # the worst machine has the most windows
    owner = np.repeat(np.arange(19), np.arange(1, 20))
    assert expected_quantile(many, owner, 19, 0.9) == 18.0


def test_the_average_over_cuts_is_that_of_drawing_cuts() -> None:
    random = np.random.default_rng(4)
    owner = np.repeat(np.arange(12), 30)
    scores = random.exponential(size=12).repeat(30) + random.exponential(size=360)
    k = int(np.ceil(13 * 0.9))
    drawn = [
        np.sort(scores.reshape(12, 30)[np.arange(12), random.integers(0, 30, 12)])[k - 1]
        for _ in range(4000)
    ]
    held = np.mean([(scores <= q).mean() for q in drawn])
    found = expected_quantile(scores, owner, 12, 0.9)
    assert (scores <= found).mean() == pytest.approx(held, abs=0.01)


def test_of_many_machines_it_is_the_plain_quantile(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(9)
    owner, scores = np.repeat(np.arange(200), 5), random.exponential(size=1000)
    exact = expected_quantile(scores, owner, 200, 0.9)
    monkeypatch.setattr(conformal, "MANY", 100)
    assert expected_quantile(scores, owner, 200, 0.9) == pytest.approx(exact, rel=0.02)


def test_the_number_of_independent_events_by_hand() -> None:
    chances = np.array([[0.5, 0.2], [1.0, 0.0]])
    np.testing.assert_allclose(at_least(chances, 0), [1.0, 1.0])
    np.testing.assert_allclose(at_least(chances, 1), [1 - 0.5 * 0.8, 1.0])
    np.testing.assert_allclose(at_least(chances, 2), [0.1, 0.0])


@pytest.mark.parametrize("between", [0.0, 1.0])  # share of the error that a machine keeps
def test_coverage_of_new_machines_is_what_was_promised(between: float) -> None:
    random = np.random.default_rng(11)
    hits = []
    for _ in range(150):
        machines, windows = 30, 20
        owner = np.repeat(np.arange(machines + 20), windows)
        truth = random.uniform(10, 90, len(owner))
        kept = random.normal(size=machines + 20)[owner]
        noise = between * kept + (1 - between) * random.normal(size=len(owner))
        predicted = np.clip(truth + 4 * noise, 0, CAP)
        ours = owner < machines
        interval = calibrate(predicted[ours], truth[ours], owner[ours], 0.9, CAP)
        looked_at = np.arange(machines, machines + 20) * windows + random.integers(0, windows, 20)
        hits.append(covered(interval, predicted[looked_at], truth[looked_at])[0].mean())
    assert np.mean(hits) == pytest.approx(0.9, abs=0.02)


def test_an_interval_stays_between_nothing_and_the_cap() -> None:
    interval = Interval(0.9, 0.5, CAP, 30)
    low, high = interval(np.array([0.0, 50.0, 100.0]))
    np.testing.assert_allclose(low, [0.0, 50 - 0.5 * 70, 100 - 0.5 * 120])
    np.testing.assert_allclose(high, [10.0, 85.0, 100.0])
    inside, width = covered(interval, np.array([50.0, 50.0, 100.0]), np.array([84.0, 86.0, 250.0]))
    assert inside.tolist() == [True, False, True]  # a truth above the cap counts as the cap
    np.testing.assert_allclose(width, [70.0, 70.0, 60.0])
    np.testing.assert_allclose(interval.unclipped(np.array([50.0, 100.0])), [70.0, 120.0])
    assert scale(np.array([0.0]), CAP)[0] > 0


def test_of_too_few_machines_the_interval_is_everything() -> None:
    few = calibrate(np.array([5.0]), np.array([6.0]), np.array([0]), 0.9, CAP)
    low, high = few(np.array([40.0]))
    assert (low[0], high[0]) == (0.0, CAP) and few.machines == 1
    nobody = calibrate(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64), 0.9, CAP)
    assert nobody.factor == np.inf


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [  # NIST handbook and Clopper-Pearson's own table, to three places
        (0, 10, 0.0, 0.308),
        (10, 10, 0.692, 1.0),
        (4, 20, 0.057, 0.437),
        (90, 100, 0.824, 0.951),
        (1, 2, 0.013, 0.987),
    ],
)
def test_the_exact_interval_of_a_share(hits: int, count: int, low: float, high: float) -> None:
    assert binomial_interval(hits, count) == pytest.approx((low, high), abs=6e-4)

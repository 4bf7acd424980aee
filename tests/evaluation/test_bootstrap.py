"""Resamples of machines: weights are repetitions, and metrics are scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from fedpdm.evaluation import bootstrap
from fedpdm.evaluation.bootstrap import (
    affordable,
    average_precision,
    draws,
    percentile_interval,
    root_mean_square,
)
from tests.tasks.test_metrics import Labelled, labelled_scores


@settings(max_examples=60)
@given(labelled_scores(2), st.data())
def test_weights_are_repetitions_of_whole_machines(case: Labelled, data: st.DataObject) -> None:
    target, scores = case
    count = data.draw(st.integers(1, 5))
    machine = np.array(
        data.draw(st.lists(st.integers(0, count - 1), min_size=len(target), max_size=len(target)))
    )
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    metric = average_precision(target, scores, machine, count)
    ones, found = metric(np.stack([np.ones(count), weights.astype(float)]))
    for value, times in ((ones, np.ones(len(target), dtype=int)), (found, weights[machine])):
        truth, said = np.repeat(target, times), np.repeat(scores, times)
        if truth.sum() == 0:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(average_precision_score(truth, said))


def test_errors_are_weighed_by_machine() -> None:
    metric = root_mean_square(np.array([3.0, 4.0, 12.0]), np.array([0, 0, 1]), 2)
    found = metric(np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 0.0]]))
    np.testing.assert_allclose(found, [np.sqrt(169 / 3), np.sqrt(12.5), np.nan])


def test_machines_are_drawn_within_their_site_and_by_the_seed() -> None:
    site = np.array([0, 0, 0, 1, 1])
    drawn = draws(site, 500, seed=1)
    assert (drawn[:, :3].sum(axis=1) == 3).all()
    assert (drawn[:, 3:].sum(axis=1) == 2).all()
    np.testing.assert_allclose(drawn.mean(axis=0), 1.0, atol=0.15)
    np.testing.assert_array_equal(drawn, draws(site, 500, seed=1))
    assert (drawn != draws(site, 500, seed=2)).any()


def test_the_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    values = np.random.default_rng(0).normal(10, 2, 100)
    drawn = draws(np.zeros(100, dtype=np.int64), 4000, seed=3)
    ends = percentile_interval(drawn @ values / 100)
    half = 1.96 * values.std() / 10
    assert ends == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)


def test_rows_of_a_machine_do_not_make_it_surer() -> None:
    random = np.random.default_rng(5)
    error = random.normal(size=12)
    once = root_mean_square(error, np.arange(12), 12)
    often = root_mean_square(np.repeat(error, 50), np.repeat(np.arange(12), 50), 12)
    weights = draws(np.zeros(12, dtype=np.int64), 200, seed=0)
    np.testing.assert_allclose(once(weights), often(weights))


def test_too_many_resamples_without_a_value_give_no_interval() -> None:
    values = np.r_[np.full(11, np.nan), np.linspace(0, 1, 89)]
    assert percentile_interval(values) is None
    assert percentile_interval(values[1:]) is None
    assert percentile_interval(values[8:]) is not None
    assert percentile_interval(np.zeros(0)) is None


def test_of_very_many_machines_fewer_resamples_are_drawn() -> None:
    assert affordable(1000, 100, 250) == 1000
    assert affordable(1000, 10_000, 10**6) < 200


def test_coarser_levels_lose_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(8)
    target = (random.random(3000) < 0.3).astype(np.int64)
    scores = random.random(3000) + 0.3 * target
    machine = random.integers(0, 40, 3000)
    weights = draws(np.zeros(40, dtype=np.int64), 50, seed=0)
    exact = average_precision(target, scores, machine, 40)(weights)
    monkeypatch.setattr(bootstrap, "MOST_LEVELS", 200)
    coarse = average_precision(target, scores, machine, 40)(weights)
    np.testing.assert_allclose(coarse, exact, atol=0.01)

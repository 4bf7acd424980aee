"""Resamples of machines: weights are repetitions, and metrics are scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score

from fedpdm.evaluation import bootstrap
from fedpdm.evaluation.bootstrap import (
    LOGIT,
    Drawn,
    affordable,
    average_precision,
    bootstrap_t,
    draws,
    mean_of,
    root_mean_square,
    standard_errors,
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
    ones, found = metric(np.stack([np.ones(count), weights.astype(float)])).values
    for value, times in ((ones, np.ones(len(target), dtype=int)), (found, weights[machine])):
        truth, said = np.repeat(target, times), np.repeat(scores, times)
        if truth.sum() == 0:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(average_precision_score(truth, said))


def test_errors_are_weighed_by_machine() -> None:
    metric = root_mean_square(np.array([3.0, 4.0, 12.0]), np.array([0, 0, 1]), 2)
    found = metric(np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 0.0]])).values
    np.testing.assert_allclose(found, [np.sqrt(169 / 3), np.sqrt(12.5), np.nan])


def test_slopes_are_those_of_finite_differences() -> None:
    random = np.random.default_rng(2)
    machine = np.repeat(np.arange(6), 8)
    target, scores = random.random(48) < 0.4, random.normal(size=48).round(1)
    weights = random.integers(1, 4, (3, 6)).astype(float)
    for metric in (
        average_precision(target, scores, machine, 6),
        root_mean_square(scores, machine, 6),
        mean_of([average_precision(target, sign * scores, machine, 6) for sign in (1, -1)]),
    ):
        drawn, step = metric(weights), 1e-6
        for number in range(6):
            further = weights + step * (np.arange(6) == number)
            slope = (metric(further).values - drawn.values) / step
            np.testing.assert_allclose(drawn.slopes[:, number], slope, atol=1e-4)


def test_the_standard_error_of_a_mean_is_the_textbooks() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0, 3.0])
    weights = np.array([[1.0, 1, 1, 1, 1], [2, 0, 1, 1, 1]])
    mean = weights @ values / 5
    drawn = Drawn(mean, (values - mean[:, None]) / 5)
    found = standard_errors(drawn, weights, np.zeros(5, dtype=np.int64))
    again = np.array([1.0, 1, 4, 9, 3])
    expected = [each.std(ddof=1) / np.sqrt(5) for each in (values, again)]
    np.testing.assert_allclose(found, expected)
    apart = standard_errors(
        Drawn(mean[:1], drawn.slopes[:1]), weights[:1], np.array([0, 0, 1, 1, 1])
    )
    parts = [values[:2], values[2:]]
    expected = np.sqrt(sum(len(p) * p.var(ddof=1) for p in parts)) / 5
    np.testing.assert_allclose(apart, [expected])


def test_the_interval_of_a_mean_is_students() -> None:
    """On a normal sample the bootstrap of t finds the quantile of t."""
    values = np.random.default_rng(0).normal(10, 2, 12)
    site = np.zeros(12, dtype=np.int64)
    weights = np.concatenate([np.ones((1, 12)), draws(site, 20_000, seed=3)])
    mean = weights @ values / 12
    ends = bootstrap_t(mean[0], Drawn(mean, (values - mean[:, None]) / 12), weights, site)
    half = stats.t.ppf(0.975, 11) * values.std(ddof=1) / np.sqrt(12)
    assert ends is not None
    assert ends[1] - mean[0] == pytest.approx(half, rel=0.1) == mean[0] - ends[0]


def test_the_bias_of_resamples_is_taken_off_and_students_width_is_the_least() -> None:
    values = np.random.default_rng(0).normal(10, 2, 12)
    site = np.zeros(12, dtype=np.int64)
    weights = np.concatenate([np.ones((1, 12)), draws(site, 400, seed=3)])
    slopes = (values - (weights @ values / 12)[:, None]) / 12
    error = standard_errors(Drawn(weights[:, 0], slopes), weights, site)[0]
    still = np.append(values.mean(), values.mean() + 0.1 * error + np.zeros(400))
    ends = bootstrap_t(still[0], Drawn(still, slopes), weights, site)
    half = stats.t.ppf(0.975, 11) * error
    assert ends is not None
    np.testing.assert_allclose(ends, still[0] - 0.1 * error + np.array([-half, half]))
    far = np.append(values.mean(), values.mean() + 100 * error + np.zeros(400))
    ends = bootstrap_t(far[0], Drawn(far, slopes), weights, site)
    assert ends is not None and ends[0] < far[0] <= ends[1], "an interval holds its value"


def test_on_its_scale_an_interval_stays_within_it() -> None:
    site, weights = np.zeros(8, dtype=np.int64), draws(np.zeros(8, dtype=np.int64), 500, seed=3)
    weights = np.concatenate([np.ones((1, 8)), weights])
    values = np.array([0.99, 1.0, 0.9, 1.0, 0.97, 0.3, 1.0, 1.0])
    mean = weights @ values / 8
    drawn = Drawn(mean, (values - mean[:, None]) / 8)
    own, logit = (bootstrap_t(mean[0], drawn, weights, site, scale) for scale in (None, LOGIT))
    assert own is not None and logit is not None
    assert own[1] > 1 > logit[1] > mean[0] > logit[0] > 0


def test_machines_that_are_alike_give_no_interval() -> None:
    weights = np.concatenate([np.ones((1, 4)), draws(np.zeros(4, dtype=np.int64), 50, seed=3)])
    alike = Drawn(np.full(51, 0.5), np.zeros((51, 4)))
    site = np.zeros(4, dtype=np.int64)
    assert bootstrap_t(0.5, alike, weights, site) is None
    assert bootstrap_t(0.0, alike - alike, weights, site) == (0.0, 0.0), "equal predictions"


def test_machines_are_drawn_within_their_site_and_by_the_seed() -> None:
    site = np.array([0, 0, 0, 1, 1])
    drawn = draws(site, 500, seed=1)
    assert (drawn[:, :3].sum(axis=1) == 3).all()
    assert (drawn[:, 3:].sum(axis=1) == 2).all()
    np.testing.assert_allclose(drawn.mean(axis=0), 1.0, atol=0.15)
    np.testing.assert_array_equal(drawn, draws(site, 500, seed=1))
    assert (drawn != draws(site, 500, seed=2)).any()


def test_rows_of_a_machine_do_not_make_it_surer() -> None:
    random = np.random.default_rng(5)
    error = random.normal(size=12)
    once = root_mean_square(error, np.arange(12), 12)
    often = root_mean_square(np.repeat(error, 50), np.repeat(np.arange(12), 50), 12)
    weights = draws(np.zeros(12, dtype=np.int64), 200, seed=0)
    np.testing.assert_allclose(once(weights).values, often(weights).values)


def test_too_many_resamples_without_a_value_give_no_interval() -> None:
    weights = np.concatenate([np.ones((1, 4)), draws(np.zeros(4, dtype=np.int64), 99, seed=3)])
    site, values = np.zeros(4, dtype=np.int64), np.array([1.0, 2.0, 4.0, 5.0])
    mean = weights @ values / 4
    slopes = (values - mean[:, None]) / 4
    for lost, there in ((5, True), (20, False)):
        some = np.where(np.arange(100) > 100 - lost - 1, np.nan, mean)
        assert (bootstrap_t(3.0, Drawn(some, slopes), weights, site) is not None) == there


def test_of_very_many_machines_fewer_resamples_are_drawn() -> None:
    assert affordable(1000, 100, 250) == 1000
    assert affordable(1000, 10_000, 10**6) < 200


def test_coarser_levels_lose_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(8)
    target = (random.random(3000) < 0.3).astype(np.int64)
    scores = random.random(3000) + 0.3 * target
    machine = random.integers(0, 40, 3000)
    weights = draws(np.zeros(40, dtype=np.int64), 50, seed=0)
    exact = average_precision(target, scores, machine, 40)(weights).values
    monkeypatch.setattr(bootstrap, "MOST_LEVELS", 200)
    coarse = average_precision(target, scores, machine, 40)(weights).values
    np.testing.assert_allclose(coarse, exact, atol=0.01)

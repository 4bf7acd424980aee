"""The metrics against closed forms, hand calculation and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpdm.tasks import metrics

Labelled = tuple[np.ndarray, np.ndarray]


@st.composite
def labelled_scores(draw: st.DrawFn, least: int = 1) -> Labelled:
    """0/1 targets and probabilities on a grid, so that ties occur."""
    n = draw(st.integers(least, 40))
    target = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    scores = draw(st.lists(st.integers(0, 20), min_size=n, max_size=n))
    return np.array(target), np.array(scores) / 20.0


def average_precision(target: np.ndarray, scores: np.ndarray) -> float:
    """The sum over alarm levels of precision times the recall gained there."""
    total, recall = 0.0, 0.0
    for level in sorted(set(scores), reverse=True):
        alarm = scores >= level
        hits = float(target[alarm].sum())
        total += hits / alarm.sum() * (hits / target.sum() - recall)
        recall = hits / target.sum()
    return total


@settings(max_examples=60)
@given(labelled_scores(2))
def test_average_precision_is_the_step_sum_over_alarm_levels(case: Labelled) -> None:
    target, scores = case
    value = metrics.classification(target, scores)["average_precision"]
    if 0 < target.sum() < len(target):
        assert value == pytest.approx(average_precision(target, scores))
    else:
        assert value is None


@settings(max_examples=60)
@given(labelled_scores(2))
def test_ranking_metrics_are_those_of_scikit_learn_to_the_last_bit(case: Labelled) -> None:
    from sklearn.metrics import average_precision_score, matthews_corrcoef, roc_auc_score

    target, scores = case
    if not 0 < target.sum() < len(target):
        return
    found = metrics.classification(target, scores)
    assert found["average_precision"] == average_precision_score(target, scores)
    assert found["roc_auc"] == roc_auc_score(target, scores)
    alarms = metrics.at_threshold(target, scores, 0.5)
    assert alarms["mcc"] == matthews_corrcoef(target, scores >= 0.5)


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        metrics.classification(np.array([0, 1]), np.array([0.5, np.nan]))


def test_a_constant_score_has_the_prevalence_as_average_precision() -> None:
    target = np.array([1] * 3 + [0] * 97)
    result = metrics.classification(target, np.full(100, 0.4))
    assert result["average_precision"] == pytest.approx(0.03)
    assert result["roc_auc"] == pytest.approx(0.5)
    assert result["prevalence"] == pytest.approx(0.03)
    assert (result["n"], result["positives"]) == (100.0, 3.0)


@settings(max_examples=60)
@given(labelled_scores())
def test_shares_stay_between_zero_and_one(case: Labelled) -> None:
    target, scores = case
    result = metrics.classification(target, scores) | metrics.at_threshold(target, scores, 0.5)
    for name in ("average_precision", "roc_auc", "brier", "ece", "prevalence", "f1", "precision"):
        value = result[name]
        assert value is None or 0.0 <= value <= 1.0 + 1e-12, name
    assert result["mcc"] is None or -1.0 - 1e-12 <= result["mcc"] <= 1.0 + 1e-12


@pytest.mark.parametrize("only", [0, 1])
def test_with_one_class_what_cannot_be_computed_is_none(only: int) -> None:
    target, scores = np.full(8, only), np.linspace(0.1, 0.9, 8)
    result = metrics.classification(target, scores)
    assert result["average_precision"] is None
    assert result["roc_auc"] is None
    assert result["prevalence"] == only
    assert result["brier"] is not None
    alarms = metrics.at_threshold(target, scores, 0.5)
    assert alarms["f1"] is None
    assert alarms["mcc"] is None
    assert alarms["recall"] == (None if only == 0 else 0.5)


def test_of_nothing_everything_but_the_count_is_none() -> None:
    empty = np.array([])
    result = metrics.classification(empty.astype(int), empty)
    assert result.pop("n") == result.pop("positives") == 0.0
    assert set(result.values()) == {None}
    life = metrics.remaining_life(empty, empty, cap=125.0)
    assert life.pop("n") == 0.0
    assert set(life.values()) == {None}


def test_alarms_are_counted_at_and_above_the_threshold() -> None:
    target = np.array([1, 0, 1, 0, 1])
    scores = np.array([0.9, 0.8, 0.5, 0.4, 0.1])
    result = metrics.at_threshold(target, scores, 0.5)  # 2 hits, 1 false alarm, 1 miss
    assert result["precision"] == pytest.approx(2 / 3)
    assert result["recall"] == pytest.approx(2 / 3)
    assert result["f1"] == pytest.approx(2 / 3)
    assert result["mcc"] == pytest.approx((2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2))
    assert metrics.at_threshold(target, scores, 0.95)["precision"] is None


def test_half_where_three_of_ten_fail_is_off_by_a_fifth() -> None:
    target = np.array([1] * 3 + [0] * 7)
    assert metrics.expected_calibration_error(target, np.full(10, 0.5)) == pytest.approx(0.20)


def test_calibration_error_weighs_bins_by_their_size_and_does_not_cancel() -> None:
    # Bin 0.1: 3 of 4 say 0.15 and none fails. Bin 0.9: 1 says 0.95 and does not fail.
    target, scores = np.array([0, 0, 0, 0]), np.array([0.15, 0.15, 0.15, 0.95])
    expected = 3 / 4 * 0.15 + 1 / 4 * 0.95
    assert metrics.expected_calibration_error(target, scores) == pytest.approx(expected)
    # One bin too high, one too low by as much: the mean score is right, the error is not 0.
    target, scores = np.array([0, 1]), np.array([0.25, 0.75])
    assert metrics.expected_calibration_error(target, scores) == pytest.approx(0.25)


def test_certainty_that_comes_true_is_calibrated() -> None:
    target = np.array([0, 1, 1])
    assert metrics.expected_calibration_error(target, target.astype(float)) == 0.0


def test_nasa_score_by_hand_and_late_costs_more_than_early() -> None:
    truth = np.array([50.0, 50.0])
    assert metrics.nasa_score(truth[:1], np.array([60.0])) == pytest.approx(math.e - 1)  # late
    assert metrics.nasa_score(truth[:1], np.array([37.0])) == pytest.approx(math.e - 1)  # early
    both = metrics.nasa_score(truth, np.array([60.0, 40.0]))
    assert both == pytest.approx(math.exp(1) - 1 + math.exp(10 / 13) - 1)
    for error in (1.0, 7.5, 30.0):
        late = metrics.nasa_score(truth[:1], truth[:1] + error)
        early = metrics.nasa_score(truth[:1], truth[:1] - error)
        assert late > early > 0
    assert metrics.nasa_score(truth, truth) == 0.0


def test_remaining_life_is_measured_against_capped_and_uncapped_truth() -> None:
    truth, predicted = np.array([200.0, 100.0]), np.array([125.0, 104.0])
    result = metrics.remaining_life(truth, predicted, cap=125.0)
    assert result["rmse"] == pytest.approx(math.sqrt((0 + 16) / 2))
    assert result["rmse_uncapped"] == pytest.approx(math.sqrt((75**2 + 16) / 2))
    assert result["mae"] == pytest.approx(2.0)
    assert result["nasa_score"] == pytest.approx(math.expm1(0.4))


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.floats(0, 300), st.floats(0, 125)), min_size=1, max_size=30
    )
)  # fmt: skip
def test_error_measures_keep_their_order(pairs: list[tuple[float, float]]) -> None:
    truth, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    result = metrics.remaining_life(truth, predicted, cap=125.0)
    rmse, mae, uncapped = result["rmse"], result["mae"], result["rmse_uncapped"]
    assert rmse is not None and mae is not None and uncapped is not None
    assert 0 <= mae <= rmse + 1e-9
    assert rmse <= uncapped + 1e-9  # predictions do not exceed the cap

"""A temperature that was applied is found again; order, nesting and ranking stay."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpdm.errors import ConfigError
from fedpdm.evaluation.calibration import Temperature, calibration_of, fit
from fedpdm.evaluation.protocol import EvaluationProtocol
from fedpdm.tasks.metrics import classification


def overconfident(count: int = 4000, factor: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of known log-odds, and scores that exaggerate them by a factor."""
    random = np.random.default_rng(7)
    odds = random.normal(-1, 1.5, count)
    target = (random.random(count) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    return target, 1 / (1 + np.exp(-factor * odds))


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_of_exaggerated_scores_is_their_factor(factor: float) -> None:
    target, scores = overconfident(factor=factor)
    scale = fit("temperature", target, scores)
    assert isinstance(scale, Temperature)
    assert scale.temperature == pytest.approx(factor, rel=0.1)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_calibrated_scores_are_better_calibrated_on_other_data(method: str) -> None:
    target, scores = overconfident()
    scale = fit(method, target[:2000], scores[:2000])
    assert scale is not None
    before = classification(target[2000:], scores[2000:])
    after = classification(target[2000:], scale(scores[2000:]))
    for name in ("brier", "ece"):
        old, new = before[name], after[name]
        assert old is not None and new is not None and new < old
    again = calibration_of(json.loads(json.dumps(scale.described())))
    assert again is not None
    np.testing.assert_array_equal(again(scores), scale(scores))
    np.testing.assert_array_equal(again(scores[:, None])[:, 0], scale(scores))  # as predict asks


WRITTEN = st.lists(
    st.one_of(
        st.floats(0, 1, width=32),
        st.floats(0, 2**-10, width=32),
        st.sampled_from([0.0, 1.0, 0.25, 0.5]),
        st.floats(-40, 34, width=32).map(lambda odds: round(odds, 3)).map(  # a sure network
            lambda odds: float(1 / (1 + np.exp(-odds)))
        ),
    ),
    min_size=2, max_size=40,
)  # fmt: skip
"""Scores of 32 bits, with ties and both ends among them."""


@settings(max_examples=100)
@given(WRITTEN, st.sampled_from(["isotonic", 0.05, 0.7, 20.0]), st.data())
def test_a_calibration_keeps_the_order_and_average_precision(
    said: list[float], method: str | float, data: st.DataObject
) -> None:
    scores = np.array(said)
    every = st.lists(st.integers(0, 1), min_size=len(said), max_size=len(said))
    target = np.array(data.draw(every))
    seen = data.draw(st.integers(1, len(said)))  # other windows lie outside of what was fitted
    scale = fit(method, target[:seen], scores[:seen]) if isinstance(method, str) else None
    scale = scale or Temperature(method if isinstance(method, float) else 1.0)
    found = scale(scores)
    assert ((found >= 0) & (found <= 1)).all()
    first, second = np.unique(scores, return_inverse=True), np.unique(found, return_inverse=True)
    np.testing.assert_array_equal(second[1], first[1])  # the same ranks, and the same ties
    for name in ("average_precision", "roc_auc"):
        before, after = classification(target, scores)[name], classification(target, found)[name]
        assert after == before


def test_a_temperature_leaves_even_odds_alone() -> None:
    assert Temperature(7.0)(np.array([0.5]))[0] == pytest.approx(0.5, abs=1e-4)


def test_isotonic_costs_no_brier_score_beside_the_regression_itself() -> None:
    target, scores = overconfident()
    scale = fit("isotonic", target, scores)
    assert scale is not None
    plain, found = scale.risks(scores), scale(scores)
    before, after = classification(target, plain), classification(target, found)
    for name in ("brier", "ece"):
        old, new = before[name], after[name]
        assert old is not None and new is not None and abs(new - old) < 2e-5
    assert len(np.unique(found)) == len(np.unique(scores)) > len(np.unique(plain))


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_nested_horizons_stay_nested(method: str) -> None:
    random = np.random.default_rng(2)
    scores = np.sort(random.random((400, 3)), axis=1)
    target = (random.random((400, 1)) < scores**2).astype(np.float32)  # one draw: nested, too
    scale = fit(method, target, scores)
    assert scale is not None
    assert scale(scores[:0]).shape == (0, 3)
    found = scale(scores)
    assert found.shape == scores.shape and (np.diff(found, axis=1) >= 0).all()
    for h in range(3):
        before, after = (classification(target[:, h], s[:, h]) for s in (scores, found))
        assert after["average_precision"] == before["average_precision"]
        old, new = before["brier"], after["brier"]
        assert old is not None and new is not None and (method != "isotonic" or new < old)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_a_weight_is_a_number_of_windows(method: str) -> None:
    target, scores = overconfident(300)
    counts = np.random.default_rng(1).integers(0, 4, 300)
    weighed = fit(method, target, scores, counts.astype(float))
    repeated = fit(method, np.repeat(target, counts), np.repeat(scores, counts))
    assert weighed is not None and repeated is not None
    np.testing.assert_allclose(weighed(scores), repeated(scores), atol=1e-4)


def test_isotonic_is_the_pool_of_adjacent_violators() -> None:
    scores, target = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 1, 0, 1])
    scale = fit("isotonic", target, scores)
    assert scale is not None
    np.testing.assert_allclose(scale(scores), [0.0, 0.5, 0.5, 1.0], atol=1e-4)


def test_with_nothing_to_learn_there_is_no_calibration() -> None:
    scores = np.array([0.2, 0.4])
    assert fit("none", np.array([0, 1]), scores) is None
    assert fit("temperature", np.array([0, 0]), scores) is None
    assert fit("isotonic", np.zeros(0), np.zeros(0)) is None
    assert fit("temperature", np.array([0, 1]), scores, np.array([1.0, 0.0])) is None
    assert calibration_of(None) is None
    with pytest.raises(ConfigError, match="evaluate.calibration=platt is unknown"):
        EvaluationProtocol(calibration="platt")
    with pytest.raises(KeyError):
        calibration_of({"method": "platt"})

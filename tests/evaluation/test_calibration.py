"""A temperature that was applied is found again; order, nesting and ranking stay."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpdm.errors import ConfigError
from fedpdm.evaluation.calibration import Temperature, calibration_of, fit
from fedpdm.evaluation.settings import Protocol
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


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.floats(0.05, 20))
def test_a_temperature_keeps_the_order(scores: list[float], temperature: float) -> None:
    said = np.sort(np.array(scores))
    found = Temperature(temperature)(said)
    assert ((found >= 0) & (found <= 1)).all() and (np.diff(found) >= 0).all()
    assert Temperature(temperature)(np.array([0.5]))[0] == pytest.approx(0.5)


def test_a_temperature_leaves_average_precision_alone() -> None:
    target, scores = overconfident()
    scale = Temperature(2.7)
    for name in ("average_precision", "roc_auc"):
        assert classification(target, scale(scores))[name] == pytest.approx(
            classification(target, scores)[name], abs=1e-12
        )


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
    np.testing.assert_allclose(scale(scores), [0.0, 0.5, 0.5, 1.0])


def test_with_nothing_to_learn_there_is_no_calibration() -> None:
    scores = np.array([0.2, 0.4])
    assert fit("none", np.array([0, 1]), scores) is None
    assert fit("temperature", np.array([0, 0]), scores) is None
    assert fit("isotonic", np.zeros(0), np.zeros(0)) is None
    assert fit("temperature", np.array([0, 1]), scores, np.array([1.0, 0.0])) is None
    assert calibration_of(None) is None
    with pytest.raises(ConfigError, match="evaluate.calibration=platt is unknown"):
        Protocol(calibration="platt")
    with pytest.raises(KeyError):
        calibration_of({"method": "platt"})

"""Shapley values on scores whose values are known, and the machines that a report lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpdm.evaluation.attribution import badness, inputs_of, reference, shapley
from fedpdm.evaluation.inspection import drivers, now
from fedpdm.tasks import Failure, RemainingLife

GROUPS = {"a": np.array([0]), "b": np.array([1]), "c": np.array([2, 3])}


def drawn(seed: int, count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return tuple(random.normal(size=(2, count, 3, 4)).astype(np.float32))


def test_a_linear_score_gives_each_sensor_its_own_term() -> None:
    x, calm = drawn(0)
    weights = np.array([2.0, -1.0, 0.5, 3.0])
    found = shapley(lambda z: (z.mean(axis=1) * weights).sum(axis=1), x, calm, GROUPS, seed=1)
    terms = (x - calm).mean(axis=1) * weights
    expected = np.stack([terms[:, 0], terms[:, 1], terms[:, 2] + terms[:, 3]], axis=1)
    assert np.allclose(found, expected, atol=1e-5)


def test_a_product_is_shared_and_a_sensor_without_effect_gets_nothing() -> None:
    x, calm = np.ones((1, 2, 4), np.float32), np.zeros((1, 2, 4), np.float32)
    found = shapley(lambda z: z[:, -1, 0] * z[:, -1, 1], x, calm, GROUPS, seed=3)
    assert np.allclose(found, [[0.5, 0.5, 0.0]])  # each order is taken both ways, so exactly


@given(st.integers(0, 1000), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_values_add_up_to_what_the_score_changed(seed: int, orders: int) -> None:
    x, calm = drawn(seed, 3)

    def score(z: np.ndarray) -> np.ndarray:
        return np.tanh(z[:, :, 0] * z[:, :, 1] + z[:, :, 3]).sum(axis=1).astype(np.float64)

    found = shapley(score, x, calm, GROUPS, seed, orders)
    assert np.allclose(found.sum(axis=1), score(x) - score(calm), atol=1e-6)


def test_inputs_made_from_a_sensor_are_the_sensor_s() -> None:
    found = inputs_of(("oil", "oil: hot"), ("oil", "oil: hot", "age in life", "oil: mean",
                                            "oil: hot: mean"))  # fmt: skip
    assert {name: list(own) for name, own in found.items()} == {
        "oil": [0, 3], "oil: hot": [1, 4], "age in life": [2]
    }  # fmt: skip


def test_a_window_is_compared_with_earlier_calm_windows_of_its_machine_only() -> None:
    machine = np.array(["a"] * 6 + ["b"] * 2)
    x = np.arange(8, dtype=np.float32)[:, None, None] * np.ones((1, 2, 1), np.float32)
    bad = np.array([0.0, 1.0, 9.0, 2.0, 8.0, 9.0, -5.0, 9.0])
    found = reference(lambda some: x[some], machine, bad, np.array([5, 7]))
    assert found[0, 0, 0] == pytest.approx((0 + 1 + 3) / 3)  # of 0 1 9 2 8 the better half
    assert (found[1] == 0).all()  # one window before it is too few


def test_log_odds_and_lives_are_worse_when_higher() -> None:
    assert np.allclose(badness(Failure(horizon=7), np.array([0.5, 0.9])), [0, np.log(9)])
    assert badness(RemainingLife(cap=125), np.array([10.0, 100.0])).tolist() == [-10, -100]


def test_a_machine_is_in_alarm_since_the_unbroken_run_that_ends_now() -> None:
    scores = np.array([0.9, 0.1, 0.8, 0.9, 0.9, 0.2, 0.7, 0.95])
    machine, time = np.array(list("aaaabbcc")), np.arange(8.0)
    found = now("here", machine, time, scores, 0.7, Failure(horizon=7))
    assert [(m.machine, m.score, m.alarm, m.since) for m in found] == [
        ("c", 0.95, True, 6.0), ("a", 0.9, True, 2.0), ("b", 0.2, False, None)
    ]  # fmt: skip
    two = (np.array(["a", "b"]), np.arange(2.0))
    unknown = now("here", *two, np.array([0.1, 0.2]), None, Failure(horizon=7))
    assert [(m.machine, m.alarm) for m in unknown] == [("b", None), ("a", None)]
    lives = now("here", *two, np.array([80.0, 9.0]), 30.0, RemainingLife(cap=125))
    assert [(m.machine, m.alarm) for m in lives] == [("b", True), ("a", False)]


def test_named_are_the_sensors_that_drive_a_score_up() -> None:
    x, calm = np.array([[1.0, -2.0, 0.0, 0.0]], np.float32), np.zeros((1, 4), np.float32)
    found = drivers(np.array([3.0, 1.0, -4.0]), x, calm, GROUPS)
    assert [(f["sensor"], f["share"], f["reads"]) for f in found] == [
        ("a", 0.75, "higher"), ("b", 0.25, "lower")
    ]  # fmt: skip
    assert drivers(np.array([-1.0, 0.0, -4.0]), x, calm, GROUPS) == []

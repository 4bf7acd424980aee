"""Episodes, lead times and event recall on lives that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpdm.evaluation.alarms import (
    Watch,
    Watched,
    alarm_curve,
    count_alarms,
    episodes,
    lead_times,
    sustained,
)
from fedpdm.evaluation.censoring import Censoring

WATCH = Watch(horizon=5, cooldown=2, sustained=2)


def censoring(*lives: tuple[int, bool]) -> Censoring:
    """Lives of one step per time unit: (length, whether a failure follows the last step by 1)."""
    number = np.repeat(np.arange(len(lives)), [n for n, _ in lives])
    time = np.concatenate([np.arange(n, dtype=float) for n, _ in lives])
    left = np.concatenate([
        np.arange(n, 0, -1.0) if fails else np.full(n, np.nan) for n, fails in lives
    ])  # fmt: skip
    return Censoring(number, number, time, time, left)


def at(length: int, *places: int) -> np.ndarray:
    alarm = np.zeros(length, dtype=bool)
    alarm[list(places)] = True
    return alarm


def begin_and_false(
    case: Censoring, alarm: np.ndarray, watch: Watch = WATCH
) -> list[tuple[int, bool]]:
    watched, order = Watched.of(case)
    first, false = episodes(watched, alarm[order], watch)
    return [(int(a), bool(b)) for a, b in zip(first, false, strict=True)]


def test_alarms_within_the_cooldown_are_one_episode() -> None:
    healthy = censoring((20, False))
    assert begin_and_false(healthy, at(20)) == []
    assert begin_and_false(healthy, at(20, 3)) == [(3, True)]
    assert begin_and_false(healthy, at(20, 3, 4, 6)) == [(3, True)]  # 2 apart: one
    assert begin_and_false(healthy, at(20, 3, 6)) == [(3, True), (6, True)]  # 3 apart: two


def test_an_alarm_that_goes_on_counts_again_after_each_horizon() -> None:
    healthy = censoring((15, False))
    assert begin_and_false(healthy, np.ones(15, dtype=bool)) == [(0, True), (5, True), (10, True)]


def test_an_episode_with_a_failure_within_the_horizon_is_true() -> None:
    failing = censoring((20, True))  # left is 20 … 1: within the horizon from step 15 on
    assert begin_and_false(failing, at(20, 13, 14)) == [(13, True)]
    assert begin_and_false(failing, at(20, 13, 14, 15)) == [(13, False)]
    assert begin_and_false(failing, at(20, 5, 16)) == [(5, True), (16, False)]


def test_lives_do_not_share_episodes() -> None:
    two = censoring((3, False), (3, False))
    assert begin_and_false(two, at(6, 2, 3)) == [(2, True), (3, True)]


def test_lead_time_is_from_the_first_sustained_true_alarm() -> None:
    failing = censoring((10, True), (10, True), (10, True), (10, False))
    watched, order = Watched.of(failing)
    alarm = np.concatenate([
        at(10, 2, 6, 8, 9),  # a lone alarm at 6, then two in a row from 8: 2 before the end
        at(10, 9),  # nothing follows it: the life ends
        at(10, 0, 1),  # long before the horizon only
        at(10, 4, 5),
    ])  # fmt: skip
    leads, warned = lead_times(watched, alarm[order], WATCH)
    np.testing.assert_array_equal(leads, [2.0, 1.0, np.nan])
    assert warned.tolist() == [True, True, False]
    lone, _ = lead_times(watched, alarm[order], Watch(5, 2, sustained=1))
    np.testing.assert_array_equal(lone, [4.0, 1.0, np.nan])


def test_a_failure_nobody_looked_at_in_time_does_not_count() -> None:
    case = censoring((10, True))
    early = case.take(case.left > WATCH.horizon)
    found = count_alarms(early, np.ones(len(early), bool), WATCH, "days")
    assert found["failures"] == 0 and found["event_recall"] is None
    assert found["lead_time"] == {"median": None, "p10": None, "known": 0}


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 8), st.booleans()), min_size=1, max_size=4), st.data())
def test_sustained_alarms_by_brute_force(
    lives: list[tuple[int, bool]], data: st.DataObject
) -> None:
    case = censoring(*lives)
    alarm = np.array(data.draw(st.lists(st.booleans(), min_size=len(case), max_size=len(case))))
    length = data.draw(st.integers(1, 4))
    watched, _ = Watched.of(case)
    found = sustained(alarm, watched.begins, length)
    for i in range(len(case)):
        ahead = [j for j in range(i, min(i + length, len(case))) if case.life[j] == case.life[i]]
        assert found[i] == all(alarm[j] for j in ahead)


def test_false_episodes_are_counted_per_machine_month() -> None:
    case = censoring((60, False), (30, False))  # 90 days watched: three machine-months
    found = count_alarms(case, at(90, 3, 20, 70), WATCH, "days")
    assert found["episodes"] == found["false_episodes"] == 3
    assert found["exposure"] == 90.0
    assert found["false_per_period"] == pytest.approx(1.0)
    assert found["period"] == "machine-month of 30 days"
    found = count_alarms(case, at(90, 3), WATCH, "cycles")
    assert found["false_per_period"] == pytest.approx(1000 / 90)
    assert found["period"] == "1,000 machine-cycles"


def test_order_of_windows_does_not_matter() -> None:
    case, random = censoring((12, True), (9, False), (7, True)), np.random.default_rng(3)
    scores = random.random(len(case))
    mixed = random.permutation(len(case))
    straight = count_alarms(case, scores >= 0.6, WATCH, "days")
    assert count_alarms(case.take(mixed), scores[mixed] >= 0.6, WATCH, "days") == straight


def test_the_curve_trades_false_alarms_for_warnings() -> None:
    random = np.random.default_rng(1)
    case = censoring(*[(40, k % 2 == 0) for k in range(20)])
    scores = np.where(np.nan_to_num(case.left, nan=99) <= 5, 0.5, 0.0) + random.random(len(case))
    curve = alarm_curve(case, scores, WATCH, "days")
    assert 10 <= len(curve) <= 30
    recall = [point["event_recall"] or 0.0 for point in curve]
    assert recall == sorted(recall, reverse=True) and recall[0] == 1.0
    assert curve[-1]["false_per_period"] == 0.0 or recall[-1] < 1.0
    for point in curve[::5]:
        found = count_alarms(case, scores >= float(point["threshold"] or 0), WATCH, "days")
        assert found["false_per_period"] == point["false_per_period"]
    assert alarm_curve(case.take(case.life < 0), scores[:0], WATCH, "days") == []

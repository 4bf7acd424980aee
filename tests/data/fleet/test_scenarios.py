"""Scenarios, services, shifts, recipes and kinds of machine act on latent state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedpdm.data.fleet.assets import KINDS, LACKS, MODES
from fedpdm.data.fleet.life import BOUT_DAYS, FAILURE, MAINTENANCE, REST_DAYS, SUDDEN_DAYS
from fedpdm.data.fleet.record import Record
from fedpdm.data.fleet.settings import SCENARIOS
from fedpdm.data.fleet.source import FleetSource
from fedpdm.data.rows import within_horizon


def source(seed: int = 1, **settings: Any) -> FleetSource:
    profile = {"machines": 10, **settings}
    return FleetSource(sites={"a": profile}, seed=seed, reach=7.0, days=200, step_hours=6)


def only(scenario: str, **settings: Any) -> Record:
    return source(scenarios={scenario: 1}, **settings).record("a")


def weak_wear(made: Record) -> list[np.ndarray[Any, Any]]:
    """Return the weak part's wear over each life that ended in its failure."""
    found, start = [], 0
    for _, _, life in made.lives:
        rows = slice(start, start + life.steps)
        start += life.steps
        if life.end == FAILURE and life.steps > 20:
            found.append(made.latent.wear[rows, life.mode])
    assert len(found) > 10
    return found


@pytest.mark.parametrize("scenario", ["progressive", "sudden", "intermittent", "depletion"])
def test_every_scenario_ends_where_the_latent_wear_does(scenario: str) -> None:
    made = only(scenario)
    assert set(SCENARIOS[i] for i in np.unique(made.latent.scenario)) == {scenario}
    for wear in weak_wear(made):
        assert np.all(np.diff(wear) >= 0) and 0.75 < wear[-1] < 1.0, "no clamp, no healing"


def test_a_sudden_life_jumps_and_then_needs_days() -> None:
    made = only("sudden")
    jumps = [np.diff(wear).max() for wear in weak_wear(made)]
    slow = [np.diff(wear).max() for wear in weak_wear(only("progressive"))]
    assert np.median(jumps) > 3 * np.median(slow)
    for wear in weak_wear(made):
        assert (len(wear) - int(np.argmax(np.diff(wear)))) * 0.25 < SUDDEN_DAYS[1] + 1
    onsets = np.array([life.onset for _, _, life in made.lives if life.end == FAILURE])
    assert np.nanmax(onsets) < 0.95 and np.isfinite(onsets).mean() > 0.9


def test_an_intermittent_life_wears_in_bouts() -> None:
    resting = [np.mean(np.diff(wear) < 1e-3) for wear in weak_wear(only("intermittent"))]
    always = [np.mean(np.diff(wear) < 1e-3) for wear in weak_wear(only("progressive"))]
    assert np.mean(resting) == pytest.approx(REST_DAYS / (BOUT_DAYS + REST_DAYS), abs=0.15)
    assert np.mean(always) < 0.1


def test_depletion_uses_up_what_can_be_used_up_in_proportion_to_the_work() -> None:
    made = only("depletion", modes={"bearing": 1}, daily_cycle=0.0, weekend=0.0)
    failed = {MODES[life.mode] for _, _, life in made.lives if life.end == FAILURE}
    assert failed >= {"cooling", "lubrication", "filter"}
    for wear in weak_wear(made):
        assert np.corrcoef(wear, np.arange(len(wear)))[0, 1] > 0.99


def test_a_failed_link_loses_rows_and_touches_no_machine() -> None:
    linked = source(scenarios={"progressive": 1, "communication": 4})
    one, made, two = source().rows("a"), linked.record("a"), linked.rows("a")
    assert len(made.links) > 30
    down = np.zeros(len(one), dtype=bool)
    for link in made.links:
        inside = (one.machine == link.machine) & (one.time >= link.begin) & (one.time < link.end)
        assert inside.sum() == link.rows
        down |= inside
    np.testing.assert_array_equal(one.values[~down], two.values)
    np.testing.assert_array_equal(one.time_to_failure[~down], two.time_to_failure)
    np.testing.assert_array_equal(source().latent("a").wear[~down], made.latent.wear)
    positive, known = within_horizon(one, 7.0)
    assert abs(down[positive].mean() - down[known & ~positive].mean()) < 0.05


def test_services_renew_a_machine_and_censor_its_life() -> None:
    made = source(service_days=60).record("a")
    rows = source(service_days=60).rows("a")
    kinds = [life.end for _, _, life in made.lives]
    assert kinds.count(MAINTENANCE) > 10 and kinds.count(FAILURE) > 5
    assert kinds.count(FAILURE) < [x.end for _, _, x in source().record("a").lives].count(FAILURE)
    serviced = made.log.time[~made.log.failure & (made.log.machine == "a-m001")]
    mine = rows.take(rows.machine == "a-m001")
    for when in serviced:
        before, after = mine.time < when, mine.time > when
        last = np.flatnonzero(before)[-1]
        assert np.isnan(mine.time_to_failure[last])
        assert mine.observed[last] == pytest.approx(when - mine.time[last])
        if after.any():
            assert mine.life[last] < mine.life[np.flatnonzero(after)[0]]
    positive, known = within_horizon(rows, 7.0)
    unknown = np.isnan(rows.time_to_failure) & (rows.observed < 7.0)
    assert not known[unknown].any() and not positive[unknown].any()


def test_shifts_holidays_and_recipes_set_the_load() -> None:
    made = source(shifts=1, holidays=20, weekend=0.0, daily_cycle=0.0, regimes=3).record("a")
    around, latent = made.around, made.latent
    hour = np.round(around.time % 1 * 24)
    assert not around.working[(hour == 0) | (hour == 18)].any()
    assert around.working[hour == 12].mean() == pytest.approx(1 - 20 / 365, abs=0.06)
    assert around.planned[around.working].min() > 3 * around.planned[~around.working].max()
    working = np.isin(made.time, around.time[around.working])
    by_recipe = [latent.load[working & (latent.regime == r)].mean() for r in range(3)]
    assert by_recipe[2] > by_recipe[1] > by_recipe[0]
    # Lives are counted in the site's own working time: it fails about as often as others.
    failures = sum(life.end == FAILURE for _, _, life in made.lives)
    usual = sum(life.end == FAILURE for _, _, life in source().record("a").lives)
    assert failures == pytest.approx(usual, rel=0.4)


def test_kinds_of_machine_lack_sensors_and_fail_in_their_own_ways() -> None:
    mixed = source(machines=60, assets={"fan": 1, "spindle": 2}, modes={"cooling": 1, "drive": 1})
    made = mixed.record("a")
    kind = made.latent.kind
    names = [KINDS[number] for number in np.unique(kind)]
    assert names == ["spindle", "fan"]
    first = np.unique(made.machine, return_index=True)[1]
    assert np.mean(kind[first] == KINDS.index("fan")) == pytest.approx(1 / 3, abs=0.15)
    for number in np.unique(kind):
        empty = np.isnan(made.values[kind == number]).all(axis=0)
        np.testing.assert_array_equal(empty, LACKS[number])
    fans = {name for name in made.machine[first][kind[first] == KINDS.index("fan")].tolist()}
    failed = [(name in fans, MODES[x.mode]) for name, _, x in made.lives if x.end == FAILURE]
    assert (True, "cooling") not in failed and (False, "cooling") in failed


def test_more_machines_leave_the_others_alone_with_everything_switched_on() -> None:
    settings: dict[str, Any] = {
        "assets": {"pump": 1, "fan": 1}, "regimes": 2, "shifts": 2, "service_days": 60,
        "scenarios": {"progressive": 1, "sudden": 1, "intermittent": 1, "communication": 1},
    }  # fmt: skip
    few, many = (source(machines=n, **settings).rows("a") for n in (3, 20))
    kept = np.isin(many.machine, np.unique(few.machine))
    np.testing.assert_array_equal(many.values[kept], few.values)
    np.testing.assert_array_equal(many.time_to_failure[kept], few.time_to_failure)

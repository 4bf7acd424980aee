"""The generator: reproducible, not solved by one sensor, sites that differ."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fedpdm.config.command_line import options
from fedpdm.config.compose import compose
from fedpdm.data.fleet.assets import MODES
from fedpdm.data.fleet.settings import SCENARIOS
from fedpdm.data.fleet.source import FleetSource
from fedpdm.data.rows import Split
from fedpdm.errors import ConfigError, DataError
from fedpdm.runs.experiment import build
from fedpdm.tasks import within_horizon

CITIES = [name for name in options("site") if name != "example_plant"]


def fleet(seed: int = 0, **changes: Any) -> FleetSource:
    sites = {"detroit": {"machines": 6}, "houston": {"machines": 4, "load": 0.9}}
    return FleetSource(**{"sites": sites, "seed": seed, "reach": 7.0, **changes})


@pytest.fixture(scope="module")
def defaults() -> FleetSource:
    cfg = compose([f"site=[{','.join(CITIES)}]", "seed=1"])
    for name in CITIES:
        cfg.sites[name].machines = 20  # as many as asked for, also where a size is drawn
    source = build(cfg).federation.source
    assert isinstance(source, FleetSource)
    source.record = cache(source.record)  # type: ignore[method-assign]
    return source


def test_sites_ship_of_both_sorts() -> None:
    assert set(CITIES) >= {"detroit", "houston", "seattle", "turin", "memphis"}


def test_the_default_fleet_has_not_moved() -> None:
    source = build(compose(["seed=42"])).federation.source
    rows = source.rows("detroit")
    assert len(rows) == 24_932
    expected = [
        3.159952827129665, 3.40673692027723, 57.824202850076986, 62.55391320743278,
        3.5500603717830375, 49.40175758344118, 36.248128026674806, 1480.1424863133514,
        33.721692827065816, 21.504104008731684,
    ]  # fmt: skip
    assert int(np.isnan(rows.values).sum()) == 6_941
    np.testing.assert_allclose(np.nanmean(rows.values, axis=0), expected, rtol=1e-9)


def test_same_seed_same_bytes_whatever_was_made_before() -> None:
    first, second = fleet(), fleet()
    second.rows("houston")
    assert first.rows("detroit").sha256() == second.rows("detroit").sha256()
    assert first.rows("detroit").sha256() != fleet(seed=1).rows("detroit").sha256()
    alone = fleet(sites={"detroit": {"machines": 6}})
    assert alone.rows("detroit").sha256() == first.rows("detroit").sha256()


def test_more_machines_leave_the_others_alone() -> None:
    few = fleet(sites={"a": {"machines": 3}}).rows("a")
    many = fleet(sites={"a": {"machines": 5}}).rows("a")
    kept = np.isin(many.machine, np.unique(few.machine))
    np.testing.assert_array_equal(many.values[kept], few.values)


def test_ten_physically_named_features_and_their_split(defaults: FleetSource) -> None:
    assert len(defaults.features) == 10 and "vibration_rms_mm_s" in defaults.features
    rows = defaults.rows("detroit")
    assert set(np.unique(rows.split)) >= {0, 1, 2, 3}
    heldout = set(rows.machine[rows.split == Split.HELDOUT])
    assert len(heldout) == 4 and not heldout & set(rows.machine[rows.split == Split.TRAIN])
    for before, after in ((Split.TRAIN, Split.VALIDATION), (Split.VALIDATION, Split.TEST)):
        gap = rows.time[rows.split == after].min() - rows.time[rows.split == before].max()
        assert gap >= 7.0, "no label looks across a cut"


@pytest.mark.parametrize("city", CITIES)
def test_no_threshold_on_one_sensor_reproduces_the_label(city: str, defaults: FleetSource) -> None:
    rows = defaults.rows(city)
    failing, known = within_horizon(rows, 7.0)
    assert 0.03 < failing[known].mean() < 0.2
    for feature, values in zip(rows.features, rows.values.T, strict=True):
        seen = known & ~np.isnan(values)
        area = roc_auc_score(failing[seen], values[seen])
        assert max(area, 1 - area) <= 0.85, feature


@pytest.mark.parametrize("city", CITIES)
def test_the_latent_wear_does(city: str, defaults: FleetSource) -> None:
    rows, latent = defaults.rows(city), defaults.latent(city)
    failing, known = within_horizon(rows, 7.0)
    foreseeable = known & (latent.scenario != SCENARIOS.index("sudden"))
    assert roc_auc_score(failing[foreseeable], latent.wear.max(axis=1)[foreseeable]) > 0.95
    ends = rows.time_to_failure < 0.25
    assert latent.wear[ends].max(axis=1).mean() > 0.95
    assert set(latent.mode[~np.isnan(rows.time_to_failure)]) <= set(range(len(MODES)))


LATER = {"machines": 4, "modes_later": {"filter": 1}}


def test_sites_meet_later_what_they_hardly_knew_before(defaults: FleetSource) -> None:
    for city in ("detroit", "houston"):
        rows, latent = defaults.rows(city), defaults.latent(city)
        day = defaults.spec(city).change_day
        assert day is not None
        fails = ~np.isnan(rows.time_to_failure)
        shares = []
        for part in (rows.time < day, rows.time > day + 80):
            counts = np.bincount(latent.mode[fails & part], minlength=len(MODES))
            shares.append(counts / counts.sum())
        assert 0.5 * np.abs(shares[0] - shares[1]).sum() > 0.5, "total variation"


def test_the_day_of_the_change_is_drawn_for_each_site_and_said() -> None:
    days = set()
    for seed in range(40):
        source = fleet(seed=seed, sites={name: LATER for name in ("a", "b")})
        drawn = [source.spec(name).change_day for name in ("a", "b")]
        assert all(day is not None and 64 <= day <= 256 for day in drawn)
        assert all(name in source.facts[0] and f"day {day:g}" in source.facts[0] for name, day in
                   zip("ab", drawn, strict=True))  # fmt: skip
        days |= {*drawn}
    assert len(days) > 60 and min(days) < 80 and max(days) > 240
    fixed = fleet(sites={"a": LATER | {"change_day": 100}, "b": {}})
    assert fixed.spec("a").change_day == 100 and fixed.spec("b").change_day is None
    assert "at b" not in fixed.facts[0] and fleet(sites={"b": {}}).facts == ()


def test_no_change_is_an_option() -> None:
    same = fleet(sites={"a": {"machines": 4, "modes_later": None}})
    changed = {"machines": 4, "modes_later": {"filter": 1}, "change_day": 100}
    other = fleet(sites={"a": changed})
    first, second = (source.rows("a") for source in (same, other))
    early = [rows.time_to_failure[rows.time < 60] for rows in (first, second)]
    np.testing.assert_array_equal(early[0], early[1])
    assert same.rows("a").sha256() != other.rows("a").sha256()


def test_load_has_a_daily_and_a_weekly_cycle() -> None:
    sites = {"a": {"machines": 8, "daily_cycle": 0.4, "weekend": 0.6, "noise": 0.2}}
    rows = fleet(sites=sites, missing=0.0, outages=0.0).rows("a")
    power = rows.values[:, rows.features.index("power_kw")]
    hour, weekend = rows.time % 1, np.floor(rows.time) % 7 >= 5
    assert power[~weekend & (hour == 0.5)].mean() > power[~weekend & (hour == 0)].mean() + 2
    assert power[~weekend].mean() > power[weekend].mean() + 2


def test_missing_readings_are_about_as_many_as_asked_for() -> None:
    rows = fleet(missing=0.1, outages=0.05).rows("detroit")
    assert 0.10 < np.isnan(rows.values).mean() < 0.20
    assert not np.isnan(fleet(missing=0.0, outages=0.0).rows("detroit").values).any()


def test_lives_end_in_failures_and_begin_anew() -> None:
    rows = fleet().rows("detroit")
    for machine in np.unique(rows.machine):
        mine = rows.take(rows.machine == machine)
        assert np.all(np.diff(mine.time) > 0) and np.all(np.diff(mine.life) >= 0)
        for life in np.unique(mine.life):
            left = mine.time_to_failure[mine.life == life]
            assert np.isnan(left).all() or np.allclose(
                np.diff(left), -np.diff(mine.time[mine.life == life])
            )
    assert np.all(rows.observed >= 0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sites": {"a": {"machines": 0}}}, r"sites\.a\.machines=0"),
        ({"sites": {"a": {"machines": 2.5}}}, r"sites\.a\.machines=2.5"),
        ({"sites": {"a": {"life_days": -1}}}, r"sites\.a\.life_days"),
        ({"sites": {"a": {"machine": 3}}}, r"sites\.a\.machine .*did you mean machines"),
        ({"sites": {"a": {"modes": {"bearings": 1}}}}, r"sites\.a\.modes\.bearings"),
        ({"sites": {"a": {"modes": {"bearing": 0}}}}, r"sites\.a\.modes"),
        ({"sites": {"a": {"modes_later": {"rust": 1}}}}, r"sites\.a\.modes_later\.rust"),
        ({"sites": {"a": {"change_day": -5}}}, r"sites\.a\.change_day"),
        ({"sites": {}}, "needs sites"),
        ({"window": 0}, r"data\.window"),
        ({"missing": 2.0}, r"data\.missing"),
        ({"days": 0.01}, r"data\.days"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_key(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        fleet(**changes)


def test_a_record_too_short_to_cut_is_refused_by_site() -> None:
    with pytest.raises(DataError, match="detroit: .*too short"):
        fleet(days=10).rows("detroit")


def test_steps_longer_than_a_life_come_to_an_end() -> None:
    sites = {"a": {"machines": 3, "life_days": 1}}
    with pytest.raises(DataError, match="a: there are no rows"):
        fleet(sites=sites, step_hours=168, days=2000).rows("a")

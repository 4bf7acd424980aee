"""The dials do what they say, and nothing else; a site is the same whoever takes part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedpdm.data.fleet.calendar import persistent
from fedpdm.data.fleet.settings import ARCHETYPES, MIXED, SIZES, site_settings
from fedpdm.data.fleet.source import FleetSource
from fedpdm.data.rows import within_horizon
from fedpdm.errors import ConfigError

SETTINGS: dict[str, Any] = {"machines": 4, "ambient_yearly_c": 0}


def fleet(profiles: int = 1, settings: dict[str, Any] | None = None, **changes: Any) -> FleetSource:
    sites = {f"p-{n:03d}": {**SETTINGS, **(settings or {})} for n in range(profiles)}
    return FleetSource(**{"sites": sites, "seed": 3, "reach": 7.0, "days": 60, **changes})


def shares(source: FleetSource, horizon: float = 7.0) -> list[tuple[int, int]]:
    rows = [source.rows(site) for site in source.sites]
    near = [within_horizon(r, horizon) for r in rows]
    return [(int((positive & known).sum()), int(known.sum())) for positive, known in near]


def test_feature_shift_drives_sites_apart_and_leaves_failures_alone() -> None:
    far = []
    for amount in (0.0, 1.0, 4.0):
        source = fleet(8, heterogeneity={"feature_shift": amount})
        rows = [source.rows(site) for site in source.sites]
        middle = np.array([np.nanmedian(r.values, axis=0) for r in rows])
        within = np.mean([np.nanstd(r.values, axis=0) for r in rows], axis=0)
        far.append(float((middle.std(axis=0) / within)[:-1].mean()))
        if amount == 0:
            failures = rows[0].time_to_failure
        np.testing.assert_array_equal(rows[0].time_to_failure, failures)
    assert far[1] > 1.5 * far[0] and far[2] > 2.5 * far[1]


def test_quantity_skew_spreads_the_number_of_machines_and_keeps_its_mean() -> None:
    def machines(amount: float) -> np.ndarray[Any, Any]:
        source = fleet(400, {"machines": 40}, heterogeneity={"quantity_skew": amount})
        return np.array([source.spec(site).profile.machines for site in source.sites])

    none, some, much = machines(0.0), machines(0.4), machines(1.0)
    assert np.all(none == 40) and much.min() >= 1
    assert np.std(np.log(some)) == pytest.approx(0.4, rel=0.15)
    assert np.std(np.log(much)) == pytest.approx(1.0, rel=0.15)
    assert some.mean() == pytest.approx(40, rel=0.1)


def test_label_skew_makes_some_sites_fail_often() -> None:
    settings = {"machines": 6, "life_days": 40}
    even, uneven = (
        [p / k for p, k in shares(fleet(8, settings, days=90, heterogeneity={"label_skew": a}))]
        for a in (0.0, 1.0)
    )
    assert np.std(uneven) > 2 * np.std(even)


@pytest.mark.parametrize("wanted", [0.03, 0.2])
def test_prevalence_hits_what_was_asked_for(wanted: float) -> None:
    settings = {"machines": 60, "assets": {"pump": 1, "fan": 1}, "scenarios": {"progressive": 2,
                "sudden": 1}}  # fmt: skip
    source = fleet(1, settings, days=200, prevalence=wanted, prevalence_horizon=5)
    (positive, known), = shares(source, 5.0)  # fmt: skip
    assert positive / known == pytest.approx(wanted, rel=0.2)


# Seen before a service or not at all: a small step in life counts.
@pytest.mark.parametrize(("wanted", "seed"), [(0.02, 0), (0.03, 1), (0.02, 2)])
def test_a_rare_failure_is_hit_where_services_end_most_lives(wanted: float, seed: int) -> None:
    sites = {"turin": {"archetype": "machine_shop", "machines": 60}}
    source = fleet(sites=sites, seed=seed, days=320, prevalence=wanted)
    (positive, known), = shares(source)  # fmt: skip
    assert positive / known == pytest.approx(wanted, rel=0.35)


def test_a_prevalence_that_no_length_of_life_gives_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"p-000: data\.prevalence=0\.6 .*nearest is"):
        fleet(prevalence=0.6, prevalence_horizon=0.1, days=40).rows("p-000")


def test_nothing_that_only_touches_sensors_touches_failures() -> None:
    still = fleet(1, days=120)
    changed = fleet(
        1, {"noise": 5.0, "calibration": 3.0}, days=120, missing=0.3, outages=0.1, dropout=0.1,
        concept_drift=2.0, sensor_drift=3.0, heterogeneity={"feature_shift": 3.0},
    )  # fmt: skip
    one, two = still.rows("p-000"), changed.rows("p-000")
    np.testing.assert_array_equal(one.time_to_failure, two.time_to_failure)
    np.testing.assert_array_equal(still.latent("p-000").wear, changed.latent("p-000").wear)
    assert not np.array_equal(one.values, two.values)


def test_concept_drift_begins_at_nothing_and_grows() -> None:
    quiet: dict[str, Any] = {"missing": 0.0, "outages": 0.0, "days": 200}
    one, two = fleet(**quiet).rows("p-000"), fleet(concept_drift=1.0, **quiet).rows("p-000")
    gap = np.abs(one.values - two.values) / np.nanstd(one.values, axis=0)
    assert gap[one.time == 0].max() == 0.0
    early, late = gap[one.time < 20].mean(), gap[one.time > 180].mean()
    assert late > 5 * early > 0


def test_instruments_drift_until_they_are_calibrated() -> None:
    quiet: dict[str, Any] = {"missing": 0.0, "outages": 0.0, "days": 400}
    one, two = fleet(**quiet).rows("p-000"), fleet(sensor_drift=1.0, **quiet).rows("p-000")
    gap = (two.values - one.values)[one.machine == one.machine[0]][:, 0]
    steps = np.abs(np.diff(gap))
    assert steps.max() > 100 * np.median(steps) and 2 <= (steps > 0.5 * steps.max()).sum() <= 3
    np.testing.assert_array_equal(two.values[:, -1], one.values[:, -1])  # the hall's thermometer


def test_dead_sensors_lose_about_the_share_asked_for_and_do_not_tell_of_failures() -> None:
    source = fleet(1, {"machines": 40}, days=200, missing=0.0, outages=0.0, dropout=0.15)
    rows = source.rows("p-000")
    gone = np.isnan(rows.values)
    assert 0.08 < gone.mean() < 0.2
    positive, known = within_horizon(rows, 7.0)
    assert abs(gone[positive].mean() - gone[known & ~positive].mean()) < 0.03


def test_a_site_is_the_same_whoever_takes_part_whatever_the_dials() -> None:
    dials: dict[str, Any] = {
        "heterogeneity": {"feature_shift": 1.0, "label_skew": 0.5, "quantity_skew": 0.5},
        "prevalence": 0.1,
        "scenarios": {"progressive": 1, "sudden": 1, "communication": 1},
    }
    many, alone = fleet(3, **dials), fleet(1, **dials)
    many.rows("p-002")
    assert many.rows("p-000").sha256() == alone.rows("p-000").sha256()
    assert many.rows("p-001").sha256() != many.rows("p-000").sha256()


def test_sizes_are_drawn_from_their_class_by_name() -> None:
    for size, (low, high) in SIZES.items():
        source = fleet(50, {"size": size})
        drawn = {source.spec(site).profile.machines for site in source.sites}
        assert min(drawn) >= low and max(drawn) <= high and len(drawn) > 3
    mixed = fleet(300, {"size": "mixed"})
    drawn_of_all = np.array([mixed.spec(site).profile.machines for site in mixed.sites])
    assert np.mean(drawn_of_all <= 19) == pytest.approx(MIXED["small"], abs=0.1)
    assert drawn_of_all.max() > 60


@pytest.mark.parametrize("archetype", ARCHETYPES)
def test_an_archetype_is_a_start_and_the_sites_own_settings_win(archetype: str) -> None:
    bundle = site_settings("p", {"archetype": archetype})
    assert bundle.size and bundle.industry == ARCHETYPES[archetype]["industry"]
    own = site_settings("p", {"archetype": archetype, "machines": 7, "load": 0.5, "shifts": None})
    assert (own.machines, own.load, own.shifts, own.size) == (7, 0.5, bundle.shifts, "")


def test_persistent_noise_is_the_recurrence_to_the_bit() -> None:
    white = np.random.default_rng(0).normal(size=(3, 50, 2))
    keep = float(np.exp(-0.3))
    expected = np.empty_like(white)
    expected[:, 0] = white[:, 0]
    for step in range(1, 50):
        expected[:, step] = keep * expected[:, step - 1] + np.sqrt(1 - keep**2) * white[:, step]
    np.testing.assert_array_equal(persistent(white, 0.3), expected)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"heterogeneity": {"label_skw": 1}}, r"data\.heterogeneity\.label_skw .*mean label_skew"),
        ({"heterogeneity": {"feature_shift": -1}}, r"data\.heterogeneity\.feature_shift=-1"),
        ({"heterogeneity": 3}, r"data\.heterogeneity=3"),
        ({"prevalence": 0.9}, r"data\.prevalence=0\.9"),
        ({"prevalence_horizon": 0}, r"data\.prevalence_horizon=0"),
        ({"scenarios": {"sudenly": 1}}, r"data\.scenarios\.sudenly"),
        ({"scenarios": {"communication": 1}}, r"data\.scenarios: at least one of progressive"),
        ({"dropout": 1.0}, r"data\.dropout=1"),
        ({"concept_drift": "much"}, r"data\.concept_drift=much"),
        ({"sites": {"a": {"assets": {"pmp": 1}}}}, r"sites\.a\.assets\.pmp .*mean pump"),
        ({"sites": {"a": {"archetype": "mill"}}}, r"sites\.a\.archetype=mill"),
        ({"sites": {"a": {"size": "huge"}}}, r"sites\.a\.size=huge"),
        ({"sites": {"a": {"shifts": 4}}}, r"sites\.a\.shifts=4"),
        ({"sites": {"a": {"regimes": 0}}}, r"sites\.a\.regimes=0"),
        ({"sites": {"a": {"service_days": -1}}}, r"sites\.a\.service_days=-1"),
    ],
)
def test_dials_that_cannot_work_are_refused_by_key(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        fleet(1, **changes)

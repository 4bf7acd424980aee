"""Odd sensors are found in made rows, and nothing is found where nothing is odd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from fedpdm.config.compose import compose
from fedpdm.config.values import make
from fedpdm.data.quality.sensors import Finding, Place, look, place_of, sentinels, stuck
from fedpdm.data.quality.sites import NOTES, apart, notes, ranges_of
from fedpdm.data.rows import Events, Floats, Rows, Split, Strings, rows_with_lives
from fedpdm.data.sources.published import data_folder
from fedpdm.runs.sources import build_source
from fedpdm.tasks import Task

MACHINES, STEPS = 6, 200
MACHINE: Strings = np.repeat([f"M{number}" for number in range(MACHINES)], STEPS)
PLACE = Place("lyon", "lyon.csv", {"temperature": "T1"})


def readings(seed: int = 0) -> Floats:
    """(R,) temperatures around 60, rounded as files have them."""
    values = np.random.default_rng(seed).normal(60, 5, len(MACHINE))
    return np.round(values, 2).astype(np.float64)


def rows_of(*columns: Floats) -> Rows:
    """Rows of six machines that fail every 50 days, all of them for training."""
    time = np.tile(np.arange(STEPS, dtype=float), MACHINES)
    names = np.unique(MACHINE)
    events = Events(
        np.repeat(names, 4), np.tile([49.0, 99.0, 149.0, 199.0], MACHINES), np.ones(24, dtype=bool)
    )
    features = ("temperature", *(f"x{number}" for number in range(1, len(columns))))
    rows = rows_with_lives(features, MACHINE, time, np.stack(columns, axis=1), events)
    return replace(rows, split=np.full(len(rows), Split.TRAIN, dtype=np.int8))


def kinds(rows: Rows, place: Place = PLACE) -> list[str]:
    return [finding.kind for finding in look(place, rows, 7.0)]


@pytest.mark.parametrize("value", [-9999.0, 999.0, 9999.0, -1.0, 0.0, 65535.0])
@pytest.mark.parametrize("share", [0.004, 0.05, 0.3])
def test_a_sentinel_is_found_however_often_it_stands(value: float, share: float) -> None:
    values = readings()
    here = np.random.default_rng(1).random(len(values)) < share
    values[here] = value
    assert sentinels(values, MACHINE) == [value]
    (finding,) = look(PLACE, rows_of(values), 7.0)
    assert finding.kind == "sentinel"
    assert f"missing: [{value:g}]" in finding.text
    assert f"{here.sum()} of 1,200" in finding.text
    assert all(word in finding.text for word in ("lyon.csv", "'T1'", "sites.lyon"))


def test_two_sentinels_of_one_sensor_are_both_found() -> None:
    values = readings()
    values[::40], values[7::40] = -9999, 9999
    assert sentinels(values, MACHINE) == [-9999, 9999]


def test_a_sentinel_of_a_converted_sensor_is_named_as_it_stands_in_the_file() -> None:
    values = readings()
    values[::40] = (-9999 - 32) / 1.8
    place = replace(PLACE, units={"temperature": ("degF", "degC")})
    assert "missing: [-9999]" in look(place, rows_of(values), 7.0)[0].text


def off_at_night(values: Floats) -> Floats:
    values[np.arange(len(values)) % 20 < 8] = 0
    return values


ORDINARY: dict[str, Callable[[], Floats]] = {
    "noise": readings,
    "on and off": lambda: np.where(readings() > 60, 1.0, 0.0),
    "0 and 100": lambda: np.where(readings() > 70, 100.0, 0.0),
    "states": lambda: np.floor_divide(readings(), 5.0).astype(np.float64),
    "load that is 0 while the machine stands still": lambda: off_at_night(readings()),
    "heavy tail": lambda: np.asarray(np.exp(readings() / 5 - 12).round(1), dtype=np.float64),
    "counts": lambda: np.random.default_rng(2).poisson(0.3, len(MACHINE)).astype(np.float64),
    "rising": lambda: np.tile(np.arange(STEPS) * 1.0, MACHINES),
    "a level per machine": lambda: np.repeat(np.arange(MACHINES) * 1000.0, STEPS),
    "steps held for days": lambda: np.repeat(readings()[: len(MACHINE) // 25], 25),
    "a single spike": lambda: np.where(np.arange(len(MACHINE)) == 700, 1e6, readings()),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_columns_are_not_odd(name: str) -> None:
    assert kinds(rows_of(ORDINARY[name]())) == []


def test_a_stuck_sensor_is_named_with_its_machine_and_rows() -> None:
    values = readings()
    values[250:290] = values[250]
    assert stuck(values, MACHINE) == (250, 40)
    (finding,) = look(PLACE, rows_of(values), 7.0)
    assert finding.kind == "stuck"
    assert "40 rows" in finding.text and "'M1'" in finding.text


def test_a_run_does_not_go_on_from_one_machine_to_the_next() -> None:
    values = readings()
    values[STEPS - 12 : STEPS + 12] = 61.0
    assert stuck(values, MACHINE) is None


def test_constant_and_dropped_sensors_are_named() -> None:
    dropped = readings()
    dropped[MACHINE == "M4"] = np.nan
    found = look(PLACE, rows_of(readings(), np.full(len(MACHINE), 7.0), dropped), 7.0)
    assert [(one.kind, one.feature) for one in found] == [("dropped", "x2"), ("constant", "x1")]
    assert "'M4' (100%)" in found[0].text


def test_a_feature_that_is_the_label_is_named_from_training_rows_alone() -> None:
    rows = rows_of(readings(), readings(1))
    label = np.where(rows.time_to_failure <= 7, 1.0, 0.0)
    assert kinds(rows_of(readings(), label)) == ["label"]
    assert kinds(rows_of(readings(), -3 * label)) == ["label"]  # whatever its sign
    leak = rows_of(readings(), label)
    assert kinds(replace(leak, split=np.full(len(leak), Split.TEST, dtype=np.int8))) == []


def test_ranges_that_do_not_overlap_are_named_with_both_sites() -> None:
    celsius, fahrenheit = rows_of(readings()), rows_of(readings(3) * 1.8 + 32)
    celsius.values[::30] = 999  # does not hide it
    places = {"gdansk": Place("gdansk"), "lyon": PLACE}
    ranges = {
        site: ranges_of(places[site], rows)
        for site, rows in (("gdansk", celsius), ("lyon", fahrenheit))
    }
    (finding,) = apart(places, ranges)
    assert all(word in finding.text for word in ("gdansk", "lyon.csv", "'T1'", "unit"))
    assert apart(places, {"gdansk": ranges["gdansk"], "lyon": ranges["gdansk"]}) == []


class Many:
    """A site whose 30 columns all hold sentinels."""

    name, categorical = "files", ()


def test_the_notes_of_a_run_are_bounded() -> None:
    values = readings()
    values[::40] = -9999
    rows = rows_of(*[values] * 30)
    said = notes(Many(), ["lyon"], lambda site: rows, 7.0)
    assert len(said) == NOTES + 1
    assert "22 more" in said[-1]


ALL = "antwerp,bergen,detroit,houston,leeds,memphis,nagoya,pune,rotterdam,seattle,turin"


@pytest.mark.parametrize(
    ("words", "data"),
    [
        ([f"site={ALL}", "data.days=120", "data.step_hours=12"], None),
        (["data=ai4i", "partition=type", "site=[]"], "ai4i2020"),
        (["data=cmapss", "data.subset=FD002", "partition=machine", "site=[]",
          "partition.sites=3"], "cmapss"),
    ],
    ids=["fleet", "ai4i", "cmapss"],
)  # fmt: skip
def test_known_data_is_not_odd(words: list[str], data: str | None) -> None:
    if data and not (data_folder(None) / data).exists():
        pytest.skip(f"{data} is not there")
    cfg = compose(words)
    task = cast(Task, make(cfg.task, "task"))
    source = build_source(cfg, task, 0)
    places = {site: place_of(source, site) for site in source.sites}
    found: list[Finding] = []
    ranges = {}
    for site, place in places.items():
        rows = source.rows(site)
        found += look(place, rows, task.reach)
        ranges[site] = ranges_of(place, rows)
    found += apart(places, ranges)
    # Machines of several kinds lack each other's sensors, and some sensors never move.
    assert [one.text for one in found if one.kind not in ("dropped", "constant")] == []

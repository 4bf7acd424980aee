"""Every gate fires on a planted violation, and says skipped where it could not look."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fedpdm.data.fleet import gates
from fedpdm.data.fleet.gates import Gate, scenario_recall, surely_below
from fedpdm.data.fleet.generate import check
from fedpdm.data.fleet.record import Record
from fedpdm.data.fleet.source import FleetSource
from fedpdm.data.rows import Rows

STORY = {"progressive": 2, "sudden": 1, "communication": 2}


@pytest.fixture(scope="module")
def source() -> FleetSource:
    profile = {"machines": 12, "scenarios": STORY}
    return FleetSource(sites={"a": profile}, seed=1, reach=7.0, days=250)


@pytest.fixture(scope="module")
def made(source: FleetSource) -> Record:
    return source.record("a")


@pytest.fixture(scope="module")
def rows(source: FleetSource) -> Rows:
    return source.rows("a")


def by_name(found: list[Gate]) -> dict[str, Gate]:
    return {gate.gate: gate for gate in found}


def shorter(made: Record, keep: np.ndarray[Any, Any]) -> Record:
    latent = replace(
        made.latent,
        **{k: v[keep] for k, v in vars(made.latent).items() if isinstance(v, np.ndarray)},
    )
    return replace(
        made, machine=made.machine[keep], time=made.time[keep], values=made.values[keep],
        latent=latent,
    )  # fmt: skip


def test_sound_data_passes_every_gate(source: FleetSource, made: Record, rows: Rows) -> None:
    found = by_name(check(source, "a", made, rows))
    assert set(found) == {
        "rows", "readings", "failures", "event diversity", "scenario recall: progressive",
        "scenario recall: sudden", "link failures", "single feature",
    }  # fmt: skip
    assert {gate.status for gate in found.values()} == {"passed"}
    assert all(gate.value is not None for gate in found.values())


def test_missing_rows_and_lost_readings_are_seen(made: Record) -> None:
    keep = np.ones(len(made.time), dtype=bool)
    keep[100] = False
    assert by_name(gates.completeness("a", shorter(made, keep)))["rows"].status == "failed"
    holes = made.values.copy()
    holes[np.random.default_rng(0).random(holes.shape) < 0.3] = np.nan
    told = by_name(gates.completeness("a", replace(made, values=holes)))["readings"]
    assert told.status == "failed" and "data.missing" in told.sentence and " a:" in told.sentence
    infinite = made.values.copy()
    infinite[5, 3] = np.inf
    found = by_name(gates.completeness("a", replace(made, values=infinite)))
    assert found["rows"].status == "failed"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_feature_that_leaks_the_label_is_seen(rows: Rows, sign: int) -> None:
    leak = rows.values.copy()
    leak[:, 4] = sign * np.nan_to_num(rows.time_to_failure, nan=1e3)
    told = gates.single_feature("a", replace(rows, values=leak), 7.0)
    assert told.status == "failed" and rows.features[4] in told.note
    assert gates.single_feature("a", rows, 7.0).status == "passed"


def test_missing_readings_that_leak_the_label_are_seen(rows: Rows) -> None:
    holes = rows.values.copy()
    holes[rows.time_to_failure <= 7.0, 2] = np.nan
    told = gates.single_feature("a", replace(rows, values=holes), 7.0)
    assert told.status == "failed" and "missing" in told.note


def test_too_few_rows_of_a_class_are_not_passed_but_skipped(rows: Rows) -> None:
    healthy = replace(rows, time_to_failure=np.full(len(rows), np.nan))
    told = gates.single_feature("a", healthy, 7.0)
    assert told.status == "skipped" and told.value is None


def test_a_scenario_that_was_never_injected_is_seen(source: FleetSource, made: Record) -> None:
    lives = [(name, number, replace(life, scenario=0)) for name, number, life in made.lives]
    told = by_name(scenario_recall("a", source.spec("a").profile, replace(made, lives=lives)))
    assert told["scenario recall: sudden"].status == "failed"
    way_out = told["scenario recall: sudden"].note
    assert way_out.index("--seed") < way_out.index("sites.a.noise") < way_out.index("data.days")
    assert told["scenario recall: progressive"].status == "passed"
    few = [(name, number, life) for name, number, life in lives if number == 0][:4]
    told = by_name(scenario_recall("a", source.spec("a").profile, replace(made, lives=few)))
    assert told["scenario recall: sudden"].status == "skipped", "one could not expect any"


def test_failures_without_a_trace_in_the_sensors_are_seen(
    source: FleetSource, made: Record
) -> None:
    shuffled = np.random.default_rng(0).permutation(made.values, axis=0)
    told = scenario_recall("a", source.spec("a").profile, replace(made, values=shuffled))
    assert {gate.status for gate in told} == {"failed"}


def test_rows_through_a_dead_link_are_seen(source: FleetSource, made: Record) -> None:
    profile = source.spec("a").profile
    link = replace(made.links[0], begin=0.0, end=10.0)
    (told,) = gates.link_failures("a", profile, replace(made, links=[link]))
    assert told.status == "failed" and told.value > 0  # type: ignore[operator]
    (told,) = gates.link_failures("a", profile, replace(made, links=[]))
    assert told.status == "failed" and "never failed" in told.note
    (told,) = gates.link_failures("a", profile, replace(made, links=[], lives=[]))
    assert told.status == "skipped", "one could not expect any"


def test_too_few_and_too_uniform_failures_are_seen(source: FleetSource, made: Record) -> None:
    profile = source.spec("a").profile
    same = [(name, number, replace(life, mode=0)) for name, number, life in made.lives]
    gate = by_name(gates.events("a", profile, replace(made, lives=same)))["event diversity"]
    assert gate.status == "failed"
    none = by_name(gates.events("a", profile, replace(made, lives=[])))
    assert none["failures"].status == "failed" and none["failures"].value == 0
    one_mode = replace(profile, modes=(1.0, 0, 0, 0, 0, 0))
    found = by_name(gates.events("a", one_mode, replace(made, lives=same)))
    assert found["event diversity"].status == "passed", "it can fail in one way only"


def test_other_bytes_and_another_prevalence_are_seen() -> None:
    assert gates.reproducible("a", "1f", "1f").status == "passed"
    assert gates.reproducible("a", "1f", "2e").status == "failed"
    assert gates.wanted_prevalence(0.1, False, 0.11).status == "passed"
    assert gates.wanted_prevalence(0.1, False, 0.14).status == "failed"
    assert gates.wanted_prevalence(None, False, 0.1).status == "skipped"
    assert gates.wanted_prevalence(0.1, True, 0.3).status == "skipped"


def test_the_area_is_the_one_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    for digits in (0, 1, 6):
        label = random.random(300) < 0.3
        values = np.round(random.normal(size=300) - label, digits)
        area = roc_auc_score(label, values)
        assert gates.area(label, values) == pytest.approx(max(area, 1 - area), abs=1e-12)
    assert gates.area(np.zeros(5, dtype=bool), np.arange(5.0)) == 0.5


def test_a_recall_is_refused_only_where_chance_does_not_explain_it() -> None:
    assert surely_below(0, 0, 0.8) and surely_below(0, 3, 0.8) and surely_below(60, 100, 0.8)
    assert not surely_below(2, 3, 0.8) and not surely_below(78, 100, 0.8)

"""The page of coverage is what was measured, and the simulation measures what it says."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from benchmarks import coverage
from benchmarks.coverage_tables import BEGIN, END, covers, tables
from fedpdm.tasks import Failure, RemainingLife


def test_the_page_is_the_result() -> None:
    shown = coverage.PAGE.read_text().split(BEGIN)[1].split(END)[0]
    assert shown.strip() == tables(json.loads(coverage.RESULTS.read_text()))


def test_what_is_out_of_bounds_is_bold_and_counted() -> None:
    entry = {
        "trials": 100, "intervals": {"value": 75}, "median_width": {"value": 0.5},
        "coverage": {"value": 0.92, "gain": 0.95}, "twins": {},
    }  # fmt: skip
    table = covers({"rmse | even | 16 | 1": entry})
    assert "1 of 2 with 16 machines" in table
    assert "| rmse, even | 16 | 1 | **0.920** | 0.950 | – | – | – | 0.5 | 25% |" in table


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TRIALS", 120), ("RESAMPLES", 200), ("PERCENTILES", 120)):
        monkeypatch.setattr(coverage, name, value)
    monkeypatch.setattr(coverage, "POPULATION", 4000)


def test_intervals_hold_the_truth_more_often_than_percentiles(few: None) -> None:
    found = coverage.cell(
        coverage.lives, "errors as of engines", RemainingLife(1000.0), 16, 1
    )  # fmt: skip
    assert 0.88 <= found["coverage"]["value"] <= 0.99
    assert found["coverage"]["value"] > found["coverage"]["percentiles"]
    assert found["twins"]["global"]["sure"] <= 12, "one in twenty of 120, and two deviations"


def test_of_eight_machines_at_four_sites_there_is_no_interval(few: None) -> None:
    found = coverage.cell(coverage.failures, "half fail", Failure(8), 8, 4)
    assert found["intervals"] == {} and found["coverage"] == {} and found["twins"] == {}


def test_twins_are_equally_good_and_the_other_is_not() -> None:
    for make, kind in ((coverage.failures, "half fail"), (coverage.lives, "heavy tails")):
        made: Any = make(np.random.default_rng(0), 4000, kind)
        task = Failure(8) if kind in coverage.RISKS else RemainingLife(1000.0)
        first, twin, other = (
            coverage.truth_of(task, (made[0], made[k], made[k], made[3]))["value"]
            for k in (1, 2, 3)
        )
        assert twin == pytest.approx(first, rel=0.1)
        assert other != pytest.approx(first, rel=0.02)


def test_macro_f1_is_that_of_the_task() -> None:
    random = np.random.default_rng(1)
    target, answer = random.integers(0, 2, 60), random.integers(0, 3, 60)
    expected = f1_score(target, answer, labels=[0, 1], average="macro")
    assert coverage.macro_f1(target, answer) == pytest.approx(expected)

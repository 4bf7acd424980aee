"""Benchmarks against FedCMAPSS and gossip-lstm-cmapss: commands, choices, and pages as stored."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import fedcmapss, nodes
from benchmarks.predictions import cells
from benchmarks.predictions.cells import Cell
from benchmarks.predictions.tables import END
from fedpdm.config.compose import compose


def between(page: Path, begin: str) -> list[str]:
    """Return what stands between the marks of a page."""
    return [part.split(END, 1)[0].strip() for part in page.read_text().split(begin)[1:]]


def test_pages_say_what_is_stored() -> None:
    assert between(fedcmapss.PAGE, fedcmapss.BEGIN) == fedcmapss.page_tables()
    assert between(nodes.PAGE, nodes.BEGIN) == [nodes.table(cells.read(nodes.RESULTS))]


@pytest.mark.parametrize("task", fedcmapss.TITLES)
def test_the_yaml_is_the_candidate_that_validation_takes(task: str) -> None:
    taken = fedcmapss.best(cells.read(fedcmapss.RESULTS), task)
    assert taken is not None, f"run python -m benchmarks.fedcmapss choose --tasks {task}"
    (chosen,) = (cell for cell in fedcmapss.choose(task) if cell.path[2] == taken)
    assert cells.settings(chosen.overrides) == cells.settings([f"experiment=fedcmapss_{task}"])


def test_every_step_of_the_ablation_changes_something_within_the_budget() -> None:
    for task in fedcmapss.ABLATED:
        steps = list(fedcmapss.ablation(task))
        found = [cells.settings(cell.overrides) for cell in steps]
        assert all(one != other for one, other in pairwise(found))
        assert all(each["rounds"] == 100 and each["task.cap"] == 125 for each in found)
        recipe = found[0]
        assert recipe["scaling"] == "plant" and recipe["data.conditions"] is False
        assert recipe["data.window"] == 30 and recipe["model.model_type"] == "lstm"
        assert found[-2] == cells.settings([f"experiment=fedcmapss_{task}"])
        for each in found[:-2]:
            assert each["strategy"].keys() == {"_target_", "fraction_train"}, "plain FedAvg"
        folders = {cell.job(0).folder for cell in steps}
        assert len(folders) == len(steps)
    (cell,) = fedcmapss.without_age("b")
    assert compose(list(cell.overrides)).data.features == "informative"


def test_a_cell_is_known_by_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    cell = Cell(("part", "a", "line"), ("experiment=fedcmapss_a",), (0, 1))
    cells.keep(cell, 0, {"rmse": 10.0}, path)
    cells.keep(cell, 1, {"rmse": 12.0}, path)
    stored = cells.read(path)
    assert cell.missing(stored) == () and cells.values(cell.entry(stored), "rmse") == [10.0, 12.0]
    other = Cell(cell.path, (*cell.overrides, "rounds=3"), (0, 1))
    assert other.missing(stored) == (0, 1) and not other.entry(stored)
    cells.keep(other, 0, {"rmse": 9.0}, path)
    assert list(cells.open_of([other], path)) == ["not measured: part, a, line, seed 1"]


@pytest.mark.parametrize("task", list("abcde"))
def test_a_stored_command_is_that_of_its_settings(task: str) -> None:
    stored = cells.read(fedcmapss.RESULTS)
    for cell in (*fedcmapss.choose(task), *fedcmapss.without_age(task)):
        if entry := cell.entry(stored):
            assert entry["command"] == cell.job(0).stated


def test_validation_takes_a_method_once_all_are_measured(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    one, other = nodes.choose("FD001", 5)
    for seed in nodes.CHOICE:  # one seed alone would take the first
        cells.keep(one, seed, {"validation": 0.96 if seed == 100 else 0.9}, path)
        assert nodes.taken(cells.read(path), "FD001", 5) is None
    for seed in nodes.CHOICE:
        cells.keep(other, seed, {"validation": 0.95}, path)
    assert nodes.taken(cells.read(path), "FD001", 5) == other.path[2]
    assert all(not {*nodes.CHOICE} & {*cell.seeds} for cell in nodes.tested("FD001", 5))

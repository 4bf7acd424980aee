"""The page about where federation helps is made of its results, and says what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import when
from benchmarks.when_page import by_cell, draw, gain, opening, page, verdict
from fedpdm.config.compose import compose


def made(day: int | None, gains: list[float], machines: int = 20) -> dict[str, Any]:
    """Return a cell as it is stored."""
    cell = when.Cell(day, machines=machines)
    scores = {"best_alone": 0.4, "pooled": 0.6, "hgb": 0.7}
    seeds = {str(50 + k): {"federated": 0.4 + g, **scores} for k, g in enumerate(gains)}
    return {"name": cell.name, "settings": "", **vars(cell), "seeds": seeds}


def test_the_page_is_the_result() -> None:
    assert when.PAGE.read_text() == page(when.load())
    assert when.PICTURE.exists() == bool(when.load())


def test_the_first_lines_count_where_it_is_surely_better_and_worse() -> None:
    cells = [
        made(None, [-0.10, -0.11, -0.09]), made(100, [0.20, 0.21, 0.19]),
        made(175, [0.05, -0.05, 0.02]), made(250, [0.3]),
    ]  # fmt: skip
    assert [verdict(cell) for cell in cells] == ["worse", "better", "unsure", None]
    said = opening(cells)
    assert said.startswith("Of 3 fleets the federation is surely better than")
    assert "in 1, surely worse in 1, and in 1 it could be chance" in said
    assert "surely better only with day of the change: 100" in said
    assert "surely worse only with day of the change: never" in said
    assert "largest gain is +0.200 with a change on day 100" in said
    assert "Nothing is known" in opening([made(100, [0.2])])


def test_the_gain_is_paired_and_surely_is_bold() -> None:
    cell = made(100, [0.20, 0.21, 0.19])
    cell["seeds"]["53"] = {"federated": 0.9, "best_alone": None}
    found = gain(cell)
    assert found is not None and found.pairs == 3 and found.mean == pytest.approx(0.2)
    row = by_cell([cell]).splitlines()[-1]
    assert row.startswith("| 100 | 2 | 20 | 0 | 0.675 | 0.400 | 0.600 | 0.700 | **+0.200** |")
    assert row.endswith("| 4 |")


def test_cells_are_runs_that_can_be_composed_and_names_tell_them_apart() -> None:
    cells = list(when.cells())
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in (when.Cell(None), when.Cell(sites=12, feature_shift=1.0)):
        config = compose([*cell.overrides])
        assert config.sites.houston.machines == 20
        assert config.replicas * len(config.sites) == cell.sites
    assert compose([*when.Cell(None).overrides]).sites.detroit.modes_later is None
    with pytest.raises(SystemExit):
        _ = when.Cell(sites=13).overrides


def test_the_best_alone_is_the_runs_or_the_better_kind() -> None:
    def told(**baselines: float) -> Any:
        entries = {n: {"mean_site": {when.METRIC: v}} for n, v in baselines.items()}
        return {"test": {"mean_site": {when.METRIC: 0.5}, "baselines": entries}}

    assert when.measured(told(alone=0.3, hgb_alone=0.4))["best_alone"] == 0.4
    assert when.measured(told(alone=0.3, hgb_alone=0.4, best_alone=0.35))["best_alone"] == 0.35
    assert when.measured(told(hgb=0.3))["best_alone"] is None


def test_results_of_other_settings_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(when, "RESULTS", tmp_path / "when.json")
    cell, told = when.Cell(), {"test": {"mean_site": {when.METRIC: 0.5}, "baselines": {}}}
    when.store(cell, 50, told)
    when.store(cell, 51, told)
    assert when.is_stored(cell, 50) and when.is_stored(cell, 51)
    monkeypatch.setattr(when, "digest", lambda overrides: "other")
    assert not when.is_stored(cell, 50)
    when.store(cell, 52, told)
    assert list(when.load()[0]["seeds"]) == ["52"]


def test_the_same_results_are_the_same_picture(tmp_path: Path) -> None:
    cells = [made(None, [-0.10, -0.11]), made(100, [0.20, 0.21]), made(100, [0.2], machines=8)]
    for name in ("a.svg", "b.svg"):
        draw(cells, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()

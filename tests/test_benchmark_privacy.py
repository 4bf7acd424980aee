"""The table of ``benchmarks/privacy.py``: made of the stored results, with gaps named."""

from __future__ import annotations

from typing import Any

from benchmarks.privacy import BEGIN, END, PAGE, Cell, cells, known, load, section
from fedpdm.config.compose import compose


def entry(cell: Cell, score: float, seed: int = 1) -> dict[str, Any]:
    measured = {"value": 0.51, "low": 0.49, "high": 0.53}
    attack = {"auc": measured, "advantage": measured}
    return {
        **vars(cell), "seed": seed, "settings": list(cell.overrides), "average_precision": score,
        "alone": {"alone": 0.3}, "same_sites": 0.4, "prevalence": 0.1,
        "noise_multiplier": 1.25, "model": attack, "untrained": attack,
        "control": attack, "bound": 0.9 if cell.kind == "dpsgd" else None,
    }  # fmt: skip


def test_the_page_holds_the_table_of_the_stored_results() -> None:
    text = PAGE.read_text("utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert section(load()) in text


def test_means_are_over_seeds_and_gaps_are_named() -> None:
    cell = Cell(100, "dpsgd", "3")
    found = {"a": entry(cell, 0.40, 1), "b": entry(cell, 0.50, 2)}
    text = section(found)
    assert "| 100 | `dpsgd` | 3 | 0.450 | 1.25 | 0.510 (0.490 to 0.530) |" in text
    assert text.count("not measured") == 17  # of 100 and of 1,000 sites, but for this one
    assert "Seeds: 1, 2" in text and "0.900 at 3" in text


def test_a_result_of_other_settings_is_none() -> None:
    cell = Cell(100, "central", "1")
    found = {f"{cell.name}-1": entry(cell, 0.4)}
    assert known(cell, 1, found) and not known(cell, 2, found)
    found[f"{cell.name}-1"]["settings"] = ["rounds=1"]
    assert not known(cell, 1, found)


def test_every_cell_composes() -> None:
    for cell in cells(1000):
        cfg = compose(list(cell.overrides))
        assert cfg.replicas == 500 and cfg.scaling == "plant"
        assert (cfg.privacy._target_ is None) == (cell.kind == "none")

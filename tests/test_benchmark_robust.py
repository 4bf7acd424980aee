"""The page on attacks says what its results say, and which cells are missing."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import robust
from benchmarks.robust_page import bearing, page
from fedpdm.client.attacks.base import Attack
from fedpdm.config.values import make
from fedpdm.strategies.resilience import condition_of


def stored(scores: dict[tuple[str, str], list[float]]) -> dict[str, Any]:
    """Return results of these test scores, a seed each, by defence and attack."""
    measured: dict[str, Any] = {}
    for (defence, attack), values in scores.items():
        seeds = {
            str(50 + k): {"test": value, "left_out": [30, 2], "success": 0.5,
                          "without_trigger": 0.25}
            for k, value in enumerate(values)
        }  # fmt: skip
        measured.setdefault(defence, {})[attack] = {"seeds": seeds}
    return {"measured": measured}


RESULTS = stored({
    ("fedavg", "none"): [0.6, 0.5], ("fedavg", "flip"): [0.1, 0.1],
    ("good", "none"): [0.6, 0.5], ("good", "flip"): [0.57, 0.45],
    ("bad", "none"): [0.6, 0.5], ("bad", "flip"): [0.5, 0.4],
})  # fmt: skip


def test_a_defence_bears_an_attack_if_it_keeps_nine_tenths_of_fedavg_s_clean_score() -> None:
    assert bearing(RESULTS, ["none", "flip"], ["fedavg", "good", "bad"]) == {"flip": ["good"]}
    text = page(RESULTS, ["none", "flip"], ["fedavg", "good", "bad"])
    assert "- `flip`: FedAvg keeps 18% of the clean score; nine tenths or more keep `good`." in text
    assert "| good | **1.00 ± 0.00** | **0.93 ± 0.04** |" in text
    assert "| bad | **1.00 ± 0.00** | 0.82 ± 0.02 |" in text


def test_a_backdoor_is_judged_by_the_control() -> None:
    found = stored({(d, a): [0.5] for d in ("fedavg", "good") for a in ("none", "backdoor")})
    found["measured"]["fedavg"]["backdoor"]["seeds"]["50"]["success"] = 0.95
    text = page(found, ["none", "backdoor"], ["fedavg", "good"])
    assert "Within 0.1 of the control against `backdoor` stay `good`." in text
    assert "| fedavg | 0.95 | 0.25 | – | – | 0.50 | 0.25 |" in text


def test_what_was_not_measured_is_said() -> None:
    text = page(RESULTS, ["none", "flip", "noise"], ["fedavg", "good", "bad"])
    assert "good against noise (0 of 2 seeds)" in text
    assert "Nothing is measured yet." in page({}, ["none"], ["fedavg"])


ONCE = [cell for cell in robust.cells() if cell.defence == "fedavg" or cell.attack == "free_rider"]
"""Every attack and every defence once."""


@pytest.mark.parametrize("cell", ONCE, ids=lambda c: f"{c.defence}-{c.attack}")
def test_every_cell_composes(cell: robust.Cell) -> None:
    cfg = robust.compose([*cell.overrides])
    assert isinstance(make(cfg.attack, "attack"), Attack)
    assert (condition_of(make(cfg.strategy, "strategy"), 12) is None) == (cell.defence == "fedavg")


def test_a_result_of_other_settings_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = next(robust.cells())
    entry = robust.entry_of({}, cell)
    entry["seeds"]["50"] = {"test": 0.5}
    known = {"measured": {cell.defence: {cell.attack: entry}}}
    assert robust.entry_of(known, cell)["seeds"]
    monkeypatch.setattr(robust, "FLEET", (*robust.FLEET, "training.batch_size=8"))
    assert not robust.entry_of(known, cell)["seeds"]

"""The page about the source systems: it is what the results say, and a gap in them shows."""

from __future__ import annotations

import copy
import re

import pytest

from benchmarks import systems
from benchmarks.predictions.claims import DOCUMENTS
from benchmarks.predictions.source_systems import (
    EXPERIMENTS,
    NOT_MEASURED,
    Compared,
    Series,
    of_experiments,
    page,
    summary,
)
from fedpdm.config.compose import compose
from fedpdm.config.schema import check_keys


def row_of(text: str, *starts: str) -> list[str]:
    """Return the cells of the only row that begins with these."""
    found = [line for line in text.splitlines() if line.startswith("| " + " | ".join(starts))]
    assert len(found) == 1, found
    return found[0].strip("| ").split(" | ")


def test_the_page_is_made_of_the_committed_results() -> None:
    assert systems.PAGE.read_text() == page(systems.read())


def test_the_page_is_short_and_its_links_lead_somewhere() -> None:
    text = systems.PAGE.read_text()
    assert len(text.splitlines()) < 200
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links
    for link in links:
        assert (systems.PAGE.parent / link).exists(), link


def test_every_experiment_is_a_command_of_a_document() -> None:
    assert set(systems.EXPERIMENTS) == set(EXPERIMENTS)
    folders = {job.folder for _, job in systems.jobs()}
    assert len(folders) == len(systems.SEEDS) * len(EXPERIMENTS)
    for name, overrides in systems.EXPERIMENTS.items():
        cfg = compose(list(overrides))
        check_keys(cfg)
        what = EXPERIMENTS[name]
        assert what.system in DOCUMENTS
        asked = {*what.simple, *what.networks}
        controls = cfg.baselines.controls  # null: all there are for the task
        assert controls is None or asked == set(controls), "the page shows what a run compares with"
        assert " ".join(("python -m fedpdm.simulate", *overrides)).startswith(what.command)


def test_without_results_every_number_is_named_as_missing() -> None:
    full, empty = page(systems.read()), page({})
    assert len(empty.splitlines()) == len(full.splitlines()), "no row is dropped"
    title = EXPERIMENTS["moola"].title
    cells = row_of(empty, title, f"`{EXPERIMENTS['moola'].command}`")
    assert cells[3:] == [f"AP {NOT_MEASURED}", *[NOT_MEASURED] * 3, "0"]
    assert not re.search(r"\d\.\d{3} ±", empty)


def test_one_missing_number_shows_in_its_cell() -> None:
    run = {"scores": {arm: {"average_precision": 0.5, "brier": 0.1, "ece": 0.1}
                      for arm in ("federated", "trivial", "alone", "pooled", "hgb", "minirocket")},
           "command": "x"}  # fmt: skip
    stored = {"systems": {"moola": {"1": run}}}
    before = row_of("\n".join(of_experiments(stored, "moola")), "moola", "AP")
    assert NOT_MEASURED not in before
    broken = copy.deepcopy(stored)
    del broken["systems"]["moola"]["1"]["scores"]["minirocket"]["average_precision"]  # type: ignore[attr-defined]
    after = row_of("\n".join(of_experiments(broken, "moola")), "moola", "AP")
    assert [a for a, b in zip(after, before, strict=True) if a != b] == [NOT_MEASURED]


def test_the_gain_is_paired_over_the_seeds_that_both_have() -> None:
    ours = Series({"1": 0.5, "2": 0.7, "3": 0.9})
    gain = ours.beyond(Series({"1": 0.4, "2": 0.5, "9": 0.0}))
    assert gain is not None
    mean, low, high = gain
    assert mean == pytest.approx(0.15)
    # two differences .1 and .2: standard error .05, t(.975, 1) = 12.706
    assert (low, high) == pytest.approx((0.15 - 12.706 * 0.05, 0.15 + 12.706 * 0.05), abs=1e-3)
    assert ours.beyond(Series({"9": 0.0})) is None


@pytest.mark.parametrize(
    ("simple", "verdict"),
    [
        ({"1": 0.1, "2": 0.101}, "better"),
        ({"1": 0.9, "2": 0.901}, "worse"),
        ({"1": 0.1, "2": 0.9}, "undecided"),
        ({"1": 0.1}, "undecided"),
        ({}, NOT_MEASURED),
    ],
)
def test_the_verdict_needs_an_interval(simple: dict[str, float], verdict: str) -> None:
    ours = Series({"1": 0.5, "2": 0.5})
    assert Compared("t", "c", "x", "AP", ours, {"hgb": Series(simple)}).verdict == verdict


def test_the_strongest_that_needs_no_federation_stands_beside_ours() -> None:
    for each in summary(systems.read()):
        known = [series.mean for series in each.others.values() if series.by_seed]
        if each.strongest:
            assert each.others[each.strongest].mean == max(known)
            assert each.strongest != "pooled"

"""An ablation as sentences, CSV, terminal text and an HTML page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from fedpdm.ablate.replacing import HOW
from fedpdm.ablate.result import FEWEST_SEEDS, Ablation, Fall
from fedpdm.ablate.scores import PERMUTATIONS, WHOLE
from fedpdm.comparison.words import plus_minus
from fedpdm.evaluation.wording import MISSING, counted, listing, number
from fedpdm.report.console import console_for, grid_of, say
from fedpdm.storage import write_bytes

SHOWN = 25
"""Groups in the printed table and in a figure."""
ALL = "all sites"

GLOSSARY = {
    "Fall": "score with all sensors less the score without the group, in the metric's own unit, so "
            "that .01 is a point; plus: the group helps. For errors the other way round",
    "95 % range": "Student's t interval of the mean fall over seeds, each group by itself: of many "
                  "groups some leave 0 out by chance",
    "First, last": "in how many seeds no other group's fall is as large, or as small",
    **{word.capitalize(): text for word, text in HOW.items()},
    "What it does not say": "sensors that say the same share their worth: each looks dispensable "
                            "while the other is there. Mean and zero, and a permuted group beside "
                            "the others' true readings, are windows that no machine gives, and a "
                            "model may do odd things there. What a model trained without the group "
                            "would reach is another question: --retrain",
    "Test windows": "all scores are of test windows; nothing is chosen by them, neither round, nor "
                    "threshold, nor group",
}  # fmt: skip


def write_ablation(ablation: Ablation, folder: Path) -> Path:
    """Write ``ablation.html``, ``ablation.csv`` and ``ranking.csv``; return the page's path.

    ``ablation.csv`` has a line per seed, place, group and way to replace, ``ranking.csv`` one
    per place, group and way.
    """
    from fedpdm.ablate.page import render_ablation

    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (("ablation", _lines(ablation)), ("ranking", _ranking(ablation))):
        text = pd.DataFrame(list(lines)).to_csv(index=False)
        write_bytes(folder / f"{name}.csv", text.encode())
    page = folder / "ablation.html"
    write_bytes(page, render_ablation(ablation).encode())
    return page


def _lines(ablation: Ablation) -> Iterable[dict[str, Any]]:
    return (
        {"seed": seed, "site": fall.place or "all", "group": fall.group, "how": fall.how,
         "metric": ablation.metric.name, "intact": ablation.intact[fall.place][seed],
         "without": fall.scores[seed], "fall": value, "rank": fall.ranks[seed],
         "run": str(ablation.runs[seed].run)}
        for fall in ablation.falls
        for seed, value in fall.falls.items()
    )  # fmt: skip


def _ranking(ablation: Ablation) -> Iterable[dict[str, Any]]:
    return (
        {"site": fall.place or "all", "how": fall.how, "rank": fall.rank, "group": fall.group,
         "sensors": len(ablation.groups[fall.group]), "seeds": fall.effect.pairs,
         "fall": fall.effect.mean, "deviation": fall.effect.deviation, "low": fall.effect.low,
         "high": fall.effect.high, "first": fall.first, "last": fall.last}
        for fall in ablation.falls
    )  # fmt: skip


def conclusion(ablation: Ablation) -> str:
    """Return what the ablation says, in a sentence."""
    how, m = ablation.hows[0], ablation.metric
    found = ablation.at(WHOLE, how)
    if len(found) < 2:
        fall = found[0]
        return f"Without {fall.group} {m.label} falls by {number(fall.effect.mean, m.digits)}."
    most, least = found[0], found[-1]
    seeds = most.effect.pairs
    return (
        f"{most.group} is missed most: without it {m.label} falls by "
        f"{number(most.effect.mean, m.digits)} (first in {most.first} of "
        f"{counted(seeds, 'seed')}); {least.group} least: by "
        f"{number(least.effect.mean, m.digits)} (last in {least.last} of {seeds})."
    )


def remarks(ablation: Ablation) -> list[str]:
    """Return what a reader must know: the score with all sensors, baselines, seeds."""
    m = ablation.metric
    beside = listing(
        [f"{name} {number(value, m.digits)}" for name, value in ablation.baselines.items()], most=8
    ) if ablation.baselines else "none: the runs had no baselines"  # fmt: skip
    lines = [
        f"With all sensors {m.label} is {plus_minus(ablation.spread(), m.digits)} on test windows "
        f"({m.aim} is better; {counted(len(ablation.runs), 'seed')}); beside it {beside}."
    ]
    if len(ablation.runs) < FEWEST_SEEDS:
        lines.append(
            f"With {counted(len(ablation.runs), 'seed')} there is no interval, and ranks may be "
            f"chance: it takes {FEWEST_SEEDS} seeds or more."
        )
    open_ = [f.group for f in ablation.at(WHOLE, ablation.hows[0]) if not told_apart(f)]
    if open_ and len(ablation.runs) >= FEWEST_SEEDS:
        lines.append(f"Not told from 0: {listing(open_, most=12)}.")
    return lines


def told_apart(fall: Fall) -> bool:
    """Return whether the range of a fall leaves 0 out."""
    low, high = fall.effect.low, fall.effect.high
    return low is not None and high is not None and not low <= 0 <= high


def range_of(fall: Fall, digits: int) -> str:
    """Return the 95 % range of a fall; a dash where there is none."""
    low, high = fall.effect.low, fall.effect.high
    return MISSING if low is None else f"{number(low, digits)} to {number(high, digits)}"


def groups_table(ablation: Ablation) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of all groups on all test windows, those missed most first."""
    how, *others = ablation.hows
    m = ablation.metric
    heads = ["Group", "Sensors", f"Fall ({how})", "95 % range", "First", "Last",
             *(f"Fall ({other})" for other in others)]  # fmt: skip
    beside = {(f.group, f.how): f for other in others for f in ablation.at(WHOLE, other)}
    rows = []
    for fall in ablation.at(WHOLE, how):
        e = fall.effect
        rows.append([
            fall.group, str(len(ablation.groups[fall.group])), number(e.mean, m.digits, sign=True),
            range_of(fall, m.digits),
            str(fall.first), str(fall.last),
            *(number(beside[fall.group, other].effect.mean, m.digits, sign=True)
              for other in others),
        ])  # fmt: skip
    return heads, rows


def sites_table(ablation: Ablation) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of the mean falls at each site with their ranks."""
    how, digits = ablation.hows[0], ablation.metric.digits
    order = [fall.group for fall in ablation.at(WHOLE, how)]
    rows = []
    for place in ablation.places:
        own = {fall.group: fall for fall in ablation.at(place, how)}
        if place and own:
            rows.append([place, *(f"{number(own[group].effect.mean, digits, sign=True)} "
                                  f"({own[group].rank:g})" for group in order)])  # fmt: skip
    return ["Site", *order], rows


def print_ablation(ablation: Ablation, page: Path, console: Console | None = None) -> None:
    """Print the conclusion, the groups, the sites' rankings, and where the page is."""
    console, how = console_for(console), ablation.hows[0]
    say(console, "")
    say(console, conclusion(ablation), style="bold")
    for line in remarks(ablation):
        say(console, line)
    say(console, "")
    heads, rows = groups_table(ablation)
    cells = [[Text(cell) for cell in row] for row in rows[:SHOWN]]
    console.print(grid_of(heads, cells, console, fold=True))
    if len(rows) > SHOWN:
        say(console, f"… and {len(rows) - SHOWN} more in ranking.csv")
    many = f", mean of {PERMUTATIONS} permutations" if how == "permute" else ""
    say(console, f"{how}: {HOW[how]}{many}. Nothing was trained or chosen.", style="dim")
    for place in ablation.places[1:] if len(ablation.places) <= SHOWN else []:
        names = [fall.group for fall in ablation.at(place, how)]
        if len(names) > 1:
            top, last = listing(names[:-1][:3]), names[-1]
            say(console, f"{place}: missed most {top}; least {last}", style="dim")
    say(console, "")
    console.print(Text(f"Ablation: {page}, with ablation.csv and ranking.csv"), soft_wrap=True)

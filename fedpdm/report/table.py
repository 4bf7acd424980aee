"""The last thing on the screen: who gains, who loses, and where the results are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedpdm.baselines.registry import Baseline
from fedpdm.evaluation.wording import EVENTS, MISSING, counted, listing, number
from fedpdm.report.alarms import silence
from fedpdm.report.console import STYLE, columns_of, console_for, readable, room_for_names, say
from fedpdm.report.gain_table import GainRow, GainTable, gain_table
from fedpdm.report.summary_text import certainty, headline

LISTED = 20
"""Up to this many sites are all listed; of more, those with the largest changes."""
FILES = ("report.html", "summary.json", "metrics.csv", "manifest.json")


def print_summary(summary: Mapping[str, Any], folder: Path, console: Console | None = None) -> None:
    """Print site by predictor in the primary metric, the gain, the events and the files.

    Args:
        summary: the content of summary.json.
        folder: the run folder; of its usual files those that exist are named.
        console: where to print; standard output if None.
    """
    console = console_for(console)
    table = gain_table(summary)
    aim = "higher" if table.metric.higher_is_better else "lower"
    say(console, "")
    say(console, headline(table), style="bold")
    if sure := certainty(table):
        say(console, sure)
    tested = f"Test data at round {summary['best_round']}"
    say(console, f"{tested}, {table.metric.label}, {aim} is better:", style="dim", wrap=False)
    columns, gone = dict(table.columns), list[str]()
    while (grid := _grid(replace(table, columns=columns), console)) is None:  # too wide
        gone.append(columns.pop(_spare(columns)[-1]).heading)
    if gone:
        say(
            console,
            f"{listing(gone[::-1])}: in report.html, there is no room here",
            style="dim",
            wrap=False,
        )
    console.print(grid)
    for row in _left_out(table):
        say(console, row, style="dim")
    for note, names in _notes(table).items():
        say(console, f"{MISSING} at {listing(names)}: {note}.", style="dim")
    if unseen := _unseen(summary, table.metric.digits):
        say(console, unseen)
    if mute := silence(summary, table.cases):
        say(console, mute, style="dim")
    if table.left_out:
        say(console, f"Not evaluated: {listing(table.left_out)}.", style="dim")
    happened = events_line(summary.get("events") or ())
    if happened:
        say(console, happened, style="yellow")
    present = [name for name in FILES if (folder / name).exists()]
    say(console, f"Run folder: {folder}", wrap=False)
    if present:
        say(console, f"  with {listing(present, most=len(present))}", style="dim", wrap=False)


def events_line(events: Iterable[Mapping[str, Any]]) -> str:
    """Return how often what happened, and where: one line, empty if nothing did."""
    events = list(events)
    counts = Counter(str(event.get("kind")) for event in events)
    parts = []
    for kind, count in counts.items():
        sites = dict.fromkeys(
            str(e["site"]) for e in events if str(e.get("kind")) == kind and e.get("site")
        )
        where = f" ({listing(list(sites))})" if sites else ""
        words = EVENTS.get(kind, kind)
        parts.append(f"{words[:1].lower()}{words[1:]} {counted(count, 'time')}{where}")
    text = "; ".join(parts)
    return f"Events: {text}" if text else ""


def _spare(columns: Mapping[str, Baseline]) -> list[str]:
    """Return the columns that a narrow screen does without, the last one first of all."""
    return [name for name, shown in columns.items() if shown.column == "found"]


def _grid(table: GainTable, console: Console) -> Table | None:
    """Return the table; None if there is no room for it and a column to do without."""
    heads = ["Site"]
    for name, shown in table.columns.items():
        heads += [shown.heading, "Gain"] if name == "federated" else [shown.heading]
    sites = [_cells(row, table, console) for row in _shown(table)]
    means = [
        _cells(row, table, console, name)
        for row, name in ((table.mean, table.mean.name), (table.together, "All test data"))
        if len(table.rows) > 1
    ]
    if _spare(table.columns) and room_for_names(heads, sites + means, console) < 0:
        return None
    grid = columns_of(heads, sites + means, console)
    for index, cells in enumerate(sites):
        grid.add_row(*cells, end_section=index == len(sites) - 1)
    for cells in means:
        grid.add_row(*cells, style="bold")
    return grid


def _cells(row: GainRow, table: GainTable, console: Console, name: str | None = None) -> list[Text]:
    digits = table.metric.digits
    cells = [Text(readable(name or row.name, console))]
    for column in table.columns:
        cells.append(Text(readable(number(row.values[column], digits), console)))
        if column == "federated":
            cells.append(_gain(row, digits, console))
    return cells


def _gain(row: GainRow, digits: int, console: Console) -> Text:
    if row.gain is None:
        return Text(readable(MISSING, console))
    text = f"{number(row.gain, digits, sign=True)} {row.verdict}"
    return Text(readable(text, console), style=STYLE.get(row.verdict, ""))


def _shown(table: GainTable) -> list[GainRow]:
    """Return all sites, or of too many the greatest losses, then the greatest gains."""
    if len(table.rows) <= LISTED:
        return list(table.rows)
    judged = sorted((r for r in table.rows if r.gain is not None), key=lambda r: r.gain or 0.0)
    half = LISTED // 2
    return judged if len(judged) <= LISTED else judged[:half] + judged[-half:]


def _unseen(summary: Mapping[str, Any], digits: int) -> str | None:
    """Return how alone and federated do on machines that no training row came from."""
    heldout = summary.get("heldout") or {}
    alone = (heldout.get("baselines") or {}).get("alone")
    if not alone or "mean_site" not in heldout or "mean_site" not in alone:
        return None
    primary = summary["validation"]["metric"]
    pair = [part["mean_site"].get(primary) for part in (alone, heldout)]
    if None in pair:
        return None
    return (
        "Machines never seen in training, mean of sites: alone "
        f"{number(pair[0], digits)}, federated {number(pair[1], digits)}."
    )


def _left_out(table: GainTable) -> list[str]:
    rest = len(table.rows) - len(_shown(table))
    if rest <= 0:
        return []
    return [
        f"Baseline: the smallest and the largest gains; {counted(rest, 'site')} more "
        "in metrics.csv and report.html."
    ]


def _notes(table: GainTable) -> dict[str, list[str]]:
    notes: dict[str, list[str]] = {}
    for row in table.rows:
        if row.note:
            notes.setdefault(row.note, []).append(row.name)
    return notes

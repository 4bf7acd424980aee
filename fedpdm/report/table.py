"""The table on the terminal after a run: who gains, who loses, and where the results are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from fedpdm.baselines.registry import Baseline
from fedpdm.evaluation.wording import EVENTS, MISSING, counted, listing, number
from fedpdm.privacy.base import sentence
from fedpdm.report.console import STYLE, console_for, grid_of, room_for_names, say
from fedpdm.report.gain_table import GainRow, GainTable, gain_table, part_of
from fedpdm.report.sections.alarms import dearer, silence
from fedpdm.report.sections.attack import attacked
from fedpdm.report.sections.clusters import cluster_lines
from fedpdm.report.sections.contribution import lines as contribution_lines
from fedpdm.report.sections.simulated import said
from fedpdm.report.summary_text import certainty, chosen_alone, facts, headline, hindsight

NAME = 6
"""A site's name is not cut shorter."""
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
    if attack := attacked(summary):
        say(console, attack, style="bold red")
    say(console, headline(table), style="bold")
    if sure := certainty(table):
        say(console, sure)
    if of_data := facts(summary):
        say(console, of_data)
    tested = f"Test data at round {summary['best_round']}"
    say(console, f"{tested}, {table.metric.label}, {aim} is better:", style="dim", wrap=False)
    columns, gone = dict(table.columns), list[str]()
    spare = [
        name
        for name, shown in columns.items()
        if name != table.against and (shown.column == "found" or shown.per_site)
    ]
    heads, rows = _cells_of(table, columns)
    while spare and room_for_names(heads, rows, console) < 0:
        gone.insert(0, columns.pop(spare.pop()).heading)
        heads, rows = _cells_of(table, columns)
        if not spare:  # names may give way, numbers never
            longest = max(row[0].cell_len for row in rows)
            if room_for_names(heads, rows, console) < NAME - longest:
                spare = [n for n, shown in columns.items() if shown.column == "asked"]
    if gone:
        told = f"{listing(gone, most=len(gone))}: in report.html, there is no room here"
        say(console, told, style="dim", wrap=False)
    console.print(grid_of(heads, rows, console, means=2 if len(table.rows) > 1 else 0))
    if rest := len(table.rows) - len(_shown(table)):
        more = f"{counted(rest, 'site')} more in metrics.csv and report.html"
        say(console, f"Shown: the smallest and the largest gains; {more}.", style="dim")
    for note in dict.fromkeys(row.note for row in table.rows if row.note):
        names = [row.name for row in table.rows if row.note == note]
        say(console, f"{MISSING} at {listing(names)}: {note}.", style="dim")
    if chosen := chosen_alone(summary):
        say(console, chosen, style="dim")
    if later := hindsight(table):
        say(console, later)
    if together := cluster_lines(summary):
        say(console, together)
    if unseen := _unseen(summary, table):
        say(console, unseen)
    for line in [*shared_model(summary, table), *newcomers(summary, table)]:
        say(console, line)
    if mute := silence(summary, table.cases):
        say(console, mute, style="dim")
    if other := dearer(summary):
        say(console, other, style="yellow")
    for line in contribution_lines(summary):
        say(console, line)
    if privacy := summary.get("privacy"):
        say(console, f"{sentence(privacy)}.")
    if table.left_out:
        say(console, f"Not evaluated: {listing(table.left_out)}.", style="dim")
    if in_time := said(summary):
        say(console, in_time)
    if happened := events_line(summary.get("events") or ()):
        say(console, happened, style="yellow")
    present = [name for name in FILES if (folder / name).exists()]
    say(console, f"Run folder: {folder}", wrap=False)
    if present:
        say(console, f"  with {listing(present, most=len(present))}", style="dim", wrap=False)


def events_line(events: Iterable[Mapping[str, Any]]) -> str:
    """Return how often what happened, and where: one line, empty if nothing did."""
    of_kind: dict[str, list[Any]] = {}
    for event in events:
        of_kind.setdefault(str(event.get("kind")), []).append(event.get("site"))
    parts = []
    for kind, where in of_kind.items():
        sites = list(dict.fromkeys(str(site) for site in where if site))
        words = EVENTS.get(kind, kind)
        parts.append(f"{words[:1].lower()}{words[1:]} {counted(len(where), 'time')}"
                     + (f" ({listing(sites)})" if sites else ""))  # fmt: skip
    return f"Events: {'; '.join(parts)}" if parts else ""


def _cells_of(
    table: GainTable, columns: Mapping[str, Baseline]
) -> tuple[list[str], list[list[Text]]]:
    """Return the heads, and the cells of the sites and, of several, their means."""
    heads = ["Site"]
    for name, shown in columns.items():
        heads += [shown.heading, "Gain"] if name == "federated" else [shown.heading]
    means = [table.mean, replace(table.together, name="All test data")]
    rows = [*_shown(table), *(means if len(table.rows) > 1 else ())]
    return heads, [_cells(row, columns) for row in rows]


def _cells(row: GainRow, columns: Iterable[str]) -> list[Text]:
    digits = row.metric.digits
    cells = [Text(row.name)]
    for column in columns:
        cells.append(Text(number(row.values[column], digits)))
        if column == "federated":
            known = row.gain is not None
            gain = f"{number(row.gain, digits, sign=True)} {row.verdict}" if known else MISSING
            cells.append(Text(gain, style=STYLE.get(row.verdict, "")))
    return cells


def _shown(table: GainTable) -> list[GainRow]:
    """Return all sites, or of too many the greatest losses, then the greatest gains."""
    if len(table.rows) <= LISTED:
        return list(table.rows)
    judged = sorted((r for r in table.rows if r.gain is not None), key=lambda r: r.gain or 0.0)
    half = LISTED // 2
    return judged if len(judged) <= LISTED else judged[:half] + judged[-half:]


def shared_model(summary: Mapping[str, Any], table: GainTable) -> list[str]:
    """Return how the shared model does where each site has a model of its own: no or one line."""
    metric, digits = summary["validation"]["metric"], table.metric.digits
    mean = part_of(summary, "personal", "shared", "mean_site", metric)
    own = part_of(summary, "test", "mean_site", metric)
    if mean is None or own is None:
        return []
    return [
        f"The shared model of the same round, mean of sites: {table.metric.label} "
        f"{number(mean, digits)}; each site's own {number(own, digits)}."
    ]


def newcomers(summary: Mapping[str, Any], table: GainTable) -> list[str]:
    """Return how sites that took no part do with the shared model, a sentence for each."""
    found, digits = summary.get("newcomers") or {}, table.metric.digits
    metric = summary["validation"]["metric"]
    words = {"zero_shot": "the shared model as it is", "fine_tuned": "fine-tuned there"}
    words[table.against or "alone"] = "the best by itself"
    lines = []
    for site in part_of(found, "zero_shot", "per_site") or {}:
        scores = {name: part_of(found, name, "per_site", site, metric) for name in words}
        known = [f"{words[n]} {number(v, digits)}" for n, v in scores.items() if v is not None]
        told = listing(known, most=len(known)) if known else "no score: one class only"
        lines.append(f"{site} took no part, {table.metric.label}: {told}.")
    return lines


def _unseen(summary: Mapping[str, Any], table: GainTable) -> str | None:
    """Return how the best alone and federated do on machines that no training row came from."""
    path, digits = ("mean_site", summary["validation"]["metric"]), table.metric.digits
    alone = part_of(summary, "heldout", "baselines", table.against, *path)
    federated = part_of(summary, "heldout", *path)
    if alone is None or federated is None:
        return None
    heading = table.columns[table.against].heading.lower()
    return (
        f"Machines never seen in training, mean of sites: {heading} {number(alone, digits)}, "
        f"federated {number(federated, digits)}."
    )

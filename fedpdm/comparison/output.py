"""Writes a comparison as CSV, Markdown, terminal text and an HTML page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from fedpdm.comparison.page import render_comparison
from fedpdm.comparison.result import Comparison, Family, Pair
from fedpdm.comparison.scores import VIEWS
from fedpdm.comparison.words import (
    GLOSSARY,
    Table,
    conclusion,
    p_value,
    pairs_table,
    plus_minus,
    power_lines,
    ranking_line,
    ranks_of,
    settings_table,
    site_lines,
)
from fedpdm.evaluation.wording import MISSING, duration, number
from fedpdm.report.console import STYLE, console_for, grid_of, say
from fedpdm.storage import write_bytes

Line = dict[str, Any]
FEW = 2
"""Up to this many settings get a line on the screen on which sites they serve worse."""


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write ``comparison.html``, ``comparison.md`` and the CSV files; return the page's path.

    ``settings.csv`` has a line per setting, ``scores.csv`` one per setting and seed,
    ``pairs.csv`` one per pair and ``sites.csv`` one per setting and site.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines_of in (
        ("settings", _settings_lines),
        ("scores", _score_lines),
        ("pairs", _pair_lines),
        ("sites", _site_lines),
    ):
        lines = [
            {"data": family.name, **line}
            for family in comparison.families
            for line in lines_of(family)
        ]
        write_bytes(folder / f"{name}.csv", _as_csv(lines).encode())
    write_bytes(folder / "comparison.md", _markdown(comparison).encode())
    page = folder / "comparison.html"
    write_bytes(page, render_comparison(comparison).encode())
    return page


# CSV: plus is better in all differences ------------------------------------------------------


def _settings_lines(family: Family) -> Iterable[Line]:
    for s, rank in zip(family.gain_table, ranks_of(family), strict=True):
        line: Line = {"setting": s.name, "metric": family.metric.name,
                      "seeds": " ".join(map(str, s.setting.runs))}  # fmt: skip
        for view in VIEWS:
            line[f"{view}_mean"] = s.scores[view].mean
            line[f"{view}_deviation"] = s.scores[view].deviation
        yield line | {
            "rank": rank,
            "megabytes": s.megabytes,
            "seconds": s.seconds,
            "above_guessing": s.above_guess,
            "above_guessing_per_megabyte": s.per_megabyte,
            "above_guessing_per_second": s.per_second,
        }


def _score_lines(family: Family) -> Iterable[Line]:
    return (
        {"setting": s.name, "seed": seed, "view": family.view, "metric": family.metric.name,
         "score": s.by_seed.get(seed), "run": str(run.folder)}
        for s in family.gain_table
        for seed, run in s.setting.runs.items()
    )  # fmt: skip


def _pair_lines(family: Family) -> Iterable[Line]:
    pairs = [("reference", p) for p in family.against] + [("pair", p) for p in family.pairs]
    for kind, pair in pairs:
        e = pair.effect
        yield {
            "kind": kind, "first": pair.first, "second": pair.second, "seeds": e.pairs,
            "difference": e.mean, "deviation": e.deviation, "low": e.low, "high": e.high,
            "better": pair.better, "worse": pair.worse, "effect": e.size, "p": pair.p,
            "p_holm": pair.corrected, "verdict": pair.verdict,
        }  # fmt: skip


def _site_lines(family: Family) -> Iterable[Line]:
    return (
        {"site": c.site, "setting": c.setting, "metric": family.metric.name, "seeds": c.seeds,
         "score": c.score, "reference": family.references.get(c.setting),
         "against_reference": c.against, "against_alone": c.alone}
        for c in family.sites
    )  # fmt: skip


def _as_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return lines as CSV; None is empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(lines[0]) if lines else ["data"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


# Markdown ---------------------------------------------------------------------------------


def _markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown: conclusion, tables, terms."""
    parts = ["# Comparison", conclusion(comparison), *power_lines(comparison)]
    for family in comparison.families:
        m = family.metric
        parts.append(f"## {family.name or 'Settings'}")
        parts.append(f"{m.label[:1].upper()}{m.label[1:]} on test data, {m.aim} is better.")
        parts.append(_table(settings_table(family)))
        for title, pairs in (("Against the reference", family.against),
                             ("All pairs", family.pairs)):  # fmt: skip
            if pairs:
                parts += [f"### {title}", _table(pairs_table(pairs, m.digits))]
        parts.append(ranking_line([s.name for s in family.gain_table], family.ranking))
    if comparison.overall is not None:
        parts += ["## All data sets together", ranking_line(*comparison.overall)]
    notes = [*comparison.remarks, *(f"left out: {reason}" for reason in comparison.left_out)]
    if notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in notes)]
    parts += ["## Terms", "\n".join(f"- **{k}**: {v}" for k, v in GLOSSARY.items())]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    heads, rows = table
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines
    )


# The screen, readable at 80 columns ---------------------------------------------------------


def print_comparison(comparison: Comparison, page: Path, console: Console | None = None) -> None:
    """Print the conclusion, the settings, the differences, and where the page is."""
    console = console_for(console)
    say(console, "")
    say(console, conclusion(comparison), style="bold")
    for line in power_lines(comparison):
        say(console, line, style="yellow")
    for family in comparison.families:
        _print_family(family, console)
    if comparison.overall is not None:
        say(console, "")
        say(console, f"All data sets together. {ranking_line(*comparison.overall)}")
    if comparison.remarks or comparison.left_out:
        say(console, "")
    for remark in comparison.remarks:
        say(console, f"Note: {remark}.", style="dim")
    for reason in comparison.left_out:
        say(console, f"Left out: {reason}.", style="yellow")
    say(console, "")
    console.print(Text(f"Comparison: {page}"), soft_wrap=True)


def _print_family(family: Family, console: Console) -> None:
    m = family.metric
    title = f"{family.name}: " if family.name else ""
    say(console, "")
    say(console, f"{title}{m.label} on test data, {m.aim} is better; mean over seeds", style="dim")
    others = [view for view in VIEWS if view != family.view]
    rows = [
        [
            s.name,
            str(len(s.by_seed)),
            plus_minus(s.scores[family.view], m.digits),
            *(number(s.scores[view].mean, m.digits) for view in others),
            number(rank, 1),
            number(s.megabytes, 1),
            duration(s.seconds),
        ]
        for s, rank in zip(family.gain_table, ranks_of(family), strict=True)
    ]
    short = {"global": "All data", "mean": "Sites", "worst": "Worst"}
    heads = ["Setting", "Seeds", f"{short[family.view]} ±", *(short[view] for view in others),
             "Rank", "MB", "Time"]  # fmt: skip
    _print_table(console, heads, rows)
    if family.against:
        text = "Difference, plus is better; seeds and sites that gain; p is corrected (Holm)"
        say(console, "")
        say(console, text, style="dim")
        heads = [f"Against {family.reference}", "Diff.", "95 %", "Seeds", "Sites", "Effect", "p",
                 ""]  # fmt: skip
        _print_table(console, heads, [_short_cells(pair, family) for pair in family.against])
    if len(family.gain_table) > 2:
        say(console, ranking_line([s.name for s in family.gain_table], family.ranking))
    if len(lines := site_lines(family)) <= FEW:
        for line in lines:
            say(console, f"{line}.", style="dim")


def _short_cells(pair: Pair, family: Family) -> list[str]:
    """Return a pair in few characters, and at how many sites the first setting is better."""
    digits, e, changes = family.metric.digits, pair.effect, family.changes(pair.first)
    gained = sum(round(c.against or 0.0, digits) > 0 for c in changes)
    return [
        pair.first,
        number(e.mean, digits, sign=True),
        MISSING if e.low is None else f"{number(e.low, digits)}…{number(e.high, digits)}",
        f"{pair.better}/{e.pairs}",
        f"{gained}/{len(changes)}",
        number(e.size, 1),
        p_value(pair.corrected),
        pair.verdict,
    ]


def _print_table(console: Console, heads: list[str], rows: list[list[str]]) -> None:
    """Print a table; a verdict in the last column has its colour."""
    cells = [[Text(cell) for cell in row] for row in rows]
    for row in cells:
        row[-1].style = STYLE.get(row[-1].plain, "")
    console.print(grid_of(heads, cells, console, fold=True))

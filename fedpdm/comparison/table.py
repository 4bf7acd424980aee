"""A comparison on the screen, readable at 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from fedpdm.comparison.result import Comparison, Family
from fedpdm.comparison.scores import VIEWS
from fedpdm.comparison.words import conclusion, p_value, power_lines, ranking_line, site_lines
from fedpdm.evaluation.wording import MISSING, duration, number
from fedpdm.report.console import STYLE, console_for, grid_of, say

FEW = 2
"""Up to this many settings get a line on which sites they serve worse."""


def print_comparison(
    comparison: Comparison, page: Path | None = None, console: Console | None = None
) -> None:
    """Print the conclusion, the settings, the differences, and where the files are."""
    console = console_for(console)
    say(console, "")
    say(console, conclusion(comparison), style="bold")
    for line in power_lines(comparison):
        say(console, line, style="yellow")
    for family in comparison.families:
        _family(family, console)
    if comparison.overall is not None:
        names, result = comparison.overall
        say(console, "")
        say(console, f"All data sets together. {ranking_line(names, result)}")
    if comparison.remarks or comparison.left_out:
        say(console, "")
    for remark in comparison.remarks:
        say(console, f"Note: {remark}.", style="dim")
    for reason in comparison.left_out:
        say(console, f"Left out: {reason}.", style="yellow")
    if page is not None:
        say(console, "")
        console.print(Text(f"Comparison: {page}"), soft_wrap=True)


def _family(family: Family, console: Console) -> None:
    m = family.metric
    aim = "higher" if m.higher_is_better else "lower"
    title = f"{family.name}: " if family.name else ""
    say(console, "")
    say(console, f"{title}{m.label} on test data, {aim} is better; mean over seeds", style="dim")
    rows = []
    for standing, rank in zip(family.gain_table, family.ranking.mean or (), strict=False):
        spread = standing.scores[family.view]
        rows.append([
            standing.name,
            str(len(standing.by_seed)),
            _plus_minus(spread.mean, spread.deviation, m.digits),
            *(number(standing.scores[v].mean, m.digits) for v in VIEWS if v != family.view),
            number(rank, 1),
            number(standing.megabytes, 1),
            duration(standing.seconds),
        ])  # fmt: skip
    if not rows:  # no seed in common: no ranks
        for standing in family.gain_table:
            spread = standing.scores[family.view]
            rows.append([standing.name, str(len(standing.by_seed)),
                         _plus_minus(spread.mean, spread.deviation, m.digits), MISSING, MISSING,
                         MISSING, number(standing.megabytes, 1),
                         duration(standing.seconds)])  # fmt: skip
    short = {"global": "All data", "mean": "Sites", "worst": "Worst"}
    others = [short[v] for v in VIEWS if v != family.view]
    _grid(console, ["Setting", "Seeds", f"{short[family.view]} ±", *others, "Rank", "MB", "Time"],
          rows)  # fmt: skip
    if family.against:
        _pairs(console, family)
    if len(family.gain_table) > 2:
        say(console, ranking_line([s.name for s in family.gain_table], family.ranking))
    if len(lines := site_lines(family)) <= FEW:
        for line in lines:
            say(console, f"{line}.", style="dim")


def _pairs(console: Console, family: Family) -> None:
    """Print every setting against its reference."""
    digits = family.metric.digits
    rows, styles = [], []
    for pair in family.against:
        e, changes = pair.effect, family.changes(pair.first)
        gained = sum(round(c.against or 0.0, digits) > 0 for c in changes)
        rows.append([
            pair.first,
            number(e.mean, digits, sign=True),
            MISSING if e.low is None else f"{number(e.low, digits)}…{number(e.high, digits)}",
            f"{pair.better}/{e.pairs}",
            f"{gained}/{len(changes)}",
            number(e.size, 1),
            p_value(pair.corrected),
            pair.verdict,
        ])  # fmt: skip
        styles.append(STYLE.get(pair.verdict, ""))
    say(console, "")
    say(
        console,
        "Difference, plus is better; seeds and sites that gain; p is corrected (Holm)",
        style="dim",
    )
    heads = [f"Against {family.reference}", "Diff.", "95 %", "Seeds", "Sites", "Effect", "p", ""]
    _grid(console, heads, rows, styles)


def _grid(
    console: Console, heads: list[str], rows: list[list[str]], styles: Sequence[str] = ()
) -> None:
    cells = [[Text(cell) for cell in row] for row in rows]
    for row, style in zip(cells, styles, strict=False):
        row[-1].style = style
    console.print(grid_of(heads, cells, console, fold=True))


def _plus_minus(mean: float | None, deviation: float | None, digits: int) -> str:
    text = number(mean, digits)
    return text if deviation is None else f"{text} ± {number(deviation, digits)}"

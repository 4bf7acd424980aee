"""The files of a comparison: CSV for machines, Markdown for documents, a page for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpdm.comparison.page import render_comparison
from fedpdm.comparison.result import Comparison, Pair
from fedpdm.comparison.scores import VIEWS
from fedpdm.comparison.words import GLOSSARY, conclusion, p_value, power_lines, ranking_line
from fedpdm.evaluation.wording import MISSING, duration, number
from fedpdm.storage import write_bytes

Line = dict[str, Any]


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write ``comparison.html``, ``comparison.md`` and the CSV files; return the page's path.

    ``settings.csv`` has a line per setting, ``scores.csv`` one per setting and seed,
    ``pairs.csv`` one per pair and ``plants.csv`` one per setting and site.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (
        ("settings", settings_lines(comparison)),
        ("scores", score_lines(comparison)),
        ("pairs", pair_lines(comparison)),
        ("sites", site_lines(comparison)),
    ):
        write_bytes(folder / f"{name}.csv", as_csv(lines).encode())
    write_bytes(folder / "comparison.md", markdown(comparison).encode())
    page = folder / "comparison.html"
    write_bytes(page, render_comparison(comparison).encode())
    return page


def settings_lines(comparison: Comparison) -> list[Line]:
    """Return a line per setting: scores over seeds, ranks, costs."""
    lines = []
    for family in comparison.families:
        for index, s in enumerate(family.gain_table):
            line: Line = {"data": family.name, "setting": s.name, "metric": family.metric.name,
                          "seeds": " ".join(map(str, s.seeds))}  # fmt: skip
            for view in VIEWS:
                line[f"{view}_mean"] = s.scores[view].mean
                line[f"{view}_deviation"] = s.scores[view].deviation
            ranks = family.ranking.mean
            line |= {
                "rank": ranks[index] if ranks else None,
                "megabytes": s.megabytes,
                "seconds": s.seconds,
                "above_guessing": s.above_guess,
                "above_guessing_per_megabyte": s.per_megabyte,
                "above_guessing_per_second": s.per_second,
            }
            lines.append(line)
    return lines


def score_lines(comparison: Comparison) -> list[Line]:
    """Return a line per setting and seed, with the run folder."""
    return [
        {"data": family.name, "setting": s.name, "seed": seed, "view": family.view,
         "metric": family.metric.name, "score": s.by_seed.get(seed), "run": str(run.folder)}
        for family in comparison.families
        for s in family.gain_table
        for seed, run in s.setting.runs.items()
    ]  # fmt: skip


def pair_lines(comparison: Comparison) -> list[Line]:
    """Return a line per comparison with a reference and per pair; plus is better."""
    lines = []
    for family in comparison.families:
        for kind, pairs in (("reference", family.against), ("pair", family.pairs)):
            lines += [_pair_line(family.name, kind, pair) for pair in pairs]
    return lines


def _pair_line(data: str, kind: str, pair: Pair) -> Line:
    e = pair.effect
    return {
        "data": data, "kind": kind, "first": pair.first, "second": pair.second, "seeds": e.pairs,
        "difference": e.mean, "deviation": e.deviation, "low": e.low, "high": e.high,
        "better": pair.better, "worse": pair.worse, "effect": e.size, "p": pair.p,
        "p_holm": pair.corrected, "verdict": pair.verdict,
    }  # fmt: skip


def site_lines(comparison: Comparison) -> list[Line]:
    """Return a line per setting and site: its score, and what it gains; plus is better."""
    return [
        {"data": family.name, "site": c.site, "setting": c.setting,
         "metric": family.metric.name, "seeds": c.seeds, "score": c.score,
         "reference": family.references.get(c.setting), "against_reference": c.against,
         "against_alone": c.alone}
        for family in comparison.families
        for c in family.sites
    ]  # fmt: skip


def as_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return lines as CSV; None is empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(lines[0]) if lines else ["data"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown: conclusion, tables, terms."""
    parts = ["# Comparison", conclusion(comparison), *power_lines(comparison)]
    for family in comparison.families:
        m = family.metric
        aim = "higher" if m.higher_is_better else "lower"
        parts.append(f"## {family.name or 'Settings'}")
        parts.append(f"{m.label[:1].upper()}{m.label[1:]} on test data, {aim} is better.")
        heads = ["Setting", "Seeds", *(f"{words} (mean ± spread)" for words in VIEWS.values()),
                 "Average rank", "MB", "Time", "Above guessing per MB", "… per s"]  # fmt: skip
        ranks = family.ranking.mean or (None,) * len(family.gain_table)
        rows = [
            [
                s.name,
                str(len(s.by_seed)),
                *(
                    f"{number(s.scores[v].mean, m.digits)} ± "
                    f"{number(s.scores[v].deviation, m.digits)}"
                    for v in VIEWS
                ),
                number(rank, 2),
                number(s.megabytes, 1),
                duration(s.seconds),
                number(s.per_megabyte, 4),
                number(s.per_second, 4),
            ]
            for s, rank in zip(family.gain_table, ranks, strict=True)
        ]
        parts.append(_table(heads, rows))
        for title, pairs in (("Against the reference", family.against),
                             ("All pairs", family.pairs)):  # fmt: skip
            if pairs:
                parts += [
                    f"### {title}",
                    _table(PAIR_HEADS, [pair_cells(p, m.digits) for p in pairs]),
                ]
        parts.append(ranking_line([s.name for s in family.gain_table], family.ranking))
    if comparison.overall is not None:
        parts += ["## All data sets together", ranking_line(*comparison.overall)]
    notes = [*comparison.remarks, *(f"left out: {reason}" for reason in comparison.left_out)]
    if notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in notes)]
    parts += ["## Terms", "\n".join(f"- **{k}**: {v}" for k, v in GLOSSARY.items())]
    return "\n\n".join(parts) + "\n"


PAIR_HEADS = ["Setting", "Against", "Difference", "95 % range", "Seeds won", "Effect", "p",
              "Corrected p", "Verdict"]  # fmt: skip


def pair_cells(pair: Pair, digits: int) -> list[str]:
    """Return a pair's cells under ``PAIR_HEADS``."""
    e = pair.effect
    return [
        pair.first,
        pair.second,
        number(e.mean, digits, sign=True),
        MISSING if e.low is None else f"{number(e.low, digits)} to {number(e.high, digits)}",
        f"{pair.better} of {e.pairs}",
        number(e.size, 2),
        p_value(pair.p),
        p_value(pair.corrected),
        pair.verdict,
    ]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines
    )

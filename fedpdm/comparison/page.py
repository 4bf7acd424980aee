"""The page of a comparison: one self-contained HTML file that needs no explanation."""

from __future__ import annotations

from typing import Any

from fedpdm.comparison import plots
from fedpdm.comparison.result import Comparison, Family, Pair
from fedpdm.comparison.scores import VIEWS
from fedpdm.comparison.words import (
    GLOSSARY,
    conclusion,
    p_value,
    power_lines,
    ranking_line,
    site_lines,
)
from fedpdm.evaluation.wording import MISSING, counted, duration, number
from fedpdm.report.page import render_page

SITES = 40
"""Up to this many sites are listed; all are in plants.csv."""


def render_comparison(comparison: Comparison) -> str:
    """Return the comparison as HTML."""
    from markupsafe import Markup

    overall = None
    if comparison.overall is not None:
        names, result = comparison.overall
        overall = {
            "line": ranking_line(names, result),
            "plot": Markup(plots.rank_bars(names, result, "overall")) if result.critical else None,
        }
    families = comparison.families
    settings = sum(len(family.gain_table) for family in families)
    seeds = sorted({seed for f in families for s in f.gain_table for seed in s.seeds})
    return render_page(
        "comparison.html.j2",
        conclusion=conclusion(comparison),
        meaning=_meaning(families[0]),
        power=power_lines(comparison),
        tiles=[
            ("Settings", str(settings), f"on {counted(len(families), 'data set')}"),
            ("Seeds", str(len(seeds)), ", ".join(map(str, seeds)) if len(seeds) <= 12 else ""),
            ("Comparisons", str(len(comparison.against)), "with a reference"),
            ("Beyond chance", str(sum(p.verdict != "open" for p in comparison.against)),
             "of them, after correction"),
        ],
        families=[_family(family, f"{index}") for index, family in enumerate(families)],
        overall=overall,
        remarks=comparison.remarks,
        left_out=comparison.left_out,
        glossary=GLOSSARY,
        missing=MISSING,
    )  # fmt: skip


def _meaning(family: Family) -> str:
    data = family.gain_table[0].setting.any.summary.get("data") or {}
    unit = data.get("time_unit") or "the data's time unit"
    cases = "rows" if "window" in data and data["window"] is None else "windows"
    return family.metric.meaning.format(unit=unit, cases=cases)


def _family(family: Family, key: str) -> dict[str, Any]:
    """Return everything that the template shows of one family."""
    from markupsafe import Markup

    m = family.metric
    names = [s.name for s in family.gain_table]
    ranks = family.ranking.mean or (None,) * len(names)
    curve = plots.curves(family, key)
    defined = family.ranking.critical is not None
    sites = list(dict.fromkeys(change.site for change in family.sites))
    return {
        "key": key,
        "name": family.name,
        "label": m.label,
        "aim": "higher" if m.higher_is_better else "lower",
        "view": VIEWS[family.view],
        "views": [words for name, words in VIEWS.items() if name != family.view],
        "rows": [
            {
                "name": s.name,
                "best": s is family.best,
                "seeds": len(s.by_seed),
                "score": number(s.scores[family.view].mean, m.digits),
                "spread": number(s.scores[family.view].deviation, m.digits),
                "others": [number(s.scores[v].mean, m.digits) for v in VIEWS if v != family.view],
                "rank": number(rank, 2),
                "megabytes": number(s.megabytes, 1),
                "seconds": duration(s.seconds),
                "per_megabyte": number(s.per_megabyte, 4),
                "per_second": number(s.per_second, 4),
            }
            for s, rank in zip(family.gain_table, ranks, strict=True)
        ],
        "against": [_pair(pair, m.digits) for pair in family.against],
        "pairs": [_pair(pair, m.digits) for pair in family.pairs]
        if len(family.pairs) > len(family.against)
        else [],
        "scores": Markup(plots.scores(family, key)),
        "differences": Markup(plots.differences(family, key)) if family.against else None,
        "ranking": ranking_line(names, family.ranking),
        "ranks": Markup(plots.rank_bars(names, family.ranking, key)) if defined else None,
        "curves": Markup(curve) if curve else None,
        "legend": [(s.name, f"site-{i}") for i, s in enumerate(plots.coloured(family))],
        "site_lines": site_lines(family),
        "site_heads": names,
        "references": family.references,
        "sites": [_site(site, family) for site in sites[:SITES]],
        "sites_more": max(len(sites) - SITES, 0),
    }


def _pair(pair: Pair, digits: int) -> dict[str, Any]:
    e = pair.effect
    return {
        "first": pair.first,
        "second": pair.second,
        "difference": number(e.mean, digits, sign=True),
        "range": MISSING
        if e.low is None
        else f"{number(e.low, digits)} to {number(e.high, digits)}",
        "won": f"{pair.better} of {e.pairs}",
        "effect": number(e.size, 2),
        "p": p_value(pair.p),
        "corrected": p_value(pair.corrected),
        "verdict": pair.verdict,
        "style": "same" if pair.verdict == "open" else pair.verdict,
    }


def _site(site: str, family: Family) -> dict[str, Any]:
    digits = family.metric.digits
    cells = []
    by_setting = {c.setting: c for c in family.sites if c.site == site}
    for standing in family.gain_table:
        change = by_setting.get(standing.name)
        if change is None:
            cells.append({"score": MISSING, "change": "", "style": "unknown"})
            continue
        value = None if change.against is None else round(change.against, digits)
        style = "same" if not value else "better" if value > 0 else "worse"
        shown = "" if value is None else number(value, digits, sign=True)
        cells.append({"score": number(change.score, digits), "change": shown, "style": style})
    return {"site": site, "cells": cells}

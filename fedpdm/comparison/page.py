"""The HTML page of a comparison: one self-contained file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedpdm.comparison.result import Comparison, Family, Pair
from fedpdm.comparison.scores import VIEWS, Standing
from fedpdm.comparison.statistics import Ranking
from fedpdm.comparison.words import (
    GLOSSARY,
    conclusion,
    pairs_table,
    power_lines,
    ranking_line,
    settings_table,
    site_lines,
)
from fedpdm.evaluation.wording import MISSING, counted, direction, number
from fedpdm.report.page import COLOUR, figure_of, render_page, rows_figure, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURED = 6
"""Up to this many settings have a colour of their own."""
LONGEST = 26
"""Characters of a name that are drawn."""
SITES = 40
"""Up to this many sites are listed; all are in sites.csv."""


def render_comparison(comparison: Comparison) -> str:
    """Return the comparison as HTML."""
    from markupsafe import Markup

    overall = None
    if comparison.overall is not None:
        names, result = comparison.overall
        overall = {
            "line": ranking_line(names, result),
            "plot": Markup(_rank_bars(names, result, "overall")) if result.critical else None,
        }
    families = comparison.families
    settings = sum(len(family.gain_table) for family in families)
    seeds = sorted({seed for f in families for s in f.gain_table for seed in s.setting.runs})
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
    more = len(family.pairs) > len(family.against)
    curve = _curves(family, key)
    defined = family.ranking.critical is not None
    sites = list(dict.fromkeys(change.site for change in family.sites))
    return {
        "key": key,
        "name": family.name,
        "label": m.label,
        "aim": m.aim,
        "view": VIEWS[family.view],
        "settings": settings_table(family),
        "against": _pairs(family.against, m.digits),
        "pairs": _pairs(family.pairs if more else (), m.digits),
        "scores": Markup(_scores(family, key)),
        "differences": Markup(_differences(family, key)) if family.against else None,
        "ranking": ranking_line(names, family.ranking),
        "ranks": Markup(_rank_bars(names, family.ranking, key)) if defined else None,
        "curves": Markup(curve) if curve else None,
        "legend": [(s.name, f"site-{i}") for i, s in enumerate(_coloured(family))],
        "site_lines": site_lines(family),
        "site_heads": names,
        "sites": [_site(site, family) for site in sites[:SITES]],
        "sites_more": max(len(sites) - SITES, 0),
    }


def _pairs(pairs: Sequence[Pair], digits: int) -> dict[str, Any]:
    """Return the table of pairs, and how the verdict of each looks."""
    heads, rows = pairs_table(pairs, digits)
    looks = ["same" if pair.verdict == "open" else pair.verdict for pair in pairs]
    return {"heads": heads, "rows": list(zip(rows, looks, strict=True))}


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


# Plots -----------------------------------------------------------------------------------


def _scores(family: Family, key: str) -> str:
    """Return one line per setting: a dot for each seed, a bar at their mean."""
    rows = list(reversed(family.gain_table))
    figure, axes = _figure([s.name for s in rows])
    for y, standing in enumerate(rows):
        values = list(standing.by_seed.values())
        colour = COLOUR["federated"]
        axes.plot(values, [y] * len(values), "o", color=colour, alpha=0.45, ms=6, mew=0)
        mean = sum(values) / len(values)
        axes.vlines(mean, y - 0.28, y + 0.28, color=COLOUR["ink"], lw=2.4, zorder=4)
    axes.set_xlabel(direction(family.metric))
    return svg_of(figure, f"scores-{key}", "Score of every setting, a dot for each seed")


def _differences(family: Family, key: str) -> str:
    """Return the mean difference of each setting to its reference with its 95 % range."""
    rows = list(reversed(family.against))
    figure, axes = _figure([pair.first for pair in rows])
    for y, pair in enumerate(rows):
        e = pair.effect
        colour = COLOUR["quiet" if pair.verdict == "open" else pair.verdict]
        if e.low is not None and e.high is not None:
            axes.hlines(y, e.low, e.high, color=colour, lw=2.4)
        axes.plot([e.mean], [y], "D", color=colour, ms=7, mew=0)
    axes.axvline(0, color=COLOUR["ink"], lw=0.9, zorder=0)
    axes.locator_params(axis="x", nbins=4)  # differences can be long numbers
    # Two seeds give ranges so wide that nothing else could be seen.
    reach = 3 * max((abs(pair.effect.mean) for pair in rows), default=0.0)
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, -2 * reach) if reach else low, min(high, 2 * reach) if reach else high)
    axes.set_xlabel(f"{family.metric.short} against {family.reference}, right of 0 is better")
    return svg_of(figure, f"differences-{key}", "Difference of every setting to its reference")


def _rank_bars(names: Sequence[str], result: Ranking, key: str) -> str:
    """Return average ranks; bars of one critical difference, so that those apart differ."""
    order = sorted(range(len(names)), key=lambda i: -result.mean[i])
    figure, axes = _figure([names[i] for i in order])
    half = (result.critical or 0.0) / 2
    for y, index in enumerate(order):
        mean = result.mean[index]
        axes.hlines(y, mean - half, mean + half, color=COLOUR["quiet"], lw=5, alpha=0.4)
        axes.plot([mean], [y], "o", color=COLOUR["federated"], ms=8, mew=0)
    axes.set_xlabel("average rank (1 is best)")
    return svg_of(figure, f"ranks-{key}", "Average rank of every setting, with critical difference")


def _curves(family: Family, key: str) -> str | None:
    """Return the validation metric over the megabytes exchanged; None where it is unknown."""
    drawn = [s for s in _coloured(family) if len(s.curve) > 1]
    quiet = [s for s in family.gain_table if s not in drawn and len(s.curve) > 1]
    if not drawn:
        return None
    figure, axes = figure_of(250, left=66)
    for standing in quiet:
        axes.plot(*zip(*standing.curve, strict=True), color=COLOUR["quiet"], lw=0.9, alpha=0.5)
    for index, standing in enumerate(drawn):
        axes.plot(*zip(*standing.curve, strict=True), color=COLOUR[f"site-{index}"], lw=1.8)
    axes.set_xlabel("MB exchanged, both ways")
    axes.set_ylabel(f"{family.metric.short}, validation")
    return svg_of(figure, f"curves-{key}", "Validation score against megabytes exchanged")


def _coloured(family: Family) -> list[Standing]:
    """Return the settings with a colour of their own: the best few, the best first."""
    sign = -family.metric.sign
    ordered = sorted(family.gain_table, key=lambda s: sign * (s.scores[family.view].mean or 0.0))
    return ordered[:COLOURED]


def _figure(names: Sequence[str]) -> tuple[Figure, Axes]:
    return rows_figure(names, 56 + 30 * max(len(names), 2), LONGEST)

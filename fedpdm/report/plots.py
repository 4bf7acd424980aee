"""The report's plots of sites and predictors: who gains, by how much, and how surely."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from fedpdm.baselines.registry import Baseline
from fedpdm.evaluation.wording import direction
from fedpdm.report.gain_table import GainRow, GainTable
from fedpdm.report.page import COLOUR, figure_of, rows_figure, svg_of
from fedpdm.report.page import LABELLED as LABELLED
from fedpdm.report.page import LISTED as LISTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KEYS = {
    "|": '<path d="M10 1v12" stroke="var(--{})" stroke-width="2.4"/>',
    "o": '<circle cx="10" cy="7" r="5.6" fill="var(--{})"/>',
    "D": '<path d="M10 1l6 6-6 6-6-6z" fill="var(--{})"/>',
    "^": '<path d="M10 1.5l6 11H4z" fill="var(--{})"/>',
    "v": '<path d="M10 12.5l6-11H4z" fill="var(--{})"/>',
    "s": '<path d="M5 2h10v10H5z" fill="var(--{})"/>',
    "P": '<path d="M8 2h4v3h3v4h-3v3H8V9H5V5h3z" fill="var(--{})"/>',
}
"""Matplotlib's markers as SVG for a legend of 20 by 14; ``{}`` stands for a colour."""
HOLLOW = 'fill="none" stroke-width="2" stroke='
RING = '<circle cx="10" cy="7" r="4.4" fill="none" stroke="var(--{})" stroke-width="2.4"/>'


def sites(table: GainTable) -> Markup:
    """Return one line per site: every predictor's metric, best alone and federated joined."""
    known = [row for row in table.rows if any(v is not None for v in row.values.values())]
    rows = known[::-1]
    pitch = 44 if len(rows) <= LABELLED else 28
    figure, axes = rows_figure([row.name for row in rows], 52 + pitch * max(len(rows), 2))
    for y, row in enumerate(rows):
        alone, federated = row.values.get(table.against), row.values.get("federated")
        if alone is not None and federated is not None:
            colour = COLOUR[row.verdict] if row.verdict in ("better", "worse") else COLOUR["quiet"]
            axes.plot([alone, federated], [y, y], color=colour, lw=3.5, solid_capstyle="butt")
        for name, shown in table.columns.items():
            value = row.values[name]
            if value is not None:
                # What the site cannot have or need not train stands a little lower, so
                # that close scores do not hide each other.
                joined = name in (table.against, "federated")
                _mark(axes, shown, value, y if joined else y - 0.3, 4 if name == "federated" else 3)
    axes.set_xlabel(direction(table.metric))
    return svg_of(figure, "sites", "Every predictor's score at each site")


def confidence(table: GainTable) -> Markup:
    """Return one line per site: its gain, and between which values it lies."""
    rows = sorted((r for r in table.rows if r.gain is not None), key=lambda r: r.gain or 0.0)
    if len(rows) > 1 and table.mean.gain is not None:
        rows = [table.mean, *rows]
    pitch = 34 if len(rows) <= LABELLED else 24
    figure, axes = rows_figure([row.name for row in rows], 58 + pitch * max(len(rows), 2))
    for y, row in enumerate(rows):
        colour, gain = COLOUR[_certain(row)], row.gain or 0.0
        if row.interval is not None:
            axes.hlines(y, *row.interval, color=colour, lw=2.6)
        axes.plot([gain], [y], "D" if row is table.mean else "o", color=colour, ms=8, mew=0)
    axes.axvline(0, color=COLOUR["ink"], lw=0.9, zorder=0)
    if len(rows) > 1 and rows[0] is table.mean:
        axes.axhline(0.5, color=COLOUR["quiet"], lw=0.8, ls=(0, (2, 3)))
    axes.set_xlabel(f"gain in {table.metric.short} (right of 0: better)")
    return svg_of(figure, "confidence", "Gain of each site with its 95 % interval")


def gains(table: GainTable) -> Markup:
    """Return the gains in order with their intervals, for federations too large for names."""
    rows = sorted((r for r in table.rows if r.gain is not None), key=lambda r: -(r.gain or 0.0))
    figure, axes = figure_of(250)
    for x, row in enumerate(rows, start=1):
        colour = COLOUR[_certain(row)]
        if row.interval is not None:
            axes.vlines(x, *row.interval, color=colour, lw=1.6, alpha=0.75)
        axes.plot([x], [row.gain or 0.0], "o", color=colour, ms=3.5, mew=0)
    axes.axhline(0, color=COLOUR["ink"], lw=0.8)
    axes.grid(axis="x", visible=False)
    axes.set(xlabel="sites, largest gain first", ylabel=f"gain in {table.metric.short}")
    return svg_of(figure, "gains", "Gain of each site with its 95 % interval, in order")


def spread(table: GainTable) -> Markup:
    """Return how each predictor's metric spreads over many sites."""
    import numpy as np

    known = [
        (shown, values)
        for name, shown in table.columns.items()
        if (values := [v for row in table.rows if (v := row.values[name]) is not None])
    ][::-1]
    figure, axes = rows_figure([shown.heading for shown, _ in known], 250)
    for y, (shown, values) in enumerate(known):
        low, first, middle, third, high = np.percentile(values, (5, 25, 50, 75, 95))
        colour = COLOUR[shown.colour]
        axes.hlines(y, low, high, color=colour, lw=1.4)
        axes.barh(y, third - first, 0.5, first, color=colour, alpha=0.4)
        axes.vlines(middle, y - 0.25, y + 0.25, color=COLOUR["ink"], lw=2.2)
    axes.set_xlabel(direction(table.metric))
    return svg_of(figure, "spread", "Spread of every predictor over the sites")


def key_of(shown: Baseline) -> Markup:
    """Return a predictor's mark for a legend: what stands inside an ``<svg>`` of 20 by 14."""
    mark = KEYS.get(shown.marker, KEYS["P"])
    if shown.hollow:
        mark = RING if shown.marker == "o" else mark.replace("fill=", HOLLOW)
    return Markup(mark).format(shown.colour)


def _mark(axes: Axes, shown: Baseline, value: float, y: float, layer: int) -> None:
    line = shown.marker == "|"
    axes.plot(
        [value],
        [y],
        shown.marker,
        color=COLOUR[shown.colour],
        markerfacecolor=COLOUR["paper" if shown.hollow else shown.colour],
        markeredgewidth=2.0 if shown.hollow or line else 0.0,
        markersize=11.0 if line else 9.0 if layer == 4 else 7.0,
        zorder=layer,
    )


def _certain(row: GainRow) -> str:
    """Return the name of the colour of a gain: that of chance, unless it is sure or unasked."""
    known = row.verdict in ("better", "worse") and row.sure is not False and not row.unsure
    return row.verdict if known else "quiet"

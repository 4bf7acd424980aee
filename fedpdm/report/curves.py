"""The report's plots over rounds, and of risks, alarms and intervals of remaining life."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from fedpdm.evaluation.wording import Metric
from fedpdm.report.page import (
    COLOUR,
    LABELLED,
    LISTED,
    figure_of,
    part_of,
    rows_figure,
    svg_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Record = Mapping[str, Any]
Path = tuple[str, ...]
"""Keys from a record down to a value."""

BACK = frozenset({"rollback", "stopped"})
LOST = frozenset({"refused", "site-failed", "timeout"})
"""Kinds of events that are marked in the plots."""


def rounds(
    records: Sequence[Record],
    events: Sequence[Record],
    chosen: Metric,
    sites: Sequence[str],
    best: int | None,
) -> list[Markup]:
    """Return the validation metric and the loss over the rounds.

    Sites are thin lines, their mean a thick one; undone rounds are dotted.

    Args:
        records: the history's rounds that trained, in the order of training.
        events: what happened in them.
        chosen: the metric that chose the round.
        sites: their names.
        best: number of the chosen round.
    """
    kept = [r for r in records if not r.get("undone")]
    drawn = []
    for name, path, label, title in (
        (chosen.name, ("validation", chosen.name), f"validation {chosen.short}",
         f"Validation {chosen.label} over the rounds"),
        ("train_loss", ("train_loss",), "loss", "Loss over the rounds"),
    ):  # fmt: skip
        figure, axes = figure_of(250, left=62)
        _sites(axes, kept, sites, path)
        if name == "train_loss":
            _line(axes, kept, ("metrics", "validation_loss"), "--", color=COLOUR["ink"], lw=2.6)
        _line(axes, kept, ("metrics", name), "-", color=COLOUR["federated"], lw=2.6)
        # What was taken back may be off by orders of magnitude: it must not set the scale.
        low, high = axes.get_ylim()
        for before, record in pairwise(({"round": None}, *records)):
            if record.get("undone"):
                follows = before["round"] == record["round"] - 1
                run = [before, record] if follows else [record]
                _line(axes, run, ("metrics", name), ":", color=COLOUR["quiet"], lw=2.6)
        axes.set_ylim(low, high)
        _marks(axes, events, best)
        axes.set_ylabel(label)
        drawn.append(svg_of(figure, "loss" if name == "train_loss" else "metric", title))
    return drawn


def traffic(records: Sequence[Record]) -> Markup:
    """Return the bytes up and down in every round, undone rounds included."""
    figure, axes = figure_of(200, left=62)
    x = range(1, len(records) + 1)
    up = [(r.get("bytes_up") or 0) / 1e6 for r in records]
    down = [(r.get("bytes_down") or 0) / 1e6 for r in records]
    axes.bar(x, up, width=0.8, color=COLOUR["federated"])
    axes.bar(x, [-d for d in down], width=0.8, color=COLOUR["pooled"])
    axes.axhline(0, color=COLOUR["ink"], lw=0.8)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axes.set_xlim(0.4, len(records) + 0.6)
    _whole_numbers(axes)
    axes.set(xlabel="round, in the order of training", ylabel="MB")
    return svg_of(figure, "traffic", "Megabytes from the sites and to the sites, per round")


def site_colour(index: int, count: int) -> str:
    """Return the name of a site's colour in the plots of the rounds."""
    return f"site-{index}" if count <= LABELLED else "quiet"


def _sites(axes: Axes, records: Sequence[Record], sites: Sequence[str], path: Path) -> None:
    """Draw a line for each site, or where eight of ten lie: a hundred lines say less."""
    if len(sites) > LISTED:
        _band(axes, records, sites, path)
        return
    look = {"lw": 1.3} if len(sites) <= LABELLED else {"lw": 0.6, "alpha": 0.45}
    for index, site in enumerate(sites):
        colour = COLOUR[site_colour(index, len(sites))]
        _line(axes, records, ("sites", site, *path), "-", color=colour, **look)


def _band(axes: Axes, records: Sequence[Record], sites: Sequence[str], path: Path) -> None:
    import numpy as np

    of_rounds = {r["round"]: [_finite(r, "sites", site, *path) for site in sites] for r in records}
    known = {n: found for n, of in of_rounds.items() if (found := [v for v in of if v is not None])}
    if known:
        low, high = np.array([np.percentile(values, (10, 90)) for values in known.values()]).T
        axes.fill_between(list(known), low, high, color=COLOUR["quiet"], alpha=0.25, lw=0)


def _line(axes: Axes, records: Sequence[Record], path: Path, style: str, **look: Any) -> None:
    """Draw the value at a path of each record over the rounds; one value alone is a dot."""
    points = [(r["round"], v) for r in records if (v := _finite(r, *path)) is not None]
    if points:
        marker = "." if len(points) == 1 else None
        axes.plot(*zip(*points, strict=True), style, marker=marker, **look)


def _marks(axes: Axes, events: Sequence[Record], best: int | None) -> None:
    """Mark the chosen round, rollbacks, and rounds where an update was missing."""
    top = axes.get_xaxis_transform()
    if best:
        axes.axvline(best, color=COLOUR["federated"], lw=1, alpha=0.7, zorder=0)
        axes.plot([best], [1.0], "v", color=COLOUR["federated"], transform=top, clip_on=False, ms=7)
    for number in _rounds_of(events, BACK):
        axes.axvline(number, color=COLOUR["worse"], lw=1.2, ls=(0, (4, 3)), zorder=0)
    lost = _rounds_of(events, LOST)
    axes.plot(
        lost, [0.0] * len(lost), "X", color=COLOUR["worse"], transform=top,
        clip_on=False, ms=8, mew=0, zorder=5,
    )  # fmt: skip
    axes.set_xlim(left=max(axes.get_xlim()[0], 0.5))
    _whole_numbers(axes)
    axes.set_xlabel("round")


def _rounds_of(events: Sequence[Record], kinds: frozenset[str]) -> list[int]:
    return sorted({e["round"] for e in events if e.get("kind") in kinds and e.get("round")})


def _finite(record: Record, *path: str) -> float | None:
    # A poisoned round's loss is infinite or NaN: there is nothing to draw then.
    value = part_of(record, *path)
    return float(value) if isinstance(value, int | float) and abs(value) < 1e30 else None


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))


def reliability(curves: Mapping[str, Sequence[Record]], names: Mapping[str, str]) -> Markup:
    """Return predicted risk against the share that failed, one line per risk.

    Args:
        curves: by risk, points with ``score``, ``share`` and ``n``.
        names: by risk, the name of its colour.
    """
    figure, axes = figure_of(310, left=68)
    axes.plot([0, 1], [0, 1], color=COLOUR["quiet"], lw=1.2, ls=(0, (4, 3)))
    most = max((p["n"] for points in curves.values() for p in points), default=1.0)
    reach = 0.0
    for key, points in curves.items():
        said, true = [p["score"] for p in points], [p["share"] for p in points]
        colour = COLOUR[names[key]]
        axes.plot(said, true, color=colour, lw=1.2, alpha=0.7)
        sizes = [14 + 50 * p["n"] / most for p in points]
        axes.scatter(said, true, s=sizes, color=colour, linewidths=0, zorder=3)
        reach = max(reach, *said, *true) if points else reach
    # Rare failures leave all of it in a corner: the page zooms to what there is.
    end = min(1.0, max(0.05, 1.08 * reach))
    axes.set(xlim=(-0.02 * end, end), ylim=(-0.02 * end, end))
    axes.xaxis.set_major_formatter(_percent)
    axes.yaxis.set_major_formatter(_percent)
    axes.set(xlabel="predicted risk", ylabel="share that did fail")
    return svg_of(figure, "reliability", "Predicted risk against the share that did fail")


def alarm_plots(
    curve: Sequence[Record], chosen: Record | None, period: str, unit: str
) -> list[Markup]:
    """Return failures warned of, and time to act, against false alarm episodes.

    Args:
        curve: what each threshold would do: ``alarms.curve`` of summary.json.
        chosen: ``alarms.global``, the alarms of the chosen thresholds.
        period: over which false episodes are counted.
        unit: of time.
    """
    marked = {**(chosen or {}), "median_lead": part_of(chosen, "lead_time", "median")}
    drawn = []
    for key, label, title in (
        ("event_recall", "failures warned of", "Share of failures warned of"),
        ("median_lead", f"lead time, {unit}", "Time to act"),
    ):
        figure, axes = figure_of(240, left=68)
        _against(axes, curve, key, ".-", color=COLOUR["alone"], lw=1.6, ms=6)
        _against(axes, [marked], key, "D", color=COLOUR["federated"], ms=10, mew=0, zorder=4)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        if key == "event_recall":
            axes.set_ylim(0, 1.05)
            axes.yaxis.set_major_formatter(_percent)
        axes.set(xlabel=f"false alarms per {period}", ylabel=label)
        drawn.append(svg_of(figure, f"alarms-{key}", f"{title} against false alarms"))
    return drawn


def _against(axes: Axes, points: Sequence[Record], key: str, style: str, **look: Any) -> None:
    pairs = [(p.get("false_per_period"), p.get(key)) for p in points]
    known = [pair for pair in pairs if None not in pair]
    if known:
        axes.plot(*zip(*known, strict=True), style, **look)


def coverage(rows: Mapping[str, Record], level: float) -> Markup:
    """Return each site's share of true lives inside its intervals, and the promised share.

    Args:
        rows: by site ``coverage`` and ``coverage_interval``, few enough for names.
        level: promised.
    """
    names = list(rows)[::-1]
    figure, axes = rows_figure(names, 58 + 24 * max(len(names), 2))
    for y, name in enumerate(names):
        if ends := rows[name].get("coverage_interval"):
            axes.hlines(y, *ends, color=COLOUR["quiet"], lw=2.6)
        axes.plot([rows[name]["coverage"]], [y], "o", color=COLOUR["federated"], ms=8, mew=0)
    axes.axvline(level, color=COLOUR["ink"], lw=1.2, ls=(0, (4, 3)), zorder=0)
    axes.set_xlim(right=1.02)
    axes.xaxis.set_major_formatter(_percent)
    axes.set_xlabel("true lives inside the interval")
    return svg_of(figure, "coverage", "Share of true lives inside the predicted interval")


def _percent(value: float, _: object) -> str:
    return f"{100 * value:.3g} %"

"""The report's plots of risks, alarms and intervals of remaining life."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedpdm.report.drawing import COLOUR, figure_of, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Record = Mapping[str, Any]


def reliability(curves: Mapping[str, Sequence[Record]], names: Mapping[str, str]) -> str:
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
    axes.set_xlim(-0.02 * end, end)
    axes.set_ylim(-0.02 * end, end)
    _percents(axes, both=True)
    axes.set_xlabel("predicted risk")
    axes.set_ylabel("share that did fail")
    return svg_of(figure, "reliability", "Predicted risk against the share that did fail")


def alarm_plots(
    curve: Sequence[Record], chosen: Record | None, period: str, unit: str
) -> tuple[str, str]:
    """Return failures warned of, and time to act, against false alarm episodes.

    Args:
        curve: what each threshold would do: ``alarms.curve`` of summary.json.
        chosen: ``alarms.global``, the alarms of the chosen thresholds.
        period: over which false episodes are counted.
        unit: of time.
    """
    marked = dict(chosen or {})
    marked["median_lead"] = (marked.get("lead_time") or {}).get("median")
    drawn = []
    for key, label, title in (
        ("event_recall", "failures warned of", "Share of failures warned of"),
        ("median_lead", f"lead time, {unit}", "Time to act"),
    ):
        figure, axes = figure_of(240, left=68)
        points = [
            (p["false_per_period"], p[key])
            for p in curve
            if p.get("false_per_period") is not None and p.get(key) is not None
        ]
        if points:
            axes.plot(*zip(*points, strict=True), ".-", color=COLOUR["alone"], lw=1.6, ms=6)
        x, y = marked.get("false_per_period"), marked.get(key)
        if x is not None and y is not None:
            axes.plot([x], [y], "D", color=COLOUR["federated"], ms=10, mew=0, zorder=4)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        if key == "event_recall":
            axes.set_ylim(0, 1.05)
            _percents(axes)
        axes.set_xlabel(f"false alarms per {period}")
        axes.set_ylabel(label)
        drawn.append(svg_of(figure, f"alarms-{key}", f"{title} against false alarms"))
    return drawn[0], drawn[1]


def coverage(rows: Sequence[tuple[str, Record]], level: float) -> str:
    """Return each site's share of true lives inside its intervals, and the promised share.

    Args:
        rows: (site, ``coverage`` and ``coverage_interval``), few enough for names.
        level: promised.
    """
    rows = [(name, r) for name, r in reversed(rows) if r.get("coverage") is not None]
    longest = max((len(name) for name, _ in rows), default=0)
    figure, axes = figure_of(
        58 + 24 * max(len(rows), 2), left=20 + round(7.4 * min(longest, 18)), top=6
    )
    for y, (_, row) in enumerate(rows):
        ends = row.get("coverage_interval")
        if ends:
            axes.hlines(y, *ends, color=COLOUR["quiet"], lw=2.6)
        axes.plot([row["coverage"]], [y], "o", color=COLOUR["federated"], ms=8, mew=0)
    axes.axvline(level, color=COLOUR["ink"], lw=1.2, ls=(0, (4, 3)), zorder=0)
    axes.set_yticks(range(len(rows)), [n if len(n) <= 18 else n[:17] + "…" for n, _ in rows])
    axes.set_ylim(-0.7, max(len(rows), 2) - 0.3)
    axes.set_xlim(right=1.02)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(_percent)
    axes.set_xlabel("true lives inside the interval")
    return svg_of(figure, "coverage", "Share of true lives inside the predicted interval")


def _percents(axes: Axes, both: bool = False) -> None:
    axes.yaxis.set_major_formatter(_percent)
    if both:
        axes.xaxis.set_major_formatter(_percent)


def _percent(value: float, _: object) -> str:
    return f"{100 * value:.3g} %"

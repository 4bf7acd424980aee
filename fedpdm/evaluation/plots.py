"""The report's plots, as SVG that takes its colours from the page (light, dark, print).

Figures are drawn for the width of a phone and scale up; text stays text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedpdm.evaluation.drawing import COLOUR, figure_of, svg_of
from fedpdm.evaluation.standings import COLUMNS, Standings
from fedpdm.evaluation.wording import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Record = Mapping[str, Any]

MARKER = {
    "trivial": "|", "alone": "o", "federated": "o", "pooled": "D", "hgb": "^", "minirocket": "v",
    "rules": "s",
}  # fmt: skip
LABELLED = 6
"""Up to this many plants are drawn in colours of their own."""
BACK = frozenset({"rollback", "stopped"})
LOST = frozenset({"refused", "site-failed", "timeout"})
"""Kinds of events that are marked in the plots of the rounds."""
LISTED = 24
"""Up to this many plants get a line of their own in the comparison."""


def plants(table: Standings) -> str:
    """Return one line per plant: every predictor's metric, alone and federated joined."""
    rows = [row for row in table.rows if any(v is not None for v in row.values.values())]
    pitch = 44 if len(rows) <= LABELLED else 28
    height = 52 + pitch * max(len(rows), 2)
    figure, axes = figure_of(height, left=_room([row.name for row in rows]), bottom=42, top=6)
    for y, row in enumerate(reversed(rows)):
        alone, federated = row.values.get("alone"), row.values.get("federated")
        if alone is not None and federated is not None:
            colour = COLOUR[row.verdict] if row.verdict in ("better", "worse") else COLOUR["quiet"]
            axes.plot([alone, federated], [y, y], color=colour, lw=3.5, solid_capstyle="butt")
        for name in table.columns:
            value = row.values[name]
            if value is not None:
                # What the plant cannot have or need not train stands a little lower, so
                # that close scores do not hide each other.
                _mark(axes, name, value, y if name in ("alone", "federated") else y - 0.3)
    axes.set_yticks(range(len(rows)), [_short(row.name) for row in reversed(rows)])
    axes.set_ylim(-0.75, max(len(rows), 1) - 0.45)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(_direction(table.metric))
    return svg_of(figure, "plants", "Every predictor's score at each plant")


def gains(table: Standings) -> str:
    """Return the plants' gains in order of size, for federations too large for names."""
    rows = sorted((r for r in table.rows if r.gain is not None), key=lambda r: -(r.gain or 0.0))
    figure, axes = figure_of(250)
    values = [row.gain or 0.0 for row in rows]
    colours = [COLOUR["better" if v > 0 else "worse"] for v in values]
    axes.bar(range(1, len(values) + 1), values, width=0.85, color=colours)
    axes.axhline(0, color=COLOUR["ink"], lw=0.8)
    axes.set_xlabel("plants, largest gain first")
    axes.set_ylabel(f"gain in {table.metric.short}")
    return svg_of(figure, "gains", "Gain of each plant from the shared model, in order")


def spread(table: Standings) -> str:
    """Return how each predictor's metric spreads over many plants."""
    import numpy as np

    names = [n for n in table.columns if any(row.values[n] is not None for row in table.rows)]
    figure, axes = figure_of(250, left=78)
    for y, name in enumerate(reversed(names)):
        values = [v for row in table.rows if (v := row.values[name]) is not None]
        low, first, middle, third, high = np.percentile(values, (5, 25, 50, 75, 95))
        axes.hlines(y, low, high, color=COLOUR[name], lw=1.4)
        axes.barh(y, third - first, 0.5, first, color=COLOUR[name], alpha=0.4)
        axes.vlines(middle, y - 0.25, y + 0.25, color=COLOUR["ink"], lw=2.2)
    axes.set_yticks(range(len(names)), [COLUMNS[n] for n in reversed(names)])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(_direction(table.metric))
    return svg_of(figure, "spread", "Spread of every predictor over the plants")


def rounds(
    records: Sequence[Record],
    events: Sequence[Record],
    chosen: Metric,
    sites: Sequence[str],
    best: int | None,
) -> tuple[str, str]:
    """Return the validation metric and the loss over the rounds.

    Plants are thin lines, their mean a thick one; undone rounds are dotted.
    """
    drawn = []
    for name, value_of in (
        (chosen.name, lambda r, s: _of_site(r, s, "validation", chosen.name)),
        ("train_loss", lambda r, s: _of_site(r, s, "train_loss")),
    ):
        figure, axes = figure_of(250, left=52)
        kept = [r for r in records if not r.get("undone")]
        _lines(axes, kept, sites, value_of)
        if name == "train_loss":
            _mean_line(axes, kept, "validation_loss", "--", COLOUR["ink"])
        _mean_line(axes, kept, name, "-", COLOUR["federated"])
        # What was taken back may be off by orders of magnitude: it must not set the scale.
        low, high = axes.get_ylim()
        for run in _undone_runs(records):
            _mean_line(axes, run, name, ":", COLOUR["quiet"])
        axes.set_ylim(low, high)
        _marks(axes, events, best)
        axes.set_ylabel("loss" if name == "train_loss" else f"validation {chosen.short}")
        drawn.append(figure)
    return (
        svg_of(drawn[0], "metric", f"Validation {chosen.label} over the rounds"),
        svg_of(drawn[1], "loss", "Loss over the rounds"),
    )


def traffic(records: Sequence[Record]) -> str:
    """Return the bytes up and down in every round, undone rounds included."""
    figure, axes = figure_of(200, left=52)
    x = range(1, len(records) + 1)
    up = [(r.get("bytes_up") or 0) / 1e6 for r in records]
    down = [(r.get("bytes_down") or 0) / 1e6 for r in records]
    axes.bar(x, up, width=0.8, color=COLOUR["federated"])
    axes.bar(x, [-d for d in down], width=0.8, color=COLOUR["pooled"])
    axes.axhline(0, color=COLOUR["ink"], lw=0.8)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axes.set_xlim(0.4, len(records) + 0.6)
    _whole_numbers(axes)
    axes.set_xlabel("round, in the order of training")
    axes.set_ylabel("MB")
    return svg_of(figure, "traffic", "Megabytes from the plants and to the plants, per round")


def site_colour(index: int, count: int) -> str:
    """Return the name of a plant's colour in the plots of the rounds."""
    return f"site-{index}" if count <= LABELLED else "quiet"


def _lines(axes: Axes, records: Sequence[Record], sites: Sequence[str], value: Any) -> None:
    if len(sites) > LISTED:
        _band(axes, records, sites, value)
        return
    for index, site in enumerate(sites):
        points = [(r["round"], v) for r in records if (v := value(r, site)) is not None]
        if points:
            few = len(sites) <= LABELLED
            axes.plot(
                *zip(*points, strict=True),
                color=COLOUR[site_colour(index, len(sites))],
                lw=1.3 if few else 0.6,
                alpha=1.0 if few else 0.45,
                marker="." if len(points) == 1 else None,
            )


def _band(axes: Axes, records: Sequence[Record], sites: Sequence[str], value: Any) -> None:
    """Draw where eight of ten plants lie: a hundred lines say less and weigh more."""
    import numpy as np

    known = [
        (record["round"], values)
        for record in records
        if (values := [v for site in sites if (v := value(record, site)) is not None])
    ]
    if known:
        low, high = np.array([np.percentile(values, (10, 90)) for _, values in known]).T
        numbers = [number for number, _ in known]
        axes.fill_between(numbers, low, high, color=COLOUR["quiet"], alpha=0.25, lw=0)


def _mean_line(axes: Axes, records: Sequence[Record], name: str, style: str, colour: str) -> None:
    points = [
        (r["round"], v)
        for r in records
        if (v := _finite((r.get("metrics") or {}).get(name))) is not None
    ]
    if points:
        marker = "." if len(points) == 1 else None
        axes.plot(*zip(*points, strict=True), style, color=colour, lw=2.6, marker=marker)


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


def _undone_runs(records: Sequence[Record]) -> list[list[Record]]:
    """Return each stretch of undone rounds, with the kept round that it left from."""
    runs: list[list[Record]] = []
    before: Record | None = None
    for record in records:
        if record.get("undone"):
            follows = before is not None and record["round"] == before["round"] + 1
            if before is not None and before.get("undone") and follows:
                runs[-1].append(record)
            else:
                runs.append([before, record] if before is not None and follows else [record])
        before = record
    return runs


def _of_site(record: Record, site: str, *path: str) -> float | None:
    value: Any = (record.get("sites") or {}).get(site)
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return _finite(value)


def _finite(value: Any) -> float | None:
    # A poisoned round's loss is infinite or NaN: there is nothing to draw then.
    return float(value) if isinstance(value, int | float) and abs(value) < 1e30 else None


def _mark(axes: Axes, name: str, value: float, y: float) -> None:
    hollow = name == "alone"
    size = {"federated": 9.0, "trivial": 11.0}.get(name, 7.0)
    axes.plot(
        [value],
        [y],
        MARKER[name],
        color=COLOUR[name],
        markerfacecolor=COLOUR["paper" if hollow else name],
        markeredgewidth=2.0 if hollow or name == "trivial" else 0.0,
        markersize=size,
        zorder=4 if name == "federated" else 3,
    )


def _direction(chosen: Metric) -> str:
    return f"{chosen.label} ({'higher' if chosen.higher_is_better else 'lower'} is better)"


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _room(names: Sequence[str]) -> int:
    return 18 + round(6.6 * max((len(_short(name)) for name in names), default=0))

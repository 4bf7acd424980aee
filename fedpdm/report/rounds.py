"""The report's plots over the rounds: the metric, the loss, the bytes exchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedpdm.evaluation.wording import Metric
from fedpdm.report.drawing import COLOUR, figure_of, svg_of
from fedpdm.report.plots import LABELLED, LISTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Record = Mapping[str, Any]

BACK = frozenset({"rollback", "stopped"})
LOST = frozenset({"refused", "site-failed", "timeout"})
"""Kinds of events that are marked in the plots."""


def rounds(
    records: Sequence[Record],
    events: Sequence[Record],
    chosen: Metric,
    sites: Sequence[str],
    best: int | None,
) -> tuple[str, str]:
    """Return the validation metric and the loss over the rounds.

    Sites are thin lines, their mean a thick one; undone rounds are dotted.
    """
    drawn = []
    for name, value_of in (
        (chosen.name, lambda r, s: _of_site(r, s, "validation", chosen.name)),
        ("train_loss", lambda r, s: _of_site(r, s, "train_loss")),
    ):
        figure, axes = figure_of(250, left=62)
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
    axes.set_xlabel("round, in the order of training")
    axes.set_ylabel("MB")
    return svg_of(figure, "traffic", "Megabytes from the sites and to the sites, per round")


def site_colour(index: int, count: int) -> str:
    """Return the name of a site's colour in the plots of the rounds."""
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
    """Draw where eight of ten sites lie: a hundred lines say less and weigh more."""
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


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))

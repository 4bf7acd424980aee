"""The comparison's plots: scores, differences, ranks, and what a score costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedpdm.comparison.comparison import Ranking
from fedpdm.comparison.result import Family
from fedpdm.comparison.scores import Standing
from fedpdm.evaluation.wording import direction
from fedpdm.report.page import COLOUR, figure_of, rows_figure, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURED = 6
"""Up to this many settings have a colour of their own."""
LONGEST = 26
"""Characters of a name that are drawn."""


def scores(family: Family, key: str) -> str:
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


def differences(family: Family, key: str) -> str:
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


def rank_bars(names: Sequence[str], result: Ranking, key: str) -> str:
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


def curves(family: Family, key: str) -> str | None:
    """Return the validation metric over the megabytes exchanged; None where it is unknown."""
    drawn = [s for s in coloured(family) if len(s.curve) > 1]
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


def coloured(family: Family) -> list[Standing]:
    """Return the settings with a colour of their own: the best few, the best first."""
    sign = -1.0 if family.metric.higher_is_better else 1.0
    known = [s for s in family.gain_table if s.scores[family.view].mean is not None]
    ordered = sorted(known, key=lambda s: sign * (s.scores[family.view].mean or 0.0))
    return list(ordered[:COLOURED])


def _figure(names: Sequence[str]) -> tuple[Figure, Axes]:
    return rows_figure(names, 56 + 30 * max(len(names), 2), LONGEST)

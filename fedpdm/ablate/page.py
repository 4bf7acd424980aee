"""The HTML page of an ablation: one self-contained file."""

from __future__ import annotations

from fedpdm.ablate.output import (
    GLOSSARY,
    SHOWN,
    conclusion,
    groups_table,
    remarks,
    sites_table,
    told_apart,
)
from fedpdm.ablate.result import Ablation
from fedpdm.ablate.scores import WHOLE
from fedpdm.evaluation.wording import number
from fedpdm.report.page import COLOUR, render_page, rows_figure, svg_of

LONGEST = 26
"""Characters of a name that are drawn."""


def render_ablation(ablation: Ablation) -> str:
    """Return the ablation as HTML."""
    m, how = ablation.metric, ablation.hows[0]
    seeds = ", ".join(map(str, ablation.runs))
    best = next(iter(ablation.baselines.items()), None)
    return render_page(
        "ablation.html.j2",
        conclusion=conclusion(ablation),
        remarks=remarks(ablation),
        tiles=[
            ("With all sensors", number(ablation.spread().mean, m.digits), m.label),
            ("Best baseline", number(best[1], m.digits) if best else "–", best[0] if best else ""),
            ("Groups", str(len(ablation.groups)), "of sensors"),
            ("Seeds", str(len(ablation.runs)), seeds if len(ablation.runs) <= 12 else ""),
        ],
        how=how,
        groups=groups_table(ablation),
        members=[(name, ", ".join(sensors)) for name, sensors in ablation.groups.items()],
        sites=sites_table(ablation),
        falls=_figure(ablation),
        glossary=GLOSSARY,
    )


def _figure(ablation: Ablation) -> str:
    """Return the mean fall of each group with its 95 % range."""
    rows = list(reversed(ablation.at(WHOLE, ablation.hows[0])[:SHOWN]))
    figure, axes = rows_figure([f.group for f in rows], 56 + 24 * max(len(rows), 2), LONGEST)
    for y, fall in enumerate(rows):
        e = fall.effect
        colour = COLOUR["federated" if told_apart(fall) else "quiet"]
        if e.low is not None and e.high is not None:
            axes.hlines(y, e.low, e.high, color=colour, lw=2.4)
        axes.plot([e.mean], [y], "D", color=colour, ms=6, mew=0)
    axes.axvline(0, color=COLOUR["ink"], lw=0.9, zorder=0)
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel(f"fall of {ablation.metric.short} without the group")
    return svg_of(figure, "falls", "Fall of the score without each group of sensors")

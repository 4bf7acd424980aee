"""Section on simulated time: the score over hours and megabytes, and what became of messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from fedpdm.evaluation.wording import Metric, duration, size
from fedpdm.report.page import COLOUR, figure_of, svg_of
from fedpdm.report.sections import Page, register_section
from fedpdm.server.clock import MESSAGES, SIMULATED

Record = Mapping[str, Any]

TEMPLATE = """{% if simulated %}<section aria-labelledby="simulated">
<h2 id="simulated">Simulated time</h2>
<p>{{ simulated.said }} Bytes are those of training; evaluation takes no simulated time.</p>
<div class="two">
{% for caption, figure in simulated.figures %}<figure>
<figcaption>{{ caption }}</figcaption>
{{ figure }}
</figure>
{% endfor %}</div>
</section>{% endif %}
"""


@register_section("simulated", template=TEMPLATE, links={"simulated": "Simulated time"}, order=42)
def _simulated(page: Page) -> dict[str, Any]:
    """Return the score over simulated time and over bytes; None without a virtual clock."""
    if (told := said(page.summary)) is None:
        return {"simulated": None}
    kept = [record for record in page.rounds if not record.get("undone")]
    metric = page.table.metric
    axes = (
        ("hours", f"{SIMULATED}seconds", 3600.0, "simulated hours"),
        ("megabytes", f"{MESSAGES}bytes", 1e6, "MB of training messages"),
    )
    figures = [
        (f"Validation {metric.label} over {label}", curve(kept, metric, key, unit, label, name))
        for name, key, unit, label in axes
    ]
    return {"simulated": {"said": told, "figures": figures}}


def curve(
    records: Sequence[Record], metric: Metric, key: str, unit: float, label: str, name: str
) -> Markup:
    """Return the validation metric over what stands under a key of the rounds' metrics."""
    figure, axes = figure_of(220, left=62)
    points = [
        (said[key] / unit, said[metric.name])
        for record in records
        if (said := record["metrics"]).get(metric.name) is not None and key in said
    ]
    if points:
        axes.plot(*zip(*points, strict=True), ".-", color=COLOUR["federated"], lw=2.0, ms=4)
    axes.set_xlim(left=0)
    axes.set(xlabel=label, ylabel=f"validation {metric.short}")
    return svg_of(figure, f"simulated-{name}", f"Validation {metric.label} over {label}")


def said(summary: Record) -> str | None:
    """Return how long a run took on a virtual clock, and its messages; None without one."""
    found = summary.get("simulated")
    if not found:
        return None
    best, counts = found["best_round"], found["messages"]
    lost = ", ".join(
        f"{counts[name]:.0f} {name.replace('_', ' ')}"
        for name in ("late", "dropped", "duplicate")
        if counts.get(name)
    )
    return (
        f"Simulated time: {duration(found['seconds'])} and {size(found['bytes'])}; round "
        f"{summary['best_round']} was there after {duration(best['seconds'])} and "
        f"{size(best['bytes'])}. Of {counts['sent']:.0f} messages {counts['received']:.0f} were "
        f"answered in time{f' ({lost})' if lost else ''}."
    )

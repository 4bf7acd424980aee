"""Section on what each site brought to the shared model, where a run was asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedpdm.evaluation.wording import Metric, counted, listing, metric, number
from fedpdm.report.sections import Page, register_section

TEMPLATE = """{% if contribution %}<section aria-labelledby="contribution">
<h2 id="contribution">What each site brought</h2>
<p>{{ contribution.said }}</p>
<div class="scroll" tabindex="0" role="region" aria-label="What each site brought">
<table>
<thead><tr><th scope="col">Site</th><th scope="col">Value</th><th scope="col">Bound (95 %)</th>
<th scope="col">Rounds</th></tr></thead>
<tbody>{% for name, value, bound, rounds in contribution.rows %}
<tr><th scope="row">{{ name }}</th><td>{{ value }}</td><td>{{ bound }}</td>
<td>{{ rounds }}</td></tr>
{% endfor %}</tbody></table></div>
<p class="note">{{ contribution.meaning }}</p>
</section>
{% endif %}"""
METHODS = {
    "shapley": "Shapley values of the sites' updates",
    "leave_one_out": "What the score loses in each round without a site's update",
}
SHOWN = 8
"""So many sites are named on the screen; of more, the first and the last of the order."""


def ranked(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the sites of ``contribution`` in summary.json with their values, the largest first."""
    return sorted(found["sites"].items(), key=lambda item: -(item[1]["value"] or 0.0))


def _metric(found: Mapping[str, Any]) -> Metric:
    return metric(str(found["metric"]))


def said(found: Mapping[str, Any]) -> str:
    """Return what was valued, and by which score."""
    how = METHODS.get(found["method"], found["method"])
    if not found["rounds_valued"]:
        return f"{how}: no round could be valued."
    of = _metric(found)
    rise = f"{number(found['start'], of.digits)} (untrained) to {number(found['end'], of.digits)}"
    missing = found["rounds"] - found["rounds_valued"]
    left_out = f"; {counted(missing, 'round')} could not be valued" if missing else ""
    return (
        f"{how}, summed over {counted(found['rounds_valued'], 'round')}, by {of.label} on the "
        f"validation windows of all sites, which went from {rise}{left_out}. Sites evaluated "
        f"{counted(found['models'], 'further model')} for it."
    )


def meaning(found: Mapping[str, Any]) -> str:
    """Return how the values are to be read."""
    adds_up = (
        "They add up to that change."
        if found["method"] == "shapley"
        else "They do not add up: of two sites that bring the same, neither is missed."
    )
    return (
        f"Positive values helped the shared model, negative ones hurt it. {adds_up} They are of "
        "this run, its order of rounds and its validation windows: no price of data, and no test "
        "score."
    )


def _cells(found: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[str, str]:
    digits = _metric(found).digits
    bound = own["bound"]
    told = "" if bound is None else "exact" if bound == 0 else f"± {number(bound, digits)}"
    return number(own["value"], digits, sign=True), told


def lines(summary: Mapping[str, Any]) -> list[str]:
    """Return what the screen says; nothing where it was not measured."""
    found = summary.get("contribution")
    if not found:
        return []
    if not found["rounds_valued"]:
        return [said(found)]
    order = ranked(found)
    shown = order if len(order) <= SHOWN else [*order[: SHOWN // 2], *order[-SHOWN // 2 :]]
    parts = [
        " ".join(part for part in (name, *_cells(found, own)) if part and part != "exact")
        for name, own in shown
    ]
    more = f" ({counted(len(order) - len(shown), 'site')} between)" if len(order) > SHOWN else ""
    return [f"{said(found)} What each brought: {listing(parts, most=SHOWN)}{more}."]


@register_section(
    "contribution", template=TEMPLATE, links={"contribution": "Contribution"}, order=34
)
def _contribution(page: Page) -> dict[str, Any]:
    """Return the table; None where it was not measured."""
    found = page.summary.get("contribution")
    if not found:
        return {"contribution": None}
    rows = []
    if found["rounds_valued"]:
        rows = [(name, *_cells(found, own), own["rounds"]) for name, own in ranked(found)]
    return {"contribution": {"said": said(found), "rows": rows, "meaning": meaning(found)}}

"""Section on clusters: which sites share a model, beside the kinds of sites that are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedpdm.evaluation.wording import listing, number
from fedpdm.report.sections import Page, register_section

TEMPLATE = """{% if clusters %}<section aria-labelledby="clusters">
<h2 id="clusters">Clusters</h2>
<p>Sites of one cluster share a model, which was trained at these sites only.{% if clusters.index %}
Against the known kinds of sites the adjusted Rand index is {{ clusters.index }}: 1 is the same
grouping, 0 what chance gives.{% endif %}</p>
<table>
<thead><tr><th scope="col">Cluster</th><th scope="col" class="text">Sites</th>
{% if clusters.known %}<th scope="col" class="text">Kinds of sites</th>{% endif %}</tr></thead>
<tbody>{% for row in clusters.rows %}<tr><th scope="row">{{ row[0] }}</th>
{% for cell in row[1:] %}<td class="text">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
</section>{% endif %}
"""


def grouped(found: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the sites of each cluster, by its name."""
    groups: dict[str, list[str]] = {}
    for site, name in found["members"].items():
        groups.setdefault(name, []).append(site)
    return {name: groups[name] for name in sorted(groups)}


def cluster_lines(summary: Mapping[str, Any]) -> str | None:
    """Return which sites share a model, and how that agrees with the kinds that are known."""
    found = summary.get("clusters")
    if not found:
        return None
    index = found.get("adjusted_rand_index")
    shown = "; ".join(f"{name} {listing(sites)}" for name, sites in grouped(found).items())
    known = (
        ""
        if index is None
        else (f" (adjusted Rand index {number(index, 2)} against the known kinds of sites)")
    )
    return f"Clusters: {shown}{known}."


@register_section("clusters", template=TEMPLATE, links={"clusters": "Clusters"}, order=25)
def _clusters(page: Page) -> dict[str, Any]:
    """Return the sites of each cluster and their kinds; None where all sites share a model."""
    found = page.summary.get("clusters")
    if not found:
        return {"clusters": None}
    families, groups, rows = found.get("families") or {}, grouped(found), []
    for name in groups:
        kinds = dict.fromkeys(families[site] for site in groups[name] if site in families)
        row = [name, ", ".join(groups[name])]
        rows.append([*row, ", ".join(kinds)] if families else row)
    index = found.get("adjusted_rand_index")
    return {
        "clusters": {
            "rows": rows,
            "known": bool(families),
            "index": None if index is None else number(index, 2),
        }
    }

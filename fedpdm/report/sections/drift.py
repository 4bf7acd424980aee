"""Section on drift since the run that ``init`` names: sensors and scores, site by site."""

from __future__ import annotations

from typing import Any

from fedpdm.report.sections import Page, register_section

SHOWN = 5
TEMPLATE = """{% if drift %}<section>
<h2 id="drift">Drift</h2>
<p>Training readings, and the scores that the earlier model gives on validation windows, against
those of {{ drift.since }}: population stability index (bins are tenths of the earlier readings;
above {{ drift.much }} is much) and the Kolmogorov-Smirnov distance. No p-values: readings of one
machine follow each other, so that any two samples would differ.</p>
<table><tr><th>Site</th><th>What</th><th>PSI</th><th>KS</th><th></th></tr>
{% for row in drift.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
</section>{% endif %}
"""


@register_section("drift", template=TEMPLATE, links={"drift": "Drift"}, order=36)
def _drift(page: Page) -> dict[str, Any]:
    """Return the most drifted sensors of each site, and its scores; None without ``init``."""
    found = page.summary.get("drift")
    if not found:
        return {"drift": None}
    rows = [
        (site, name, f"{each['psi']:.3f}", f"{each['ks']:.3f}",
         "drift" if each["psi"] > found["much"] else "")
        for site, own in found["per_site"].items()
        for kind in ("readings", "scores")
        for name, each in list((own.get(kind) or {}).items())[:SHOWN]
    ]  # fmt: skip
    return {"drift": {"since": found["since"], "much": found["much"], "rows": rows}}

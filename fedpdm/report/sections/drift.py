"""Section on drift since the run that ``init`` names: sensors and scores, site by site."""

from __future__ import annotations

from typing import Any

from fedpdm.evaluation.wording import MISSING, number
from fedpdm.report.sections import Page, register_section

SHOWN = 5
TEMPLATE = """{% if drift %}<section aria-labelledby="drift">
<h2 id="drift">Drift</h2>
<p>Training readings, and the scores that the earlier model gives on validation windows, against
those of {{ drift.since }}: population stability index (bins are tenths of the earlier readings;
above {{ drift.much }} is much) and the Kolmogorov-Smirnov distance. No p-values: readings of one
machine follow each other, so that any two samples would differ.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Drift of each site">
<table class="cards">
<thead><tr><th scope="col">Site</th><th scope="col" class="text">What</th>
<th scope="col">PSI</th><th scope="col">KS</th><th scope="col">Verdict</th></tr></thead>
<tbody>{% for row in drift.rows %}<tr><th scope="row">{{ row[0] }}</th>
<td class="text">{{ row[1] }}</td>{% for cell in row[2:] %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
</section>{% endif %}
"""


@register_section("drift", template=TEMPLATE, links={"drift": "Drift"}, order=36)
def _drift(page: Page) -> dict[str, Any]:
    """Return the most drifted sensors of each site, and its scores; None without ``init``."""
    found = page.summary.get("drift")
    if not found:
        return {"drift": None}
    rows = [
        (site, name, number(each["psi"]), number(each["ks"]),
         "drift" if each["psi"] > found["much"] else MISSING)
        for site, own in found["per_site"].items()
        for kind in ("readings", "scores")
        for name, each in list((own.get(kind) or {}).items())[:SHOWN]
    ]  # fmt: skip
    return {"drift": {"since": found["since"], "much": found["much"], "rows": rows}}

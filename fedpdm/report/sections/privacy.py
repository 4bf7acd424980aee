"""Section on privacy: the budget in words, what leaves the sites, and what is not covered."""

from __future__ import annotations

from typing import Any

from fedpdm.evaluation.locales import marked
from fedpdm.privacy.base import sentence
from fedpdm.report.sections import Page, register_section

TEMPLATE = """{% if privacy %}<section aria-labelledby="privacy">
<h2 id="privacy">Privacy</h2>
<p>{{ privacy }}.</p>
<p class="note">Hidden is the difference between {{ found.neighbours }}.</p>
<div class="scroll" tabindex="0" role="region" aria-label="What leaves the sites">
<table>
<thead><tr><th scope="col">What would leave a site</th><th scope="col">Here</th></tr></thead>
<tbody>{% for what, how in found.leaves.items() %}
<tr><th scope="row">{{ what }}</th><td>{{ how }}</td></tr>{% endfor %}
</tbody></table></div>
<p>Not covered:</p>
<ul>{% for words in found.not_covered %}<li>{{ words }}</li>{% endfor %}</ul>
</section>
{% endif %}"""


@register_section("privacy", template=TEMPLATE, links={"privacy": "Privacy"}, order=36)
def _privacy(page: Page) -> dict[str, Any]:
    """Return the sentence of the budget; None for a run without privacy."""
    found = page.summary.get("privacy")
    return {"privacy": marked(sentence(found)) if found else None, "found": found or {}}

"""Section on the start: what a run took over from another one, and how that is known."""

from __future__ import annotations

from typing import Any

from fedpdm.report.sections import Page, register_section

TEMPLATE = """{% if start %}<section aria-labelledby="start">
<h2 id="start">Where the weights began</h2>
<p class="note">{{ start }}.</p>
</section>
{% endif %}"""


@register_section("start", template=TEMPLATE, links={"start": "Start"}, order=35)
def _start(page: Page) -> dict[str, Any]:
    """Return the sentence of the load proof; None for a run that began with fresh weights."""
    return {"start": (page.manifest.get("init") or {}).get("said")}

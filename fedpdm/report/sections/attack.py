"""Section on an attack that was made on purpose, before everything else on the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedpdm.evaluation.wording import attack_sentence, number, percent
from fedpdm.report.sections import Page, register_section

TEMPLATE = """{% if attack %}<section aria-labelledby="attack">
<h2 id="attack">This run was attacked on purpose</h2>
<p class="warning"><strong>{{ attack }}</strong></p>
</section>
{% endif %}"""


def attacked(summary: Mapping[str, Any]) -> str | None:
    """Return what was done to a run, and what came of it; None for an ordinary run."""
    found = summary.get("attack")
    if not found:
        return None
    text = f"{attack_sentence(found)}."
    if found["sites"]:
        text += " No score of it says how a federation does."
    door = found.get("backdoor")
    if not door:
        return text
    if door["success"] is None:
        return f"{text} The backdoor could not be measured: no test window is of the other class."
    wanted = "healthy" if door["target"] == "healthy" else "about to fail"
    share, without = (percent(door[key], 0) for key in ("success", "without_trigger"))
    return (
        f"{text} With the trigger {share} of {number(door['windows'], 0)} test windows of the "
        f"other class are called {wanted}, without it {without}."
    )


@register_section("attack", template=TEMPLATE, links={"attack": "Attack"}, order=5)
def _attack(page: Page) -> dict[str, Any]:
    """Return the sentence; None for an ordinary run."""
    return {"attack": attacked(page.summary)}

"""Section on gain: who gains by the federation, and every predictor at every site."""

from __future__ import annotations

from typing import Any

from fedpdm.report import plots
from fedpdm.report.gain_table import gain_table, part_of
from fedpdm.report.sections import Page, register_section
from fedpdm.report.summary_text import findings, left_out

ENDS = 8
"""Of too many sites so many of the greatest losses and gains are shown unfolded."""


@register_section(
    "gain",
    template="report_gain.html.j2",
    links={"gain": "Gain", "sites": "Baselines", "heldout": "Unseen machines"},
    order=10,
)
def _gain(page: Page) -> dict[str, Any]:
    """Return who gains, and every predictor at every site."""
    summary, table, few = page.summary, page.table, page.few
    gained = [row for row in page.ordered if row.gain is not None]
    notes = dict.fromkeys(row.note for row in (*table.rows, table.together) if row.note)
    return {
        "left_out": left_out(summary),
        "footnotes": list(notes),  # a row's mark is its note's place plus one
        "leading": page.ordered if few else [*page.ordered[:ENDS], *gained[-ENDS:]],
        "prevalence": any(row.counts.get("prevalence") is not None for row in table.rows),
        "findings": findings(summary, table),
        "heldout": gain_table(summary, "heldout") if summary.get("heldout") else None,
        "full_windows": part_of(summary, "test", "full_windows"),
        "compared": (plots.sites if few else plots.spread)(table),
        "confidence": (plots.confidence if few else plots.gains)(table) if gained else None,
        "intervals": any(row.interval is not None for row in gained),
    }

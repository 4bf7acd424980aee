"""Section on written programs: what of a line is right, head by head, beside the baselines."""

from __future__ import annotations

from typing import Any

from fedpdm.evaluation.wording import metric, percent
from fedpdm.report.gain_table import part_of
from fedpdm.report.sections import Page, register_section

SHOWN = (
    "exact_match", "token_accuracy", "type_accuracy", "command_accuracy", "parameter_accuracy",
    "sign_accuracy", "digit_accuracy", "number_accuracy", "well_formed",
)  # fmt: skip


@register_section(
    "written", template="report_written.html.j2", links={"written": "Written programs"}, order=15
)
def _written(page: Page) -> dict[str, Any]:
    """Return a row for each metric and a column for each predictor; None for other tasks."""
    tested = page.summary.get("test") or {}
    if part_of(tested, "global", "exact_match") is None:
        return {"written": None}
    scored = {"federated": tested, **(tested.get("baselines") or {})}
    columns = {name: shown for name, shown in page.table.columns.items() if scored.get(name)}
    return {
        "written": {
            "heads": [shown.heading for shown in columns.values()],
            "rows": [
                (metric(name).label, *(
                    percent(part_of(scored[column], "global", name)) for column in columns
                ))
                for name in SHOWN
            ],
        }
    }  # fmt: skip

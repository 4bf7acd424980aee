"""First section: which machines to inspect now, why, and what the alarms would have saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedpdm.evaluation.wording import counted, number
from fedpdm.report.gain_table import part_of
from fedpdm.report.machines import WHY, is_date, line, score_name
from fedpdm.report.recommendation import recommendation
from fedpdm.report.sections import Page, register_section
from fedpdm.report.sections.alarms import price
from fedpdm.report.sections.quality import task_of

FIRST = 5
"""Machines that are shown unfolded."""


@register_section("inspect", template="report_inspection.html.j2",
                  links={"inspect": "Inspect now"}, order=5)  # fmt: skip
def _inspection(page: Page) -> dict[str, Any]:
    """Return the machines to inspect, the recommendation, and what alarms would have saved."""
    found, unit = page.summary.get("inspect"), part_of(page.summary, "data", "time_unit") or ""
    shown: dict[str, Any] = {"recommendation": recommendation(page.table), "inspect": None}
    if found:
        task = task_of(page.summary)
        lines = [line(one, unit, task.score_digits) for one in found["machines"]]
        dates = any(is_date(one["time"], unit) for one in found["machines"])
        counts = found["per_site"].values()
        machines, alarms = (sum(own[key] for own in counts) for key in ("machines", "alarms"))
        shown["inspect"] = {
            "said": f"{counted(alarms, 'machine')} of {number(machines, 0)} "
            f"{'is' if alarms == 1 else 'are'} in alarm at the end of the test data."
            if task.gives_risks()
            else f"{counted(machines, 'machine')} at the end of the test data.",
            "score": score_name(found["score"]),
            "sites": [] if lines else found["per_site"].items(),
            "first": lines[:FIRST],
            "rest": lines[FIRST:],
            "how": WHY + (" Times are in UTC." if dates else ""),
        }
        shown["saved"] = saved(page.summary)
    return shown


def saved(summary: Mapping[str, Any]) -> str:
    """Return what acting on the alarms would have cost and saved in the test data."""
    costs = part_of(summary, "test", "costs") or {}
    whole, periods = costs.get("global") or {}, costs.get("periods")
    if not whole or not periods:
        return (
            "What do alarms save? Say what a missed failure, a false alarm and an inspection cost "
            "you, and this page answers: evaluate.threshold=cost evaluate.costs.missed=… "
            "evaluate.costs.false_alarm=… evaluate.costs.inspection=…"
        )
    without = {
        "never inspecting": whole.get("never"),
        "inspecting all the time": whole.get("always"),
        "each site's own best model": whole.get("best_alone", whole.get("alone")),
    }
    known = {name: rate * periods for name, rate in without.items() if rate is not None}
    spent = whole["level"] * periods
    beside = ", ".join(f"{name} {price(round(cost))}" for name, cost in known.items())
    cheapest = min(known, key=lambda name: known[name])
    gain = known[cheapest] - spent
    period = str(costs["period"])
    times = "machine-months" + period.removeprefix("machine-month")
    length = times if period.startswith("machine-month") else f"times {period}"
    return (
        f"In the test data ({number(periods, 0)} {length}) acting on the alarms "
        f"costs {price(round(spent))}; {beside}. So it "
        + (f"saves {price(round(gain))} against {cheapest}." if gain > 0
           else f"saves nothing against {cheapest}.")
    )  # fmt: skip

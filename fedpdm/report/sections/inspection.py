"""First section: which machines to inspect now, why, and what the alarms would have saved."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from fedpdm.evaluation.wording import MISSING, counted, number
from fedpdm.report.gain_table import part_of
from fedpdm.report.recommendation import recommendation
from fedpdm.report.sections import Page, register_section
from fedpdm.report.sections.alarms import price
from fedpdm.report.sections.quality import task_of

FIRST = 5
"""Machines that are shown unfolded."""
PER_DAY = {"days": 1, "hours": 24, "minutes": 1440, "seconds": 86400}
DATED = range(20 * 365, 100 * 365)
"""Days since 1970 that are dates: no data set counts so many days from its own beginning."""
HOW = (
    "Why: the sensors that drive the risk up most, in shares (Shapley values against the machine's "
    "own calm windows). They explain the model; a cause they are not."
)


@register_section("inspect", template="report_inspection.html.j2",
                  links={"inspect": "Inspect now"}, order=5)  # fmt: skip
def _inspection(page: Page) -> dict[str, Any]:
    """Return the machines to inspect, the recommendation, and what alarms would have saved."""
    found, unit = page.summary.get("inspect"), part_of(page.summary, "data", "time_unit") or ""
    shown: dict[str, Any] = {"recommendation": recommendation(page.table), "inspect": None}
    if found:
        task = task_of(page.summary)
        lines = [line(one, unit, task.score_digits) for one in found["machines"]]
        counts = found["per_site"].values()
        machines, alarms = (sum(own[key] for own in counts) for key in ("machines", "alarms"))
        shown["inspect"] = {
            "said": f"{counted(alarms, 'machine')} of {number(machines, 0)} "
            f"{'is' if alarms == 1 else 'are'} in alarm at the end of the test data.",
            "score": found["score"].partition("_")[0] if task.gives_risks() else "life left",
            "first": lines[:FIRST],
            "rest": lines[FIRST:],
            "how": HOW,
        }
        shown["saved"] = saved(page.summary)
    return shown


def line(one: Mapping[str, Any], unit: str, digits: int) -> dict[str, str]:
    """Return what the table says of a machine."""
    sensors = one.get("sensors")
    why = ", ".join(
        f"{s['sensor']} {s['reads']} ({number(100 * s['share'], 0)} %)" for s in sensors or ()
    )
    return {
        "machine": one["machine"],
        "site": one["site"],
        "score": number(one["score"], digits),
        "since": moment(one["since"], unit) if one["alarm"] else "",
        "seen": moment(one["time"], unit),
        "why": why or MISSING,
    }


def moment(time: float, unit: str) -> str:
    """Return a time as a date, if it counts from 1970, else as it is counted."""
    per_day = PER_DAY.get(unit)
    if per_day and int(time / per_day) in DATED:
        when = datetime.datetime(1970, 1, 1) + datetime.timedelta(days=time / per_day)
        return when.strftime("%Y-%m-%d %H:%M")
    return f"{unit.removesuffix('s')} {number(time, 0 if time == int(time) else 1)}".strip()


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

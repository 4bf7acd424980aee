"""The report on alarms: at which risk, what they catch and miss, and how early they come."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedpdm.evaluation.wording import MISSING, listing, number, percent
from fedpdm.report.curves import alarm_plots
from fedpdm.report.quality import task_of

Record = Mapping[str, Any]

NOT_HERE = "This run holds no numbers about alarms."
PRICES = ("missed", "false_alarm", "inspection")
"""What evaluate.costs knows."""


def alarm_section(summary: Record, cases: str) -> dict[str, Any]:
    """Return what the template shows of alarms; ``reason`` alone where there are none.

    Args:
        summary: the content of summary.json.
        cases: what is judged one by one: windows or rows.
    """
    tested = summary.get("test") or {}
    thresholds = tested.get("thresholds") or {}
    keys = horizons(thresholds)
    if not keys:
        task = task_of(summary)
        without = (
            f"This task {task.predicts}. It gives no risk, so no alarm is raised, and there is "
            "nothing to catch or to miss."
        )
        return {"reason": NOT_HERE if task.gives_risks() else without}
    nearest, whole = keys[0], tested.get("global") or {}
    alarms = tested.get("alarms") or {}
    unit = str(alarms.get("time_unit") or "")
    together, sites = alarms.get("global"), alarms.get("per_site") or {}
    per_site = tested.get("per_site") or {}
    plots = (
        alarm_plots(alarms["curve"], together, str(alarms.get("period") or "period"), unit)
        if alarms.get("curve")
        else ()
    )
    return {
        "reason": None,
        "ahead": f" within {nearest} {unit}".rstrip() if together else "",
        "how": how_chosen(thresholds, whole, nearest, cases),
        "matrix": confusion(whole, nearest, thresholds, None),
        "sites": [(name, confusion(part, nearest, thresholds, name))
                   for name, part in per_site.items()],
        "uncounted": None if together else alarms.get("reason") or NOT_HERE,
        "unit": unit,
        "period": alarms.get("period"),
        "counting": counting(alarms),
        "episodes": [(name, episodes(part)) for name, part in sites.items()],
        "all_episodes": episodes(together) if together else None,
        "plots": plots,
        "horizons": [horizon_row(tested, key, thresholds, alarms) for key in keys]
        if len(keys) > 1
        else [],
    }  # fmt: skip


def horizons(thresholds: Record) -> list[str]:
    """Return the horizons that have an alarm level, the nearest first."""
    return [key for key, level in (thresholds.get("common") or {}).items() if level is not None]


def silence(summary: Record, cases: str) -> str | None:
    """Return at which sites the alarm level that all share warns of no failure; None at none.

    Args:
        summary: the content of summary.json.
        cases: what is judged one by one: windows or rows.
    """
    tested = summary.get("test") or {}
    thresholds = tested.get("thresholds") or {}
    keys, per_site = horizons(thresholds), tested.get("per_site") or {}
    if not keys or thresholds.get("scope") != "global" or len(per_site) < 2:
        return None
    mute = {
        name: of_risk(part, "missed", keys[0]) or 0.0
        for name, part in per_site.items()
        if of_risk(part, "hits", keys[0]) == 0 and of_risk(part, "missed", keys[0])
    }
    if not mute:
        return None
    counted = (tested.get("alarms") or {}).get("per_site") or {}
    crews = [counted.get(name) or {} for name in mute]
    if all(processes.get("failures") and processes.get("event_recall") == 0 for processes in crews):
        count = sum(processes["failures"] for processes in crews)
        missed = f"{'failure is' if count == 1 else 'failures are'} warned of"
    else:
        count = sum(mute.values())
        missed = f"{cases} {'before' if cases == 'windows' else 'with'} a failure raise one"
    false = any(of_risk(per_site[name], "false_alarms", keys[0]) for name in mute)
    return (
        f"At {listing(list(mute))} no alarm {'comes before a failure' if false else 'is raised'}: "
        f"0 of {number(count, 0)} {missed}. "
        "evaluate.threshold_scope=plant gives each site a level of its own."
    )


def how_chosen(thresholds: Record, whole: Record, key: str, cases: str) -> list[str]:
    """Return where the alarm level lies, what it was chosen for, and what came of it."""
    own = [site.get(key) for site in (thresholds.get("per_site") or {}).values()]
    own = [level for level in own if level is not None]
    level = (thresholds.get("common") or {}).get(key)
    said = f"An alarm is raised from a predicted risk of {number(level, 3)} on."
    if own:
        said = (
            "Each site has an alarm level of its own, chosen on its own validation data: a "
            f"predicted risk from {number(min(own), 3)} to {number(max(own), 3)} on."
        )
    aim, budget = thresholds.get("aim"), thresholds.get("budget")
    aims = {
        "f1": "It was chosen on validation data for the greatest F1: few false alarms and few "
        "missed failures weigh the same. evaluate.threshold=cost chooses by what a miss and a "
        "false alarm cost you, evaluate.threshold=false_alarms by how many false alarms you "
        "accept.",
        "cost": "It was chosen on validation data for the least expected cost"
        + _prices(thresholds.get("costs") or {}),
        "false_alarms": f"It is the lowest level at which at most {percent(budget)} of the healthy "
        f"{cases} of the validation data raise an alarm.",
    }
    lines = [said, aims.get(str(aim), "")]
    rate = of_risk(whole, "false_alarm_rate", key)
    before = ((thresholds.get("validation") or {}).get(key) or {}).get("false_alarm_rate")
    if rate is not None:
        lines.append(
            f"Of the healthy {cases} of the test data {percent(rate)} raise a false alarm"
            + (f" ({percent(before)} on validation data)." if before is not None else ".")
        )
    if thresholds.get("truncated"):
        lines.append(
            "Validation machines were weighed as if their records ended at a random moment, as "
            "those of the test do."
        )
    return [line for line in lines if line]


def _prices(costs: Record) -> str:
    """Return what a site's errors cost, or that sites differ in it."""
    different = list({tuple(sorted(site.items())): site for site in costs.values()}.values())
    if len(different) != 1:
        return ", each site by its own costs." if different else "."
    missed, false, visit = (price(different[0].get(key)) for key in PRICES)
    return (
        f": a miss costs {missed}, a false alarm {false}, and every alarm {visit} for looking "
        "(evaluate.costs; only their ratios matter)."
    )


def price(value: float | None, like: Iterable[float] = ()) -> str:
    """Return a cost with as many digits as it needs, and as those ``like`` it need."""
    known = [] if value is None else [value]
    return number(value, max((_digits(one) for one in (*(like or known),)), default=0))


def _digits(value: float) -> int:
    if not math.isfinite(value) or value == round(value):
        return 0
    return max(2, 1 - math.floor(math.log10(value)))


def confusion(part: Any, key: str, thresholds: Record, site: str | None) -> dict[str, str]:
    """Return the counts at the chosen threshold, and two shares of them."""
    if not isinstance(part, Mapping):
        part = {}
    found = {k: of_risk(part, k, key) for k in ("hits", "missed", "false_alarms", "quiet")}
    own = (thresholds.get("per_site") or {}).get(site) or {}
    level = of_risk(part, "threshold", key)
    if level is None:
        level = own.get(key)
    return {k: number(value, 0) for k, value in found.items()} | {
        "recall": percent(of_risk(part, "recall", key), 0),
        "precision": percent(of_risk(part, "precision", key), 0),
        "level": number(level, 3),
    }


def episodes(found: Record) -> list[str]:
    """Return failures, warned of, lead times, episodes, false ones, and those per period."""
    lead = found.get("lead_time") or {}
    failures, recall = found.get("failures"), found.get("event_recall")
    warned = round(failures * recall) if failures is not None and recall is not None else None
    return [
        number(failures, 0),
        number(warned, 0),
        percent(recall, 0),
        number(lead.get("median"), 1),
        number(lead.get("p10"), 1),
        number(found.get("episodes"), 0),
        number(found.get("false_episodes"), 0),
        number(found.get("false_per_period"), 2),
    ]


def counting(alarms: Record) -> str | None:
    """Return how episodes and lead times are counted, in words."""
    if not alarms.get("global"):
        return None
    unit = alarms.get("time_unit") or ""
    return (
        f"Alarms of a machine at most {number(alarms.get('cooldown'), 0)} {unit} apart are one "
        f"episode. An episode is false if no failure follows within {number(alarms.get('horizon'), 0)} "  # noqa: E501
        f"{unit}. Lead time counts from the first of {number(alarms.get('sustained'), 0)} alarms "
        "in a row, when a crew would act; a failure warned of by single alarms only has none."
    )


def horizon_row(tested: Record, key: str, thresholds: Record, alarms: Record) -> list[str]:
    """Return one horizon's cells: quality, threshold, counts, episodes."""
    whole = tested.get("global") or {}
    found = (alarms.get("horizons") or {}).get(key)
    if found is None:
        found = alarms.get("global") if alarms.get("horizon") == float(key) else None
    found = found or {}
    lead = found.get("lead_time") or {}
    own = any((thresholds.get("per_site") or {}).values())
    return [
        f"{key} {alarms.get('time_unit') or ''}".rstrip(),
        percent(of_risk(whole, "prevalence", key)),
        number(of_risk(whole, "average_precision", key)),
        number(of_risk(whole, "lift", key), 1),
        number(of_risk(whole, "roc_auc", key)),
        "own" if own else number((thresholds.get("common") or {}).get(key), 3),
        *(number(of_risk(whole, k, key), 0) for k in ("hits", "missed", "false_alarms")),
        percent(found.get("event_recall"), 0),
        number(lead.get("median"), 1),
        number(found.get("false_per_period"), 2),
    ]


def of_risk(part: Record, name: str, key: str) -> float | None:
    """Return a metric of one horizon; of the only one it has no horizon in its name."""
    value = part.get(f"{name}_{key}", part.get(name))
    return None if value is None else float(value)


def levels(rows: Sequence[tuple[str, Record]]) -> bool:
    """Return whether sites differ in their alarm level."""
    return len({row["level"] for _, row in rows} - {MISSING}) > 1

"""Section on alarms: what they catch, miss and cost, and how early they come."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedpdm.baselines.registry import predictors
from fedpdm.evaluation.wording import MISSING, listing, number, percent
from fedpdm.report.curves import alarm_plots
from fedpdm.report.gain_table import part_of
from fedpdm.report.sections import Page, register_section

Record = Mapping[str, Any]

NOT_HERE = "This run holds no numbers about alarms."
PRICES = ("missed", "false_alarm", "inspection")
"""What evaluate.costs knows."""
COUNTS = ("hits", "missed", "false_alarms", "quiet")
"""What happened at the chosen alarm level."""
WITHOUT = {"never": "never to raise an alarm", "always": "to be in alarm all the time"}
ALONE = {"alone": "the model of each site alone",
         "best_alone": "the best model that each site has by itself"}  # fmt: skip
"""Models of each site's own, the network and the best there is."""
OTHERWISE = {"never": "never an alarm", "always": "an alarm all the time"}
"""What can be done without a model, as ``test.costs`` calls it, and in words."""


@register_section("alarms", template="report_alarms.html.j2", links={"alarms": "Alarms"}, order=20)
def alarm_section(page: Page) -> dict[str, Any]:
    """Return what alarms catch, miss and cost; None where there are none."""
    tested = page.summary.get("test") or {}
    thresholds = tested.get("thresholds") or {}
    keys = horizons(thresholds)
    if not keys:
        return {"alarms": None}
    nearest, whole = keys[0], tested.get("global") or {}
    alarms = tested.get("alarms") or {}
    unit, period = str(alarms.get("time_unit") or ""), alarms.get("period")
    together, curve = alarms.get("global"), alarms.get("curve")
    sites = [
        (name, confusion(part, nearest, thresholds, name))
        for name, part in (tested.get("per_site") or {}).items()
    ]
    shown = {
        "ahead": f" within {nearest} {unit}".rstrip() if together else "",
        "how": [
            *how_chosen(thresholds, whole, nearest, page.table.cases),
            *filter(None, [sure_choice(tested), dearer(page.summary)]),
        ],
        "matrix": confusion(whole, nearest, thresholds, None),
        "sites": sites,
        "uncounted": None if together else alarms.get("reason") or NOT_HERE,
        "unit": unit,
        "period": period,
        "counting": counting(alarms),
        "episodes": [(n, episodes(part)) for n, part in (alarms.get("per_site") or {}).items()],
        "all_episodes": episodes(together) if together else None,
        "plots": alarm_plots(curve, together, period or "period", unit) if curve else (),
        "horizons": [horizon_row(tested, key, thresholds, alarms) for key in keys]
        if len(keys) > 1
        else [],
    }
    return {
        "alarms": shown,
        "costs": cost_table(tested),
        "own_levels": len({cells["level"] for _, cells in sites} - {MISSING}) > 1,
    }


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
        name: lost
        for name, part in per_site.items()
        if of_risk(part, "hits", keys[0]) == 0 and (lost := of_risk(part, "missed", keys[0]))
    }
    if not mute:
        return None
    seen = [part_of(tested, "alarms", "per_site", name) or {} for name in mute]
    if all(found.get("failures") and found.get("event_recall") == 0 for found in seen):
        count = sum(found["failures"] for found in seen)
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
    level = number(part_of(thresholds, "common", key), 3)
    said = f"An alarm is raised from a predicted risk of {level} on."
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
        + _prices(thresholds.get("costs") or {}, cases),
        "false_alarms": f"It is the lowest level at which at most {percent(budget)} of the healthy "
        f"{cases} of the validation data raise an alarm.",
    }
    lines = [said, aims.get(str(aim), "")]
    rate = of_risk(whole, "false_alarm_rate", key)
    before = part_of(thresholds, "validation", key, "false_alarm_rate")
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


def _prices(costs: Record, cases: str) -> str:
    """Return what a site's errors cost, or that sites differ in it."""
    different = list({tuple(sorted(site.items())): site for site in costs.values()}.values())
    if len(different) != 1:
        return ", each site by its own costs." if different else "."
    missed, false, visit = (price(different[0].get(key)) for key in PRICES)
    one = "alarm" if cases == "rows" else "alarm episode"
    return (
        f": a missed failure costs {missed}, a false {one} {false}, and every {one} {visit} for "
        "looking (evaluate.costs; only their ratios matter)."
    )


def price(value: float | None, like: Sequence[float] = ()) -> str:
    """Return a cost with as many digits as it needs, and as those ``like`` it need."""
    return number(value, max(_digits(one) for one in like or (value,)))


def _digits(value: float | None) -> int:
    if value is None or not math.isfinite(value) or value == round(value):
        return 0
    return max(2, 1 - math.floor(math.log10(value)))


def confusion(part: Any, key: str, thresholds: Record, site: str | None) -> dict[str, str]:
    """Return the counts at the chosen threshold, and two shares of them."""
    part = part or {}
    level = of_risk(part, "threshold", key)
    if level is None and site is not None:
        level = part_of(thresholds, "per_site", site, key)
    return {k: number(of_risk(part, k, key), 0) for k in COUNTS} | {
        "recall": percent(of_risk(part, "recall", key), 0),
        "precision": percent(of_risk(part, "precision", key), 0),
        "level": number(level, 3),
    }


def episodes(found: Record) -> list[str]:
    """Return failures, warned of, lead times, episodes, false ones, and those per period."""
    failures, recall = found.get("failures"), found.get("event_recall")
    warned = round(failures * recall) if failures is not None and recall is not None else None
    return [
        number(failures, 0),
        number(warned, 0),
        percent(recall, 0),
        number(part_of(found, "lead_time", "median"), 1),
        number(part_of(found, "lead_time", "p10"), 1),
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
    found = part_of(alarms, "horizons", key)
    if found is None and alarms.get("horizon") == float(key):
        found = alarms.get("global")
    own = any((thresholds.get("per_site") or {}).values())
    return [
        f"{key} {alarms.get('time_unit') or ''}".rstrip(),
        percent(of_risk(whole, "prevalence", key)),
        number(of_risk(whole, "average_precision", key)),
        number(of_risk(whole, "lift", key), 1),
        number(of_risk(whole, "roc_auc", key)),
        "own" if own else number(part_of(thresholds, "common", key), 3),
        *(number(of_risk(whole, k, key), 0) for k in ("hits", "missed", "false_alarms")),
        percent(part_of(found, "event_recall"), 0),
        number(part_of(found, "lead_time", "median"), 1),
        number(part_of(found, "false_per_period"), 2),
    ]


def of_risk(part: Record, name: str, key: str) -> float | None:
    """Return a metric of one horizon; of the only one it has no horizon in its name."""
    value = part.get(f"{name}_{key}", part.get(name))
    return None if value is None else float(value)


def cheaper(costs: Any, names: Iterable[str] = OTHERWISE) -> dict[str, float]:
    """Return by name what would cost less than alarms at the chosen level, the least first.

    Args:
        costs: ``global`` or a site of ``test.costs``.
        names: what to look at.
    """
    level = (costs or {}).get("level")
    if level is None:
        return {}
    known = {n: costs[n] for n in names if costs.get(n) is not None}
    less = {name: amount for name, amount in known.items() if amount < level * (1 - 1e-9)}
    return dict(sorted(less.items(), key=lambda item: item[1]))


def simple_baseline(costs: Any) -> str | None:
    """Return the cheapest baseline that is no network; None without any."""
    known = {
        name: amount
        for name, amount in (costs or {}).items()
        if name not in (*OTHERWISE, *ALONE, "level", "pooled", "trivial") and amount is not None
    }
    return min(known, key=known.__getitem__, default=None)


def _best_alone(costs: Record) -> str:
    """Return which of ``ALONE`` stands for what each site has by itself."""
    return "best_alone" if "best_alone" in costs else "alone"


def sure_choice(tested: Record) -> str | None:
    """Return that never or always was chosen, as no level was sure to cost less; None else."""
    known = part_of(tested, "costs", "validation") or {}
    for choice, words in WITHOUT.items():
        if known.get("level") is not None and known["level"] == known.get(choice):
            return f"No level is sure to cost less than {words}, which was chosen for that reason."
    return None


def dearer(summary: Record) -> str | None:
    """Return what would cost less than alarms at the chosen level; None where nothing would."""
    costs = part_of(summary, "test", "costs")
    whole = part_of(costs, "global")
    simple = simple_baseline(whole)
    names = dict(OTHERWISE)
    if whole:
        best = _best_alone(whole)
        names[best] = ALONE[best]
    if simple:
        names[simple] = predictors([simple])[simple].in_sentence
    found = cheaper(whole, names)
    if not found:
        return None
    like = [whole["level"], *found.values()]
    choices = [f"{names[name]} ({price(amount, like)})" for name, amount in found.items()]
    return (
        f"On test data alarms at the chosen level cost {price(whole['level'], like)} per "
        f"{costs['period']}. Cheaper would be: {listing(choices, most=len(choices))}."
    )


def cost_table(tested: Record) -> dict[str, Any] | None:
    """Return what the template shows of costs; None where the level was chosen otherwise.

    Args:
        tested: ``test`` of summary.json.
    """
    prices, costs = part_of(tested, "thresholds", "costs") or {}, tested.get("costs")
    if not prices or not costs:
        return None
    per_site, whole = costs["per_site"], costs.get("global") or {}
    simple = simple_baseline(whole)
    columns = ["level", *OTHERWISE, *([best] if (best := _best_alone(whole)) in whole else [])]
    columns += [simple] if simple else []
    heads = {name: shown.heading for name, shown in predictors(columns).items()}
    titles = {"level": "At the alarm level", "never": "Never an alarm", "always": "Always an alarm"}
    paid = {key: [prices[name][key] for name in per_site] for key in PRICES}
    parts = (*per_site.values(), whole)
    like = [amount for part in parts for name in columns if (amount := part.get(name)) is not None]

    def amounts(part: Record) -> list[str]:
        return [price(part.get(name), like) for name in columns]

    return {
        "heads": [titles.get(name) or heads[name] for name in columns],
        "counted": costs["counted"],
        "period": costs["period"],
        "rows": [
            (name, [*(price(prices[name][key], paid[key]) for key in PRICES), *amounts(part)])
            for name, part in per_site.items()
        ],
        "all": [*([""] * len(PRICES)), *amounts(whole)] if whole and len(per_site) > 1 else None,
        "said": remarks(per_site),
    }  # fmt: skip


def remarks(per_site: Mapping[str, Record]) -> list[str]:
    """Return at which sites it would have been cheaper to do without any model."""
    least = {name: next(iter(cheaper(part)), None) for name, part in per_site.items()}
    return [
        f"At {listing(names)} it would have been cheaper {words}."
        for choice, words in WITHOUT.items()
        if (names := [name for name, found in least.items() if found == choice])
    ]

"""What sites report of their own tests besides metrics, and how the server gathers it.

A site counts its own alarms, calibrates its own risks and chooses its own threshold;
counts and shares leave it, no window does. Nobody may pool, so what a simulation says of
all windows together is null here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedpdm.evaluation.final_test import FinalTest, alarm_costs
from fedpdm.evaluation.summary_sections import spread
from fedpdm.storage import cleaned
from fedpdm.tasks import Task

SECTIONS = ("thresholds", "calibration", "alarms", "intervals", "costs")
COSTS = ("risk", "counted", "period")
NOBODY_POOLS = "sites calibrate and test for themselves; nobody may pool their windows"


def of_site(trial: FinalTest, site: str) -> dict[str, Any]:
    """Return a site's own findings, from its trial on itself alone."""
    test = trial.parts["test"] or {}
    found: dict[str, Any] = {key: test.get(key) for key in SECTIONS}
    alarms, intervals = found["alarms"], found["intervals"]
    if alarms is not None and "per_site" in alarms:
        head = {k: v for k, v in alarms.items() if k not in ("global", "per_site", "curve")}
        found["alarms"] = head | {"own": alarms["per_site"][site]}
    if intervals is not None:
        found["intervals"] = {"level": intervals["level"], "own": intervals["per_site"][site]}
    if (costs := alarm_costs(trial, {})) is not None:
        head = {key: costs[key] for key in COSTS}
        found["costs"] = head | {"own": costs["per_site"][site]}
    found["card"] = dict(trial.card) | {"threshold": trial.threshold}
    return dict(cleaned(found))


def gathered(
    details: Mapping[str, Mapping[str, Any]], per_site: Mapping[str, Any], task: Task
) -> dict[str, Any]:
    """Return the sections of ``summary.test`` from sites' findings.

    Args:
        details: what each site said; a site with another version may say less.
        per_site: their metrics.
        task: gives the primary metric.
    """
    said = {
        key: {site: own[key] for site, own in details.items() if own.get(key)} for key in SECTIONS
    }
    return {
        "spread": spread(per_site, task),
        "thresholds": _thresholds(said["thresholds"]),
        "calibration": _calibration(said["calibration"]),
        "alarms": _together(said["alarms"], ("horizon", "cooldown", "sustained", "time_unit",
                                             "period")),
        "intervals": _together(said["intervals"], ("level",)),
        "costs": _together(said["costs"], COSTS),
        "reliability": None,
        "shuffled": None,
        "bootstrap": None,
    }  # fmt: skip


def inspected(details: Mapping[str, Mapping[str, Any]], task: Task) -> dict[str, Any] | None:
    """Return ``inspect`` of summary.json: counts of each site, and no machine by its name."""
    counts = {
        site: {key: said["inspect"][key] for key in ("machines", "alarms")}
        for site, said in details.items()
        if said.get("inspect")
    }
    if not counts:
        return None
    return {"score": task.score_columns[0], "machines": [], "per_site": counts}


def cards(details: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what ``predict`` needs at each site: its threshold, calibration and interval."""
    own = {site: said.get("card") or {} for site, said in details.items()}
    return {
        f"{key}s": {site: card[key] for site, card in own.items() if card.get(key) is not None}
        for key in ("threshold", "calibration", "interval")
    }


def _thresholds(said: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    if not said:
        return None
    first = next(iter(said.values()))
    head = {key: first.get(key) for key in ("aim", "budget", "truncated")}
    prices = {site: (own.get("costs") or {}).get(site) for site, own in said.items()}
    return head | {
        "scope": "plant",
        "costs": {site: cost for site, cost in prices.items() if cost} or None,
        "common": {},
        "per_site": {site: own.get("common") for site, own in said.items()},
        "validation": None,
    }


def _calibration(said: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    if not said:
        return None
    first = next(iter(said.values()))
    return {
        "method": first.get("method"),
        "fitted": any(own.get("fitted") for own in said.values()),
        "temperature": None,
        "before": None,
        "after": None,
        "per_site": dict(said),
    }


def _together(
    said: Mapping[str, Mapping[str, Any]], shared: tuple[str, ...]
) -> dict[str, Any] | None:
    """Return sites' own numbers under ``per_site``, with what all have in common before them."""
    known = {site: own for site, own in said.items() if "own" in own}
    if not known:
        return None
    first = next(iter(known.values()))
    return {key: first.get(key) for key in shared} | {
        "global": None,
        "reason": NOBODY_POOLS,
        "per_site": {site: own["own"] for site, own in known.items()},
    }

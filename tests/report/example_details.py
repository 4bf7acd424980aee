"""What an evaluation adds to the made-up runs: intervals, alarms, calibration, coverage."""

from __future__ import annotations

from typing import Any

from tests.comparison.example_runs import failure_run, life_run

Json = dict[str, Any]


def detailed_failure(count: int = 2, half: float = 0.05, **more: Any) -> Json:
    """Return ``failure_run`` with everything that today's evaluation says beside the scores.

    Args:
        count: of sites.
        half: of the width of the gains' intervals.
        more: arguments of ``failure_run``.
    """
    run = failure_run(count, **more)
    summary, tested = run["summary"], run["summary"]["test"]
    for index, part in enumerate((tested["global"], *tested["per_site"].values())):
        part |= {"threshold": 0.31, "precision": 0.6, "recall": 0.5, "false_alarm_rate": 0.062,
                 **counts(index)}  # fmt: skip
    tested |= {
        "bootstrap": bootstrap(summary, "average_precision", 1.0, half),
        "thresholds": {
            "aim": "f1", "scope": "global", "budget": None, "costs": None, "truncated": False,
            "common": {"7": 0.31}, "per_site": {},
            "validation": {"7": {"false_alarm_rate": 0.048, "recall": 0.52}},
        },
        "calibration": {
            "method": "temperature", "fitted": True, "temperature": 1.7,
            "before": {"7": {"brier": 0.0912, "ece": 0.081, "ece_mass": 0.08}},
            "after": {"7": {"brier": 0.0654, "ece": 0.023, "ece_mass": 0.02}},
        },
        "reliability": {"7": [bin_(i / 10) for i in range(10)]},
        "alarms": alarms(summary["sites"]),
    }  # fmt: skip
    summary["baselines_left_out"] = {"rules": "data=fleet has no known rules"}
    summary["data"]["split_sha256"] = "77aa" * 16
    run["manifest"]["data"] = {"split": {"file": "split.csv.gz", "sha256": "77aa" * 16}}
    return run


def detailed_horizons(count: int = 2) -> Json:
    """Return a run of ``task=horizons``: 7 and 14 days, sites with thresholds of their own."""
    run = detailed_failure(count)
    summary, tested = run["summary"], run["summary"]["test"]
    summary["task"] = "horizons"
    for part in (tested["global"], *tested["per_site"].values()):
        for key in ("7", "14"):
            extra = int(key)
            part |= {f"hits_{key}": 100.0 + extra, f"missed_{key}": 20.0 + extra,
                     f"false_alarms_{key}": 30.0 + extra, f"quiet_{key}": 4000.0,
                     f"threshold_{key}": None, f"average_precision_{key}": 0.5,
                     f"prevalence_{key}": extra / 100, f"false_alarm_rate_{key}": 0.04}  # fmt: skip
    own = {site: {"7": 0.2 + 0.1 * i, "14": 0.4} for i, site in enumerate(summary["sites"])}
    tested["thresholds"] |= {"aim": "false_alarms", "scope": "plant", "budget": 0.05,
                             "common": {"7": 0.3, "14": 0.4}, "per_site": own}  # fmt: skip
    tested["alarms"]["horizons"] = {"14": processes(9) | {"period": "machine-month of 30 days"}}
    return run


def detailed_life(count: int = 10) -> Json:
    """Return ``life_run`` with intervals of remaining life and of the gains."""
    run = life_run(count)
    summary, tested = run["summary"], run["summary"]["test"]
    per_site = {
        site: {"coverage": 0.8, "coverage_interval": [0.444, 0.975], "width": 40.0 + i, "n": 10,
               "test_machines": 10}
        for i, site in enumerate(summary["sites"])
    }  # fmt: skip
    tested |= {
        "bootstrap": bootstrap(summary, "rmse", -1.0, 1.0),
        "thresholds": None, "calibration": None, "reliability": {}, "alarms": None,
        "intervals": {
            "level": 0.9, "machines": 20, "factor": 0.6, "reason": None, "coverage": 0.93,
            "coverage_interval": [0.861, 0.971], "width": 44.5, "n": 100, "test_machines": 100,
            "per_site": per_site,
        },
    }  # fmt: skip
    return run


def silent_site(run: Json, name: str, failures: int = 6) -> Json:
    """Return the run with no alarm at one site, which has failures, and a shared alarm level."""
    tested = run["summary"]["test"]
    tested["per_site"][name] |= {"hits": 0.0, "false_alarms": 0.0, "missed": 184.0, "recall": 0.0}
    tested["alarms"]["per_site"][name] |= {
        "failures": failures, "event_recall": 0.0, "episodes": 0, "false_episodes": 0,
    }  # fmt: skip
    return run


def bootstrap(summary: Json, name: str, sign: float, half: float) -> Json:
    """Return intervals of the gain, ``half`` to either side of it."""
    tested = summary["test"]
    alone = tested["baselines"]["alone"]
    per_site = {}
    for site, part in tested["per_site"].items():
        ours, theirs = part[name], alone["per_site"][site][name]
        per_site[site] = interval(None if ours is None or theirs is None
                                  else sign * (ours - theirs), half)  # fmt: skip
    whole = sign * (tested["global"][name] - alone["global"][name])
    known = [part["value"] for part in per_site.values() if part["value"] is not None]
    return {
        "metric": name, "unit": "machines", "level": 0.95, "resamples": 1000,
        "gain": {"alone": {
            "global": interval(whole, half), "per_site": per_site,
            "mean_site": interval(sum(known) / len(known), half / 2),
        }},
    }  # fmt: skip


def interval(value: float | None, half: float) -> Json:
    if value is None:
        return {"value": None, "low": None, "high": None, "machines": 28, "failing": 0,
                "reason": "the metric needs both classes", "sure": None}  # fmt: skip
    return {"value": value, "low": value - half, "high": value + half, "machines": 28,
            "failing": 12, "reason": None, "sure": abs(value) > half}  # fmt: skip


def counts(index: int) -> Json:
    """Return a confusion whose numbers occur nowhere else."""
    return {"hits": 1111.0 + index, "false_alarms": 2222.0 + index, "missed": 333.0 + index,
            "quiet": 4444.0 + index}  # fmt: skip


def bin_(low: float) -> Json:
    return {"low": low, "high": low + 0.1, "n": 82.0, "score": low + 0.05, "share": 0.8 * low}


def processes(failures: int) -> Json:
    """Return what one site's alarms are worth."""
    return {
        "episodes": 21, "false_episodes": 7, "false_per_period": 0.254, "exposure": 800.0,
        "failures": failures, "event_recall": 1 - 1 / failures,
        "lead_time": {"median": 4.09, "p10": 1.14, "known": failures - 1},
    }  # fmt: skip


def alarms(sites: list[str]) -> Json:
    """Return the alarms of all sites, with the curve of other thresholds."""
    return {
        "horizon": 7, "cooldown": 7, "sustained": 2, "time_unit": "days",
        "period": "machine-month of 30 days", "global": processes(29),
        "per_site": {site: processes(12 + i) for i, site in enumerate(sites)},
        "curve": [
            {"threshold": i / 20, "false_per_period": 3.2 * (1 - i / 20) ** 2,
             "median_lead": None if i > 18 else 6.0 - 0.2 * i, "event_recall": 1 - i / 25}
            for i in range(20)
        ],
        "horizons": {},
    }  # fmt: skip

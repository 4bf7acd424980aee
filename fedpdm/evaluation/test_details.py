"""What the summary says of a test beside its metrics: plain values, small (docs/summary.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedpdm.data.rows import Floats, Split
from fedpdm.evaluation import conformal
from fedpdm.evaluation.alarms import alarm_curve, count_alarms
from fedpdm.evaluation.calibration import Calibration
from fedpdm.evaluation.censoring import Censoring, joined
from fedpdm.evaluation.scoring import Predictions, machine_numbers
from fedpdm.evaluation.settings import Protocol
from fedpdm.evaluation.site_thresholds import SiteThresholds
from fedpdm.federation import Site
from fedpdm.tasks import Metrics, Risk, Task
from fedpdm.tasks.metrics import equal_mass_calibration_error, expected_calibration_error
from fedpdm.tasks.metrics import reliability as reliability_curve

CensoringBySite = Mapping[str, Mapping[Split, Censoring]]


def spread(per_site: Mapping[str, Metrics], task: Task) -> dict[str, Any]:
    """Return worst and best site in the primary metric, and how far sites are apart."""
    known = {s: v for s, m in per_site.items() if (v := m.get(task.primary)) is not None}
    if not known:
        return {"metric": task.primary, "plants": 0, "worst": None, "best": None,
                "sd": None, "range": None}  # fmt: skip
    order = sorted(known, key=lambda site: known[site], reverse=not task.higher_is_better)
    values = list(known.values())
    return {
        "metric": task.primary,
        "plants": len(known),
        "worst": {"site": order[0], "value": known[order[0]]},
        "best": {"site": order[-1], "value": known[order[-1]]},
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "range": max(values) - min(values),
    }


def gain_spread(gain: Mapping[str, float | None]) -> dict[str, Any] | None:
    """Return mean, worst and best gain over working alone, and who gains; None without any."""
    known = {site: value for site, value in gain.items() if value is not None}
    if not known:
        return None
    worst, best = min(known, key=lambda s: known[s]), max(known, key=lambda s: known[s])
    return {
        "plants": len(known),
        "better": sum(value > 0 for value in known.values()),
        "worse": sum(value < 0 for value in known.values()),
        "mean": float(np.mean(list(known.values()))),
        "worst": {"site": worst, "value": known[worst]},
        "best": {"site": best, "value": known[best]},
    }


def calibrated(
    raw: Predictions,
    predictions: Predictions,
    sites: Sequence[Site],
    task: Task,
    scale: Calibration | None,
    protocol: Protocol,
) -> dict[str, Any] | None:
    """Return how well risks mean what they say on test windows, before and after."""
    if not task.risks:
        return None
    after = {risk.key: _quality(predictions, sites, risk) for risk in task.risks}
    same = scale is None
    before = after if same else {risk.key: _quality(raw, sites, risk) for risk in task.risks}
    found = {} if scale is None else scale.described()
    return {
        "method": protocol.calibration,
        "fitted": not same,
        "temperature": found.get("temperature"),
        "before": before,
        "after": after,
    }


def reliability(
    predictions: Predictions, sites: Sequence[Site], task: Task
) -> dict[str, list[dict[str, float]]]:
    """Return the reliability curve over all test windows, by risk."""
    return {risk.key: reliability_curve(*_pooled(predictions, sites, risk)) for risk in task.risks}


def alarms(
    predictions: Predictions,
    sites: Sequence[Site],
    censoring: CensoringBySite,
    split: Split,
    task: Task,
    levels: SiteThresholds,
    protocol: Protocol,
    time_unit: str,
) -> dict[str, Any] | None:
    """Return episodes, lead times and event recall of the nearest risk, and of others in brief.

    None where no alarm can be raised; a ``reason`` where alarms cannot be counted.
    """
    risks = [risk for risk in task.risks if levels.common.get(risk.key) is not None]
    if not risks:
        return None
    own = [censoring[site.name][split] for site in sites]
    together = joined(own)
    if risks[0].horizon is None or not _lives_are_followed(together):
        return {"reason": "rows stand alone: no machine is followed over time"}
    result: dict[str, Any] = {}
    for risk in risks:
        assert risk.horizon is not None
        watch = protocol.watch(risk.horizon)
        scores = [_scores(predictions, site, split, risk) for site in sites]
        above = [s >= levels.at(site.name, risk) for s, site in zip(scores, sites, strict=True)]
        found = count_alarms(together, np.concatenate(above).astype(float), 0.5, watch, time_unit)
        if result:
            result["horizons"][risk.key] = found
            continue
        result = {
            "horizon": risk.horizon,
            "cooldown": watch.cooldown,
            "sustained": watch.sustained,
            "time_unit": time_unit,
            "period": found.pop("period"),
            "global": found,
            "per_site": {
                site.name: _without_period(
                    count_alarms(part, alarm.astype(float), 0.5, watch, time_unit)
                )
                for site, part, alarm in zip(sites, own, above, strict=True)
            },
            "curve": alarm_curve(together, np.concatenate(scores), watch, time_unit)
            if split == Split.TEST
            else None,
            "horizons": {},
        }
    return result


def intervals(
    predictions: Predictions,
    sites: Sequence[Site],
    cap: float,
    level: float,
    shared: bool,
) -> tuple[dict[str, float] | None, dict[str, Any]]:
    """Return what ``predict`` needs of the interval, and its coverage and width on test windows.

    Machines of validation calibrate it, one window each (``fedpdm.evaluation.conformal``). The
    exact binomial interval of the coverage needs one test window per machine.
    """
    owners = {
        split: machine_numbers(sites, split, shared) for split in (Split.VALIDATION, Split.TEST)
    }
    interval = conformal.calibrate(
        np.concatenate([predictions[site.name][Split.VALIDATION] for site in sites]),
        np.concatenate([_capped(site, Split.VALIDATION, cap) for site in sites]),
        np.concatenate(list(owners[Split.VALIDATION].values())),
        level,
        cap,
    )
    enough = bool(np.isfinite(interval.factor))
    result: dict[str, Any] = {
        "level": level,
        "machines": interval.machines,
        "factor": interval.factor if enough else None,
        "reason": None
        if enough
        else f"{interval.machines} validation machines are too few for a level of {level:g}: "
        "the interval is all of [0, cap]",
    }
    parts = []
    for site in sites:
        inside, width = conformal.covered(
            interval, predictions[site.name][Split.TEST], _capped(site, Split.TEST, cap)
        )
        parts.append((inside, width, owners[Split.TEST][site.name]))
    inside, width, every = (np.concatenate([part[i] for part in parts]) for i in range(3))
    result |= _coverage(inside, width, every)
    result["per_site"] = {s.name: _coverage(*part) for s, part in zip(sites, parts, strict=True)}
    card = {
        "level": level,
        "factor": interval.factor,
        "cap": cap,
        "machines": interval.machines,
    }
    return (card if enough else None), result


def _coverage(inside: Any, width: Floats, machine: Any) -> dict[str, Any]:
    count, machines = len(inside), len(np.unique(machine))
    alone = count == machines and count > 0
    return {
        "coverage": float(inside.mean()) if count else None,
        "coverage_interval": list(conformal.binomial_interval(int(inside.sum()), count))
        if alone
        else None,
        "width": float(width.mean()) if count else None,
        "n": count,
        "test_machines": machines,
    }


def _capped(site: Site, split: Split, cap: float) -> Floats:
    truth = site.windows[split].truth  # NaN: watched for the cap, and no end seen
    return np.asarray(np.minimum(np.where(np.isnan(truth), cap, truth), cap))


def _lives_are_followed(censoring: Censoring) -> bool:
    return len(censoring) > len(np.unique(censoring.life))


def _without_period(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != "period"}


def _quality(predictions: Predictions, sites: Sequence[Site], risk: Risk) -> Metrics:
    target, scores = _pooled(predictions, sites, risk)
    return {
        "brier": float(np.mean((scores - target) ** 2)) if len(target) else None,
        "ece": expected_calibration_error(target, scores),
        "ece_mass": equal_mass_calibration_error(target, scores),
    }


def _pooled(predictions: Predictions, sites: Sequence[Site], risk: Risk) -> tuple[Floats, Floats]:
    targets = [risk.of(site.test.y).astype(np.float64) for site in sites]
    scores = [_scores(predictions, site, Split.TEST, risk) for site in sites]
    return np.concatenate(targets), np.concatenate(scores)


def _scores(predictions: Predictions, site: Site, split: Split, risk: Risk) -> Floats:
    return np.asarray(risk.of(predictions[site.name][split]), dtype=np.float64)

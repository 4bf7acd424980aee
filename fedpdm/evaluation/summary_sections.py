"""Sections of summary.json about the test, besides its metrics (docs/summary.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.leakage.label_shuffle import LabelShuffle
from fedpdm.data.rows import Bools, Floats, Ints, Split
from fedpdm.evaluation import conformal
from fedpdm.evaluation.alarms import alarm_curve, count_alarms
from fedpdm.evaluation.calibration import Calibration
from fedpdm.evaluation.censoring import Censoring, joined
from fedpdm.evaluation.protocol import EvaluationProtocol
from fedpdm.evaluation.scoring import Predictions, machine_numbers
from fedpdm.evaluation.thresholds import SiteThresholds
from fedpdm.federation import Site
from fedpdm.tasks import Metrics, Risk, Task
from fedpdm.tasks.metrics import (
    capped,
    equal_mass_calibration_error,
    expected_calibration_error,
)
from fedpdm.tasks.metrics import reliability as reliability_curve

DRAWS = 1000
"""Other shuffles of labels that a run with shuffled labels is compared with."""
LEVEL = 0.99
"""Share of them within whose scores it must lie."""
CensoringBySite = Mapping[str, Mapping[Split, Censoring]]


def spread(per_site: Mapping[str, Metrics], task: Task) -> dict[str, Any]:
    """Return worst and best site in the primary metric, and how far sites are apart."""
    known = {s: v for s, m in per_site.items() if (v := m.get(task.primary)) is not None}
    order = sorted(known, key=lambda site: known[site], reverse=not task.higher_is_better)
    ends = [{"site": site, "value": known[site]} for site in order]
    values = list(known.values())
    return {
        "metric": task.primary,
        "plants": len(known),
        "worst": ends[0] if ends else None,
        "best": ends[-1] if ends else None,
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "range": max(values) - min(values) if values else None,
    }


def gain_spread(gain: Mapping[str, float | None]) -> dict[str, Any] | None:
    """Return mean, worst and best gain over working alone, and who gains; None without any."""
    known = {site: value for site, value in gain.items() if value is not None}
    if not known:
        return None
    worst, best = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    values = list(known.values())
    return {
        "plants": len(known),
        "better": sum(value > 0 for value in values),
        "worse": sum(value < 0 for value in values),
        "mean": float(np.mean(values)),
        "worst": {"site": worst, "value": known[worst]},
        "best": {"site": best, "value": known[best]},
    }


def calibrated(
    raw: Predictions,
    predictions: Predictions,
    sites: Sequence[Site],
    task: Task,
    scale: Calibration | None,
    protocol: EvaluationProtocol,
) -> dict[str, Any] | None:
    """Return how well risks mean what they say on test windows, before and after."""
    if not task.risks:
        return None
    before, after = (
        {risk.key: _quality(scores, sites, risk) for risk in task.risks}
        for scores in (raw, predictions)
    )
    return {
        "method": protocol.calibration,
        "fitted": scale is not None,
        "temperature": None if scale is None else scale.described().get("temperature"),
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
    task: Task,
    censoring: CensoringBySite,
    split: Split,
    levels: SiteThresholds,
    protocol: EvaluationProtocol,
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
    nearest, *further = risks
    if nearest.horizon is None or len(together) == len(np.unique(together.life)):
        return {"reason": "rows stand alone: no machine is followed over time"}

    def raised(risk: Risk) -> list[Bools]:
        return [risk.of(predictions[s.name][split]) >= levels.at(s.name, risk) for s in sites]

    def counted(part: Censoring, alarm: Bools, risk: Risk) -> dict[str, Any]:
        assert risk.horizon is not None  # the nearest has one, so all have
        return count_alarms(part, alarm, protocol.watch(risk.horizon), time_unit)

    watch, alarms = protocol.watch(nearest.horizon), raised(nearest)
    whole = counted(together, np.concatenate(alarms), nearest)
    parts = [counted(part, alarm, nearest) for part, alarm in zip(own, alarms, strict=True)]
    period = [found.pop("period") for found in (*parts, whole)]
    curve = None
    if split == Split.TEST:
        scores = np.concatenate([nearest.of(predictions[site.name][split]) for site in sites])
        curve = alarm_curve(together, scores, watch, time_unit)
    return {
        "horizon": nearest.horizon,
        "cooldown": watch.cooldown,
        "sustained": watch.sustained,
        "time_unit": time_unit,
        "period": period[-1],
        "global": whole,
        "per_site": {site.name: part for site, part in zip(sites, parts, strict=True)},
        "curve": curve,
        "horizons": {
            risk.key: counted(together, np.concatenate(raised(risk)), risk) for risk in further
        },
    }


def intervals(
    predictions: Predictions,
    sites: Sequence[Site],
    task: Task,
    level: float,
    shared: bool,
) -> tuple[dict[str, float] | None, dict[str, Any] | None]:
    """Return what ``predict`` needs of the interval, and its coverage and width on test windows.

    Machines of validation calibrate it, one window each (``fedpdm.evaluation.conformal``). The
    exact binomial interval of the coverage needs one test window per machine. Both are None where
    the task does not predict lives.
    """
    if (cap := task.life_cap) is None:
        return None, None

    def told(split: Split) -> list[tuple[Floats, Floats, Ints]]:
        """Return by site predicted lives, capped truth and numbers of the machines."""
        owner = machine_numbers(sites, split, shared)
        return [
            (predictions[s.name][split], capped(s.windows[split].truth, cap), owner[s.name])
            for s in sites
        ]

    predicted, truth, machine = map(np.concatenate, zip(*told(Split.VALIDATION), strict=True))
    interval = conformal.calibrate(predicted, truth, machine, level, cap)
    enough = bool(np.isfinite(interval.factor))
    parts = [
        (*conformal.covered(interval, p, t), interval.unclipped(p), owner)
        for p, t, owner in told(Split.TEST)
    ]
    reason = (
        f"{interval.machines} validation machines are too few for a level of {level:g}: "
        "the interval is all of [0, cap]"
    )
    result: dict[str, Any] = {
        "level": level,
        "machines": interval.machines,
        "factor": interval.factor if enough else None,
        "reason": None if enough else reason,
        **_coverage(*map(np.concatenate, zip(*parts, strict=True))),
        "per_site": {s.name: _coverage(*part) for s, part in zip(sites, parts, strict=True)},
    }
    return (dict(vars(interval)) if enough else None), result


def _coverage(inside: Bools, width: Floats, whole: Floats, machine: Ints) -> dict[str, Any]:
    count, machines = len(inside), len(np.unique(machine))
    ends = conformal.binomial_interval(int(inside.sum()), count) if count == machines else ()
    return {
        "coverage": float(inside.mean()) if count else None,
        "coverage_interval": list(ends) if count and ends else None,
        "width": float(width.mean()) if count else None,
        "width_unclipped": float(whole.mean()) if count and np.isfinite(whole).all() else None,
        "n": count,
        "test_machines": machines,
    }


def shuffled(
    predictions: Predictions, sites: Sequence[Site], task: Task, shuffle: LabelShuffle
) -> dict[str, Any]:
    """Return the score with shuffled labels beside its distribution over other shuffles.

    A run with shuffled labels must score like labels that are shuffled again. Average precision
    of chance is the prevalence only on average over much data; of few windows it lies above it,
    the more the fewer failures there are. So the run is compared with its own test labels,
    shuffled again many times for the same scores: an exact permutation test, also over pooled
    windows, as labels stay in their sites. Of ``rotated`` labels it is exact up to copies where
    no machine is in training and test both. Where machines are cut in time, their turned labels
    are correlated across the cut, and the test is nearly exact: of 60 generated fleets without a
    leak 1 to 3 scored above, where 0.3 were meant to. So look at another seed before believing a
    value just outside.

    Which leaks each way of shuffling shows, and which none does:
    ``fedpdm.data.leakage.label_shuffle``.

    Returns:
        ``global``, ``mean_site`` and ``per_site``, each with ``value`` (average precision, the
        mean over horizons), ``prevalence``, ``low`` and ``high`` (central 99 % of other
        shuffles), ``p`` (share of shuffles that score at least as high) and ``within``.
    """
    result: dict[str, Any] = {"kind": shuffle.kind, "draws": DRAWS, "level": LEVEL}
    if not task.risks or task.primary != "average_precision":
        return result | {"reason": f"{task.primary} has no prevalence to fall to"}
    result |= {"global": None, "mean_site": None, "per_site": {}}
    tested = [site for site in sites if len(site.test)]
    if not tested:
        return result
    # (1 + DRAWS, N) or (1 + DRAWS, N, H): the run's own labels, and others.
    labels = [
        site.test.y[
            np.vstack([np.arange(len(site.test)), shuffle.again(site.test, site.name, DRAWS)])
        ]
        for site in tested
    ]
    scores = [predictions[site.name][Split.TEST] for site in tested]
    values = [_precisions(task, *own) for own in zip(labels, scores, strict=True)]
    shares = [float(np.mean(own[0])) for own in labels]
    for site, own, share in zip(tested, values, shares, strict=True):
        result["per_site"][site.name] = _beside_others(own, share)
    every = np.concatenate(labels, axis=1)
    together = _precisions(task, every, np.concatenate(scores))
    result["global"] = _beside_others(together, float(np.mean(every[0])))
    known = [not np.isnan(own[0]) for own in values]
    if any(known):
        result["mean_site"] = _beside_others(
            np.mean(list(compress(values, known)), axis=0),
            float(np.mean(list(compress(shares, known)))),
        )
    return result


def _precisions(task: Task, labels: NDArray[np.generic], scores: Floats) -> Floats:
    """Return (1 + B,) average precision, the mean over horizons, of several sets of labels."""
    return np.asarray(np.mean([
        average_precisions(labels if risk.column is None else labels[:, :, risk.column],
                           risk.of(scores))
        for risk in task.risks
    ], axis=0))  # fmt: skip


def average_precisions(labels: NDArray[np.generic], scores: Floats) -> Floats:
    """Return (B,) average precision of (N,) scores for (B, N) 0/1 labels; NaN without both."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # ties share a level
    hits = np.cumsum(labels[:, order].astype(np.float64), axis=1)[:, ends]
    gained = np.diff(hits, axis=1, prepend=0.0)
    total = hits[:, -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (gained * hits / (ends + 1)).sum(axis=1) / total[:, 0]
    mixed = (total[:, 0] > 0) & (total[:, 0] < len(scores))
    return np.asarray(np.where(mixed, found, np.nan))


def _beside_others(values: Floats, prevalence: float) -> dict[str, Any]:
    value, others = float(values[0]), values[1:]
    if np.isnan(value):
        return {"value": None, "prevalence": prevalence, "low": None, "high": None, "p": None,
                "within": None}  # fmt: skip
    low, high = np.quantile(others, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {
        "value": value,
        "prevalence": prevalence,
        "low": float(low),
        "high": float(high),
        "p": float((1 + np.sum(others >= value)) / (1 + len(others))),
        "within": bool(low <= value <= high),
    }


def _quality(predictions: Predictions, sites: Sequence[Site], risk: Risk) -> Metrics:
    target, scores = _pooled(predictions, sites, risk)
    return {
        "brier": float(np.mean((scores - target) ** 2)) if len(target) else None,
        "ece": expected_calibration_error(target, scores),
        "ece_mass": equal_mass_calibration_error(target, scores),
    }


def _pooled(predictions: Predictions, sites: Sequence[Site], risk: Risk) -> tuple[Floats, Floats]:
    targets = [risk.of(site.test.y).astype(np.float64) for site in sites]
    scores = [risk.of(predictions[site.name][Split.TEST]) for site in sites]
    return np.concatenate(targets), np.concatenate(scores)

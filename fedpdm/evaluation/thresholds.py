"""Chooses alarm thresholds on validation data: by F1, by cost (``costs.py``) or by a budget.

A weight says how much a validation window counts, for example how likely it would be seen
had its machine been cut like those of the test (``fedpdm.evaluation.censoring.presence``).
One threshold holds for all sites, or each has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.rows import Floats, Split
from fedpdm.evaluation.costs import Accounts
from fedpdm.evaluation.protocol import ThresholdPolicy
from fedpdm.evaluation.scoring import Predictions, mean_metrics
from fedpdm.federation import Site
from fedpdm.tasks import Metrics, Risk, Task
from fedpdm.tasks.metrics import at_threshold

Weights = Mapping[str, Floats]
"""How much each validation window counts, by site."""


@dataclass(frozen=True)
class Candidates:
    """What alarms at each possible threshold would do: L levels, ascending, the last silent.

    Attributes:
        level: (L,) thresholds: every score that occurs, and one above them all.
        hits: (L,) weight of windows before a failure at or above the level.
        false: (L,) weight of healthy windows at or above it.
        failures: weight of all windows before a failure.
        healthy: weight of all others.
    """

    level: Floats
    hits: Floats
    false: Floats
    failures: float
    healthy: float

    @staticmethod
    def of(target: NDArray[np.generic], scores: Floats, weights: Floats | None) -> Candidates:
        """Count (N,) 0/1 targets and scores, by (N,) weights."""
        truth = target.astype(bool)
        weight = np.ones(len(truth)) if weights is None else weights
        level, place = np.unique(scores, return_inverse=True)
        parts = []
        for which in (truth, ~truth):
            at = np.bincount(place[which], weights=weight[which], minlength=len(level))
            parts.append(np.append(np.cumsum(at[::-1])[::-1], 0.0))
        silent = np.nextafter(level[-1] if len(level) else 0.0, np.inf)
        hits, false = parts
        return Candidates(np.append(level, silent), hits, false, float(hits[0]), float(false[0]))


def choose(
    policy: ThresholdPolicy,
    target: NDArray[np.generic],
    scores: Floats,
    weights: Floats | None = None,
) -> float | None:
    """Return the threshold for F1 or a budget; alarms are scores at or above it.

    To be called with validation data only.

    Args:
        policy: what the threshold is for.
        target: (N,) 0/1.
        scores: (N,) failure probabilities.
        weights: (N,) at least 0, or None where every window counts alike.

    Returns:
        One of the scores, or a number just above them all for a budget that none keeps; None
        where the aim cannot be judged: without both classes, for a budget without healthy windows.
    """
    known = Candidates.of(target, scores, weights)
    if policy.aim == "false_alarms":
        return within_budget(known, policy.budget)
    if not 0 < target.astype(np.int64).sum() < len(target):
        return None
    return best_f1(known)


def best_f1(known: Candidates) -> float | None:
    """Return the lowest threshold of the greatest F1; None where no failure has weight."""
    if known.failures <= 0:
        return None
    f1 = 2 * known.hits / (known.hits + known.false + known.failures)
    return float(known.level[:-1][np.argmax(f1[:-1])])


def within_budget(known: Candidates, budget: float) -> float | None:
    """Return the lowest threshold with at most a share ``budget`` of false alarms."""
    if known.healthy <= 0:
        return None
    fits = known.false <= budget * known.healthy * (1 + 1e-12)
    return float(known.level[np.argmax(fits)])  # false alarms fall as the level rises


@dataclass(frozen=True)
class SiteThresholds:
    """Alarm thresholds by risk (``Risk.key``), and by site where each has its own.

    Attributes:
        common: for sites without a threshold of their own.
        own: by site; empty if all share.
    """

    common: Mapping[str, float | None] = field(default_factory=dict)
    own: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    def of(self, site: str, risk: Risk) -> float | None:
        """Return a site's threshold: its own, else the common one."""
        found = self.own.get(site, {}).get(risk.key)
        return self.common.get(risk.key) if found is None else found

    def at(self, site: str, risk: Risk) -> float:
        """Return a site's threshold of a risk that has a common one."""
        found = self.of(site, risk)
        if found is None:
            raise KeyError(risk.key)
        return found


def choose_thresholds(
    policy: ThresholdPolicy,
    predictions: Predictions,
    sites: Sequence[Site],
    task: Task,
    weights: Weights,
    accounts: Accounts | None = None,
) -> SiteThresholds:
    """Return thresholds chosen on the sites' validation windows, and on nothing else.

    ``accounts`` prices alarms for the aim ``cost``.
    """
    common: dict[str, float | None] = {}
    own: dict[str, dict[str, float | None]] = {}

    def chosen(risk: Risk, some: Sequence[Site]) -> float | None:
        if policy.aim == "cost" and accounts is not None:
            return accounts.level(predictions, risk, some)
        parts = [_validation(predictions, site, risk, weights) for site in some]
        return choose(policy, *map(np.concatenate, zip(*parts, strict=True)))

    known = [site for site in sites if len(site.validation)]
    for risk in task.risks if known else ():
        common[risk.key] = chosen(risk, known)
        if policy.scope == "plant":
            for site in known:
                own.setdefault(site.name, {})[risk.key] = chosen(risk, [site])
    return SiteThresholds(common, own)


def add_alarms(
    result: dict[str, Any],
    predictions: Predictions,
    sites: Sequence[Site],
    split: Split,
    task: Task,
    levels: SiteThresholds,
) -> None:
    """Add what alarms at the thresholds are worth to a ``score`` result, in place.

    Metrics of further horizons end in ``_HORIZON``. Where sites have thresholds of their
    own, the pooled numbers have alarms from each site's own, and no ``threshold``.
    """
    for risk in task.risks:
        if levels.common.get(risk.key) is None:
            continue
        targets, alarms = [], []
        for site in sites:
            target, level = risk.of(site.windows[split].y), levels.at(site.name, risk)
            scores = risk.of(predictions[site.name][split])
            result["per_site"][site.name] |= _suffixed(at_threshold(target, scores, level), risk)
            targets.append(target)
            alarms.append(scores >= level)
        alarm = np.concatenate(alarms).astype(np.float64)
        together = at_threshold(np.concatenate(targets), alarm, 0.5)
        together["threshold"] = None if levels.own else levels.common[risk.key]
        result["global"] |= _suffixed(together, risk)
    result["mean_site"] = mean_metrics(list(result["per_site"].values()))


def described(
    policy: ThresholdPolicy,
    levels: SiteThresholds,
    predictions: Predictions,
    sites: Sequence[Site],
    task: Task,
    weights: Weights,
    truncated: bool,
) -> dict[str, Any] | None:
    """Return how the thresholds were chosen, and what validation data expects of them.

    ``truncated`` says that windows are weighed because test machines are cut.
    """
    if not levels.common:
        return None
    expected = {}
    for risk in task.risks:
        sums = np.zeros(4)
        for site in sites:
            target, scores, weight = _validation(predictions, site, risk, weights)
            level = levels.of(site.name, risk)
            if level is not None:
                truth, alarm = target.astype(bool), scores >= level
                counted = (truth & alarm, ~truth & alarm, truth, ~truth)
                sums += [float(weight[which].sum()) for which in counted]
        hits, false, failures, healthy = sums.tolist()
        expected[risk.key] = {
            "false_alarm_rate": false / healthy if healthy > 0 else None,
            "recall": hits / failures if failures > 0 else None,
        }
    costs = {site.name: dict(vars(policy.costs_of(site.name))) for site in sites}
    return {
        "aim": policy.aim,
        "scope": policy.scope,
        "budget": policy.budget if policy.aim == "false_alarms" else None,
        "costs": costs if policy.aim == "cost" else None,
        "truncated": truncated,
        "common": dict(levels.common),
        "per_site": {name: dict(own) for name, own in levels.own.items()},
        "validation": expected,
    }


def _suffixed(metrics: Metrics, risk: Risk) -> Metrics:
    return {f"{name}{risk.suffix}": value for name, value in metrics.items()}


def _validation(
    predictions: Predictions, site: Site, risk: Risk, weights: Weights
) -> tuple[NDArray[np.generic], Floats, Floats]:
    """Return a site's (N,) validation targets, scores and weights for a risk."""
    scores = risk.of(predictions[site.name][Split.VALIDATION])
    return risk.of(site.validation.y), scores, weights[site.name]

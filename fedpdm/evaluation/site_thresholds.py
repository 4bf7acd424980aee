"""From validation data to alarm thresholds for all sites, or for each, and what they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.rows import Bools, Floats, Split
from fedpdm.evaluation.scoring import Predictions, mean_metrics
from fedpdm.evaluation.thresholds import Candidates, Policy, choose, least_cost
from fedpdm.federation import Site
from fedpdm.tasks import Metrics, Risk, Task
from fedpdm.tasks.metrics import at_threshold

Weights = Mapping[str, Floats]
"""How much each validation window counts, by site."""


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
    policy: Policy,
    predictions: Predictions,
    sites: Sequence[Site],
    task: Task,
    weights: Weights | None,
) -> SiteThresholds:
    """Return thresholds chosen on the sites' validation windows, and on nothing else."""
    common: dict[str, float | None] = {}
    own: dict[str, dict[str, float | None]] = {}
    for risk in task.risks:
        known = [
            _validation(predictions, site, risk, weights)
            for site in sites
            if len(site.validation) and site.validation.y.dtype.kind in "if"
        ]
        if not known:
            continue
        names = [site.name for site in sites if len(site.validation)]
        target, scores = (np.concatenate([part[i] for part in known]) for i in (0, 1))
        weight = None if weights is None else np.concatenate([weights[name] for name in names])
        if policy.aim == "cost" and 0 < target.astype(np.int64).sum() < len(target):
            candidates = [
                (Candidates.of(*part), policy.costs_of(name))
                for name, part in zip(names, known, strict=True)
            ]
            common[risk.key] = least_cost(candidates)
        else:
            common[risk.key] = choose(policy, target, scores, weight)
        if policy.scope == "plant":
            for name, part in zip(names, known, strict=True):
                own.setdefault(name, {})[risk.key] = choose(policy, *part, site=name)
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
            target = risk.of(site.windows[split].y)
            level = levels.at(site.name, risk)
            scores = np.asarray(risk.of(predictions[site.name][split]), dtype=np.float64)
            found = at_threshold(target, scores, level)
            result["per_site"][site.name] |= suffixed(found, risk)
            targets.append(target)
            alarms.append(scores >= level)
        together = at_threshold(np.concatenate(targets), _as_scores(alarms), 0.5)
        together["threshold"] = None if levels.own else levels.common[risk.key]
        result["global"] |= suffixed(together, risk)
    result["mean_site"] = mean_metrics(list(result["per_site"].values()))


def described(
    policy: Policy,
    levels: SiteThresholds,
    predictions: Predictions,
    sites: Sequence[Site],
    task: Task,
    weights: Weights | None,
) -> dict[str, Any] | None:
    """Return how the thresholds were chosen, and what validation data expects of them."""
    if not levels.common:
        return None
    expected = {}
    for risk in task.risks:
        hits, false, failures, healthy = 0.0, 0.0, 0.0, 0.0
        for site in sites:
            target, scores, weight = _validation(predictions, site, risk, weights)
            level = levels.of(site.name, risk)
            if level is None:
                continue
            share = np.ones(len(target)) if weight is None else weight
            truth, alarm = target.astype(bool), scores >= level
            hits += float(share[truth & alarm].sum())
            false += float(share[~truth & alarm].sum())
            failures += float(share[truth].sum())
            healthy += float(share[~truth].sum())
        expected[risk.key] = {
            "false_alarm_rate": false / healthy if healthy > 0 else None,
            "recall": hits / failures if failures > 0 else None,
        }
    return {
        "aim": policy.aim,
        "scope": policy.scope,
        "budget": policy.budget if policy.aim == "false_alarms" else None,
        "costs": _costs(policy, sites) if policy.aim == "cost" else None,
        "truncated": weights is not None,
        "common": dict(levels.common),
        "per_site": {name: dict(own) for name, own in levels.own.items()},
        "validation": expected,
    }


def suffixed(metrics: Metrics, risk: Risk) -> Metrics:
    """Return the metrics under the names of a risk."""
    return {f"{name}{risk.suffix}": value for name, value in metrics.items()}


def _costs(policy: Policy, sites: Sequence[Site]) -> dict[str, dict[str, float]]:
    return {site.name: dict(vars(policy.costs_of(site.name))) for site in sites}


def _as_scores(alarms: list[Bools]) -> Floats:
    return np.concatenate(alarms).astype(np.float64)


def _validation(
    predictions: Predictions, site: Site, risk: Risk, weights: Weights | None
) -> tuple[NDArray[np.generic], Floats, Floats | None]:
    """Return a site's (N,) validation targets, scores and weights for a risk."""
    return (
        risk.of(site.validation.y),
        np.asarray(risk.of(predictions[site.name][Split.VALIDATION]), dtype=np.float64),
        None if weights is None else weights[site.name],
    )

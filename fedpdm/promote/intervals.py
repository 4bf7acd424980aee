"""How sure the gain over a constant is, for any metric: machines count, never rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedpdm.data.rows import Split
from fedpdm.evaluation.bootstrap import LEVEL
from fedpdm.evaluation.confidence import certainty
from fedpdm.evaluation.scoring import Predictions, machine_numbers
from fedpdm.promote.evidence import Evidence


def gain_over_constant(evidence: Evidence, resamples: int) -> dict[str, Any]:
    """Return ``value``, ``low``, ``high`` (95 %), ``machines`` and ``reason`` of the gain.

    In the primary metric on all test windows, over the best constant of the training windows;
    positive is better. ``low`` is None where there is no interval, and ``reason`` says why.

    Args:
        evidence: the run, tested again.
        resamples: of machines.
    """
    task, source = evidence.task, evidence.experiment.federation.source
    constant = task.trivial(np.concatenate([s.train.real().y for s in evidence.sites]))
    answers: Predictions = {
        site.name: {
            split: np.broadcast_to(constant, (len(part), *constant.shape)).copy()
            for split, part in site.windows.items()
        }
        for site in evidence.sites
    }
    found = certainty(
        evidence.test.predictions, {"trivial": answers}, evidence.sites, task,
        resamples=resamples, seed=evidence.experiment.seed, shared=source.shares_machines,
    )  # fmt: skip
    assert found is not None  # there are resamples
    if "gain" in found:
        known: dict[str, Any] = found["gain"].get("trivial", {}).get("global", {})
        return known
    return _jackknife(evidence, answers)


def _jackknife(evidence: Evidence, answers: Predictions) -> dict[str, Any]:
    """Return the same for a metric without slopes, leaving out each machine in turn.

    Within a site of n machines the variance of the gain is (n − 1) / n times the sum of squares
    of what is left out changes it; the interval is Student's with a degree of freedom less than
    machines at each site (Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans).
    """
    from scipy import stats

    task = evidence.task
    sites = [site for site in evidence.sites if len(site.test)]
    if not sites:
        return {"low": None, "reason": "no site has a test window"}
    shared = evidence.experiment.federation.source.shares_machines
    numbers = machine_numbers(sites, Split.TEST, shared)
    machine = np.concatenate([numbers[site.name] for site in sites])
    target = np.concatenate([site.test.y for site in sites])
    truth = np.concatenate([site.test.truth for site in sites])
    ours, theirs = (
        np.concatenate([scores[site.name][Split.TEST] for site in sites])
        for scores in (evidence.test.predictions, answers)
    )
    groups = [np.unique(numbers[site.name]) for site in sites]
    groups = [np.unique(np.concatenate(groups))] if shared else groups
    sign = 1.0 if task.higher_is_better else -1.0

    def gain(kept: Any) -> float:
        both = [
            task.metrics(target[kept], truth[kept], scores[kept]).get(task.primary)
            for scores in (ours, theirs)
        ]
        if both[0] is None or both[1] is None:
            return float("nan")
        return sign * (both[0] - both[1])

    count = len(np.unique(machine))
    freedom = count - len(groups)
    if freedom < 1:
        return {"low": None, "reason": "one machine at each site: there is nothing to leave out"}
    value = gain(np.ones(len(machine), dtype=bool))
    found = {"value": value, "low": None, "high": None, "machines": count}
    without = [np.array([gain(machine != number) for number in own]) for own in groups]
    variance = sum(
        (len(own) - 1) / len(own) * float(np.sum((own - own.mean()) ** 2)) for own in without
    )
    if not np.isfinite(variance) or not np.isfinite(value):
        return found | {"reason": "one kind of label only without one of the machines"}
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * float(np.sqrt(variance))
    return found | {"low": value - half, "high": value + half, "reason": None}

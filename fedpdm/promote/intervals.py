"""How sure the gain over a constant is, for any metric: machines count, never rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fedpdm.data.rows import Bools, Ints, Split
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
    """Return the same for a metric without slopes, leaving out each machine in turn."""
    task = evidence.task
    sites = [site for site in evidence.sites if len(site.test)]
    if not sites:
        return {"low": None, "reason": "no site has a test window"}
    shared = evidence.experiment.federation.source.shares_machines
    numbers = machine_numbers(sites, Split.TEST, shared)
    target = np.concatenate([site.test.y for site in sites])
    truth = np.concatenate([site.test.truth for site in sites])
    ours, theirs = (
        np.concatenate([scores[site.name][Split.TEST] for site in sites])
        for scores in (evidence.test.predictions, answers)
    )
    sign = 1.0 if task.higher_is_better else -1.0

    def gain(kept: Bools) -> float:
        both = [
            task.metrics(target[kept], truth[kept], scores[kept]).get(task.primary)
            for scores in (ours, theirs)
        ]
        if both[0] is None or both[1] is None:
            return float("nan")
        return sign * (both[0] - both[1])

    machines = [numbers[site.name] for site in sites]
    return leaving_out(gain, [np.concatenate(machines)] if shared else machines)


def leaving_out(gain: Callable[[Bools], float], machines: Sequence[Ints]) -> dict[str, Any]:
    """Return a metric's interval by the jackknife over machines within sites.

    One of N machines left out moves the metric by N / (N − 1) times what a small change of its
    weight does. Within a site of n machines the variance is n / (n − 1) times the sum of squares
    of those changes, and the interval is Student's with a degree of freedom less than machines at
    each site (Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans). Coverage:
    ``benchmarks/coverage.py``.

    Args:
        gain: the metric of the windows that are kept; NaN where there is none.
        machines: by site, the number of each window's machine; all windows in this order.
    """
    from scipy import stats

    machine = np.concatenate(machines)
    groups = [np.unique(own) for own in machines]
    count = sum(len(own) for own in groups)
    freedom = count - len(groups)
    if freedom < 1:
        return {"low": None, "reason": "one machine at each site: there is nothing to leave out"}
    value = gain(np.ones(len(machine), dtype=bool))
    found = {"value": value, "low": None, "high": None, "machines": count}
    without = [np.array([gain(machine != number) for number in own]) for own in groups]
    changes = [(count - 1) / count * (own - own.mean()) for own in without if len(own) > 1]
    variance = sum(len(own) / (len(own) - 1) * float(np.sum(own**2)) for own in changes)
    if not np.isfinite(variance) or not np.isfinite(value):
        return found | {"reason": "one kind of label only without one of the machines"}
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * float(np.sqrt(variance))
    return found | {"low": value - half, "high": value + half, "reason": None}

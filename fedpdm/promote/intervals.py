"""How sure the gain over a constant is, for any metric: machines are drawn again, never rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedpdm.data.rows import Split
from fedpdm.evaluation.bootstrap import percentile_interval
from fedpdm.evaluation.confidence import certainty
from fedpdm.evaluation.scoring import Predictions, machine_numbers
from fedpdm.promote.evidence import Evidence
from fedpdm.seeding import numpy_generator

SLOW = 200
"""Resamples of a metric that is computed again for each of them."""


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
    return _drawn_again(evidence, answers, min(resamples, SLOW))


def _drawn_again(evidence: Evidence, answers: Predictions, resamples: int) -> dict[str, Any]:
    """Return the same for a metric without a fast bootstrap."""
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
    windows = {number: np.flatnonzero(machine == number) for number in np.unique(machine)}
    sign = 1.0 if task.higher_is_better else -1.0

    def gain(index: Any) -> float:
        both = [
            task.metrics(target[index], truth[index], scores[index]).get(task.primary)
            for scores in (ours, theirs)
        ]
        if both[0] is None or both[1] is None:
            return float("nan")
        return sign * (both[0] - both[1])

    draw = numpy_generator(evidence.experiment.seed, "promote")
    values = [
        gain(
            np.concatenate(
                [windows[n] for own in groups for n in draw.choice(own, size=len(own)).tolist()]
            )
        )
        for _ in range(resamples)
    ]
    count = len(windows)
    ends = percentile_interval(np.array(values)) if count > len(groups) else None
    low, high = ends or (None, None)
    reason = None if ends else "too few machines to draw from, or one kind of label only"
    value = gain(np.arange(len(machine)))
    return {"value": value, "low": low, "high": high, "machines": count, "reason": reason}

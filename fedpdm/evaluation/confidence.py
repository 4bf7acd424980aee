"""Confidence intervals of the primary metric and of the gains, by a bootstrap over machines.

Draws, metrics and when a gain is called sure: ``fedpdm.evaluation.bootstrap``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpdm.data.rows import Floats, Ints, Split
from fedpdm.data.windows import Windows
from fedpdm.evaluation.bootstrap import (
    LEVEL,
    Resampled,
    Size,
    affordable,
    average_precision,
    beyond_chance,
    draws,
    mean_of,
    percentile_interval,
    root_mean_square,
)
from fedpdm.evaluation.scoring import Predictions, machine_numbers
from fedpdm.federation import Site
from fedpdm.tasks import Task
from fedpdm.tasks.metrics import capped

LEAST = 200
"""Fewer resamples say nothing about the ends of an interval."""


@dataclass(frozen=True)
class _Population:
    """The machines behind the sites' test windows.

    Attributes:
        of_window: by site, (N,) number of each window's machine.
        weights: (B, M) how often each is drawn, within its site.
        failing: by site, numbers of its machines with a failure ahead; None without risks.
        shared: whether sites see the same machines.
    """

    of_window: Mapping[str, Ints]
    weights: Floats
    failing: Mapping[str, Ints] | None
    shared: bool

    def size(self, sites: Sequence[str]) -> Size:
        """Return how many machines stand behind a number of some sites."""
        machines = [np.unique(self.of_window[name]) for name in sites]
        carrying = machines if self.failing is None else [self.failing[name] for name in sites]
        groups = min(1, len(sites)) if self.shared else sum(len(own) > 0 for own in carrying)
        every, failed = (len(np.unique(np.concatenate(own))) for own in (machines, carrying))
        return Size(every, None if self.failing is None else failed, groups)


def certainty(
    predictions: Predictions,
    baselines: Mapping[str, Predictions],
    sites: Sequence[Site],
    task: Task,
    *,
    resamples: int,
    seed: int,
    shared: bool = False,
) -> dict[str, Any] | None:
    """Return 95 % intervals of the primary metric and of the gains over baselines.

    Args:
        predictions: of the federation.
        baselines: by name; each is compared where it tested a site.
        sites: the sites.
        task: gives the metric.
        resamples: of the machines; 0 for no bootstrap.
        seed: of the draws.
        shared: whether sites see the same machines, each its own rows; then machines are
            drawn for all sites at once.

    Returns:
        None without resamples; a ``reason`` where the metric or the data does not allow it.
        A gain's ``sure`` says whether it is more than chance, corrected for the number of
        sites that are judged; None, with the reason, where too few machines failed.
    """
    tested = [site for site in sites if len(site.test)]
    if resamples == 0:
        return None
    result: dict[str, Any] = {"metric": task.primary, "unit": "machines", "level": LEVEL}
    if not _is_known(task):
        return result | {"resamples": 0, "reason": f"no bootstrap of {task.primary} is known"}
    if not tested:
        return result | {"resamples": 0, "reason": "no site has a test window"}
    of_window = machine_numbers(tested, Split.TEST, shared)
    machines = int(max(number.max() for number in of_window.values())) + 1
    positives = sum(int(np.sum(site.test.y)) for site in tested) if task.risks else 1
    count = affordable(resamples, machines, positives)
    if count < min(LEAST, resamples):
        return result | {"resamples": 0, "reason": "too many machines to draw them again often"}
    owner = np.zeros(machines, dtype=np.int64)
    failing: dict[str, Ints] | None = {} if task.risks else None
    for number, site in enumerate(tested):
        own = of_window[site.name]
        owner[own] = 0 if shared else number
        if failing is not None:
            failing[site.name] = np.unique(own[task.risks[0].of(site.test.y).astype(bool)])
    population = _Population(of_window, draws(owner, count, seed), failing, shared)
    ours = _resampled(predictions, tested, task, population)
    result |= {"resamples": count, **_intervals(ours, population)}
    sign = 1.0 if task.higher_is_better else -1.0
    gain = {}
    for name, theirs in baselines.items():
        both = [site for site in tested if site.name in theirs]
        if not both:
            continue
        left = _resampled(predictions, both, task, population)
        right = _resampled(theirs, both, task, population)
        difference = {key: sign * (left[key] - right[key]) for key in left}
        gain[name] = _intervals(difference, population, judged=True)
    return result | {"gain": gain}


def _resampled(
    predictions: Predictions, sites: Sequence[Site], task: Task, population: _Population
) -> dict[str, Floats]:
    """Return (1 + B,) values by site, and over all windows (``""``) and sites (``"mean"``).

    The first is that of the sample itself, and exact.
    """
    weights = population.weights
    result = {}
    for site in sites:
        own = population.of_window[site.name]
        number = np.unique(own, return_inverse=True)[1]
        scores = predictions[site.name][Split.TEST]
        metric = _metric(task, site.test, scores, number, int(number.max()) + 1)
        exact = _exact(task, site.test, scores)
        result[site.name] = np.concatenate([exact, metric(weights[:, np.unique(own)])])
    means = np.stack(list(result.values()))
    known = ~np.isnan(means)
    with np.errstate(invalid="ignore"):
        result["mean"] = np.where(known, means, 0.0).sum(axis=0) / known.sum(axis=0)
    together = Windows.concatenate([site.test for site in sites])
    scores = np.concatenate([predictions[site.name][Split.TEST] for site in sites])
    number = np.concatenate([population.of_window[site.name] for site in sites])
    metric = _metric(task, together, scores, number, weights.shape[1])
    result[""] = np.concatenate([_exact(task, together, scores), metric(weights)])
    return result


def _intervals(
    values: Mapping[str, Floats], population: _Population, judged: bool = False
) -> dict[str, Any]:
    """Return the intervals; of ``judged`` gains also whether each is ``sure``, or why not."""
    sites = [name for name in values if name in population.of_window]
    sizes = dict.fromkeys(("", "mean"), population.size(sites))
    sizes |= {name: population.size([name]) for name in sites}
    entries = {key: _interval(values[key], size) for key, size in sizes.items()}
    if judged:
        asked = [n for n in sites if entries[n]["low"] is not None and not sizes[n].too_few]
        for key, entry in entries.items():
            entry["sure"] = None
            if entry["low"] is None:
                continue
            entry["reason"] = sizes[key].too_few
            if sizes[key].too_few is None:
                looks = len(asked) if key in sites else 1
                outside = entry["low"] > 0 or entry["high"] < 0
                entry["sure"] = outside and beyond_chance(
                    entry["value"], values[key][1:], sizes[key], looks
                )
    return {
        "global": entries[""],
        "mean_site": entries["mean"],
        "per_site": {name: entries[name] for name in sites},
    }


def _interval(values: Floats, size: Size) -> dict[str, Any]:
    value = float(values[0]) if np.isfinite(values[0]) else None
    ends, reason = None, None
    if value is None:
        reason = "the metric needs both classes"
    elif size.machines < 2:
        reason = "one machine: there is nothing to draw from"
    elif (ends := percentile_interval(values[1:])) is None:
        reason = "too often no machine with a failure was drawn"
    low, high = ends or (None, None)
    return {
        "value": value, "low": low, "high": high,
        "machines": size.machines, "failing": size.failing, "reason": reason,
    }  # fmt: skip


def _is_known(task: Task) -> bool:
    if task.life_cap is not None:
        return task.primary == "rmse"
    return bool(task.risks) and task.primary == "average_precision"


def _exact(task: Task, windows: Windows, scores: Floats) -> Floats:
    """Return (1,) the metric of the windows as they are, whatever their number.

    NaN where it cannot be computed, as for the plain metric: no failure, or nothing else.
    """
    if any(len(np.unique(risk.of(windows.y))) < 2 for risk in task.risks):
        return np.array([np.nan])
    alike = np.zeros(len(windows), dtype=np.int64)
    return _metric(task, windows, scores, alike, 1, coarse=False)(np.ones((1, 1)))


def _metric(
    task: Task,
    windows: Windows,
    scores: Floats,
    machine: Ints,
    machines: int,
    *,
    coarse: bool = True,
) -> Resampled:
    """Return the resampled primary metric of a task that ``_is_known``."""
    if task.life_cap is not None:
        return root_mean_square(scores - capped(windows.truth, task.life_cap), machine, machines)
    return mean_of([
        average_precision(risk.of(windows.y), risk.of(scores), machine, machines, coarse=coarse)
        for risk in task.risks
    ])  # fmt: skip

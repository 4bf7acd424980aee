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
    LOG,
    LOGIT,
    Drawn,
    Resampled,
    Scale,
    Size,
    affordable,
    average_precision,
    beyond_chance,
    bootstrap_t,
    draws,
    mean_of,
    root_mean_square,
)
from fedpdm.evaluation.scoring import Predictions, machine_numbers
from fedpdm.federation import Site
from fedpdm.tasks import Task
from fedpdm.tasks.metrics import capped

FEWEST_RISKS, FEWEST_LIVES, FEWEST_FAILED, FEWEST_AT_A_SITE = 8, 16, 3, 4
"""Machines below which there is no interval of average precision, of an error of lives; of them
those that failed; and the mean number at a site: with fewer, coverage was not shown
(``benchmarks/coverage.py``)."""
LEAST = 200
"""Fewer resamples say nothing about the ends of an interval."""


@dataclass(frozen=True)
class _Population:
    """The machines behind the sites' test windows.

    Attributes:
        of_window: by site, (N,) number of each window's machine.
        weights: (1 + B, M) how often each is drawn, within its site; the first are ones.
        owner: (M,) number of the site that a machine is drawn in.
        failing: by site, numbers of its machines with a failure ahead; None without risks.
        shared: whether sites see the same machines.
    """

    of_window: Mapping[str, Ints]
    weights: Floats
    owner: Ints
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
    weights = np.concatenate([np.ones((1, machines)), draws(owner, count, seed)])
    population = _Population(of_window, weights, owner, failing, shared)
    ours = _resampled(predictions, tested, task, population)
    scale = LOGIT if task.risks else LOG
    result |= {"resamples": count, **_intervals(ours, population, scale)}
    gain = {}
    for name, theirs in baselines.items():
        both = [site for site in tested if site.name in theirs]
        if not both:
            continue
        # Mostly a baseline tests every site, and what it is compared with is known already.
        left = ours if both == tested else _resampled(predictions, both, task, population)
        right = _resampled(theirs, both, task, population)
        worse, better = (right, left) if task.higher_is_better else (left, right)
        gain[name] = _intervals({key: better[key] - worse[key] for key in left}, population)
    return result | {"gain": gain}


@dataclass(frozen=True)
class _Sampled:
    """A metric, exact and on resamples.

    Attributes:
        value: of the sample; NaN where it has none.
        drawn: of the sample and of resamples, at coarser levels of alarm.
        index: numbers of the machines that ``drawn`` has slopes of.
    """

    value: float
    drawn: Drawn
    index: Ints

    def __sub__(self, other: _Sampled) -> _Sampled:
        return _Sampled(self.value - other.value, self.drawn - other.drawn, self.index)


def _resampled(
    predictions: Predictions, sites: Sequence[Site], task: Task, population: _Population
) -> dict[str, _Sampled]:
    """Return the metric by site, over all windows (``""``), and the mean of sites (``"mean"``)."""
    weights = population.weights
    result = {}
    for site in sites:
        own = population.of_window[site.name]
        index, number = np.unique(own, return_inverse=True)
        scores = predictions[site.name][Split.TEST]
        drawn = _metric(task, site.test, scores, number, len(index))(weights[:, index])
        result[site.name] = _Sampled(_exact(task, site.test, scores), drawn, index)
    if len(sites) == 1:
        return result | {"mean": result[sites[0].name], "": result[sites[0].name]}
    result["mean"] = _mean(list(result.values()), weights.shape)
    together = Windows.concatenate([site.test for site in sites])
    scores = np.concatenate([predictions[site.name][Split.TEST] for site in sites])
    number = np.concatenate([population.of_window[site.name] for site in sites])
    drawn = _metric(task, together, scores, number, weights.shape[1])(weights)
    every = np.arange(weights.shape[1])
    result[""] = _Sampled(_exact(task, together, scores), drawn, every)
    return result


def _mean(parts: Sequence[_Sampled], shape: tuple[int, ...]) -> _Sampled:
    """Return the mean over the sites that have a value; slopes are of all (1 + B, M) machines."""
    known = np.stack([~np.isnan(part.drawn.values) for part in parts])
    count = known.sum(axis=0)
    slopes = np.zeros(shape)
    for part, has in zip(parts, known, strict=True):
        slopes[:, part.index] += np.where(has[:, None], part.drawn.slopes, 0.0)
    exact = np.array([part.value for part in parts])
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.where(known, [part.drawn.values for part in parts], 0.0).sum(axis=0) / count
        slopes /= count[:, None]
        value = exact[~np.isnan(exact)].sum() / (~np.isnan(exact)).sum()
    return _Sampled(float(value), Drawn(values, slopes), np.arange(shape[1]))


def _intervals(
    found: Mapping[str, _Sampled], population: _Population, scale: Scale | None = None
) -> dict[str, Any]:
    """Return the intervals on a scale; of gains (no scale) also whether each is ``sure``."""
    sites = [name for name in found if name in population.of_window]
    sizes = dict.fromkeys(("", "mean"), population.size(sites))
    sizes |= {name: population.size([name]) for name in sites}
    entries = {key: _interval(found[key], sizes[key], population, scale) for key in sizes}
    if scale is None:
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
                    entry["value"], found[key].drawn.values[1:], sizes[key], looks
                )
    return {
        "global": entries[""],
        "mean_site": entries["mean"],
        "per_site": {name: entries[name] for name in sites},
    }


def _interval(
    found: _Sampled, size: Size, population: _Population, scale: Scale | None
) -> dict[str, Any]:
    value = found.value if np.isfinite(found.value) else None
    ends, reason = None, None
    weights, owner = population.weights[:, found.index], population.owner[found.index]
    if value is None:
        reason = "the metric needs both classes"
    elif size.machines < 2:
        reason = "one machine: there is nothing to draw from"
    elif _too_few(size, len(np.unique(owner))):
        reason = "too few machines for an interval"
    elif (ends := bootstrap_t(value, found.drawn, weights, owner, scale)) is None:
        reason = "the machines that were drawn are too much alike, or none failed, too often"
    low, high = ends or (None, None)
    return {
        "value": value, "low": low, "high": high,
        "machines": size.machines, "failing": size.failing, "reason": reason,
    }  # fmt: skip


def _too_few(size: Size, sites: int) -> bool:
    """Return whether intervals of so few machines at so many sites were not shown to cover."""
    fewest = FEWEST_LIVES if size.failing is None else FEWEST_RISKS
    return (
        size.machines < max(fewest, FEWEST_AT_A_SITE * sites)
        or size.carrying < FEWEST_FAILED
        or size.carrying <= size.sites
    )


def _is_known(task: Task) -> bool:
    if task.life_cap is not None:
        return task.primary == "rmse"
    return bool(task.risks) and task.primary == "average_precision"


def _exact(task: Task, windows: Windows, scores: Floats) -> float:
    """Return the metric of the windows as they are, whatever their number.

    NaN where it cannot be computed, as for the plain metric: no failure, or nothing else.
    """
    if any(len(np.unique(risk.of(windows.y))) < 2 for risk in task.risks):
        return float("nan")
    alike = np.zeros(len(windows), dtype=np.int64)
    metric = _metric(task, windows, scores, alike, 1, coarse=False)
    return float(metric(np.ones((1, 1))).values[0])


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

"""Bootstrap over machines: how sure a number or a gain is. Rows are never resampled.

Rows of a machine are alike, so drawing rows would promise far too much. Machines are drawn
with replacement within their site (the sites of a federation are given, their machines a
sample), B times; the interval is that of the percentiles. A machine drawn twice counts
twice, so a resample is a weight per machine, and all resamples of a metric are a few
products of matrices. N windows, M machines, B resamples, K levels of alarm.

What average precision rests on is machines that failed in the test part. Of two equally good
models with two such machines, percentiles of a bootstrap call one better in half of all runs,
with five in every seventh. So nothing is called sure of fewer than ``FEWEST``; from there on
trials of equal models (tests/evaluation/test_significance.py) call a gain sure in about 5 %
of the runs, however many sites there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.rows import Floats, Ints
from fedpdm.evaluation.wording import counted
from fedpdm.seeding import numpy_generator

LEVEL = 0.95
LEAST = 0.9
"""Share of the resamples that must have a value, for example both classes."""
WORK = 4e9
"""Multiplications that one metric may cost; of larger data fewer resamples are drawn."""
MOST_LEVELS = 1000
"""Levels of alarm at which the precision of resamples is taken."""
RISK = 0.05
"""Of calling any site's gain sure where no site has one."""
FEWEST = 10
"""Machines that carry the metric (for a risk those that failed) below which nothing is sure."""

Resampled = Callable[[Floats], Floats]
"""From (B, M) weights of machines to (B,) values of a metric; NaN where it has none."""


def draws(site: Ints, resamples: int, seed: int) -> Floats:
    """Return (B, M) how often each machine is drawn, within its site.

    Args:
        site: (M,) number of the site a machine belongs to.
        resamples: B.
        seed: of the draws.
    """
    random = numpy_generator(seed, "bootstrap", len(site))
    weights = np.zeros((resamples, len(site)))
    for number in np.unique(site):
        own = np.flatnonzero(site == number)
        even = np.full(len(own), 1.0 / len(own))
        weights[:, own] = random.multinomial(len(own), even, size=resamples)
    return weights


def percentile_interval(values: Floats) -> tuple[float, float] | None:
    """Return the central 95 % of (B,) resampled values; None where too many have no value."""
    known = values[np.isfinite(values)]
    if len(values) == 0 or len(known) < LEAST * len(values):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def average_precision(
    target: NDArray[np.generic],
    scores: Floats,
    machine: Ints,
    machines: int,
    *,
    coarse: bool = True,
) -> Resampled:
    """Return the resampled average precision of (N,) scores.

    AP is the mean over failures' windows of the precision at their score (ties share the
    lowest place). Only the K scores of windows before a failure matter, and at each of them
    the windows in alarm are a sum over machines: weights times counts. ``coarse`` takes the
    precision at ``MOST_LEVELS`` of them at most.
    """
    truth = target.astype(bool)
    levels = np.unique(scores[truth])
    if coarse and len(levels) > MOST_LEVELS:
        # No window is lost: its level is the next below.
        levels = levels[np.linspace(0, len(levels) - 1, MOST_LEVELS).astype(np.int64)]
    place, k = np.searchsorted(levels, scores[truth], side="right") - 1, len(levels)
    positives = _counts(machine[truth], place, machines, k)
    # A window is in alarm at every level up to its own score.
    reached = np.searchsorted(levels, scores, side="right") - 1
    alarmed = reached >= 0
    alarms = _at_or_above(_counts(machine[alarmed], reached[alarmed], machines, k))
    hits = _at_or_above(positives)

    def resampled(weights: Floats) -> Floats:
        at, found, said = weights @ positives, weights @ hits, weights @ alarms
        precision = _ratio(found, said, 0.0)
        return _ratio((at * precision).sum(axis=1), at.sum(axis=1), np.nan)

    return resampled


def root_mean_square(error: Floats, machine: Ints, machines: int) -> Resampled:
    """Return the resampled root mean square of (N,) errors."""
    squares = np.bincount(machine, weights=error**2, minlength=machines)
    count = np.bincount(machine, minlength=machines).astype(np.float64)

    def resampled(weights: Floats) -> Floats:
        return np.asarray(np.sqrt(_ratio(weights @ squares, weights @ count, np.nan)))

    return resampled


def mean_of(parts: Sequence[Resampled]) -> Resampled:
    """Return the mean of several metrics, for example over horizons."""

    def resampled(weights: Floats) -> Floats:
        return np.asarray(np.mean([part(weights) for part in parts], axis=0))

    return resampled


def affordable(resamples: int, machines: int, positives: int) -> int:
    """Return how many resamples are drawn: fewer where there are very many windows."""
    cost = 3.0 * max(machines, 1) * min(max(positives, 1), MOST_LEVELS)
    return max(0, min(resamples, int(WORK / cost)))


def _ratio(part: Floats, whole: Floats, empty: float) -> Floats:
    """Return the ratio of two arrays; ``empty`` where the whole is 0."""
    return np.asarray(np.divide(part, whole, out=np.full_like(part, empty), where=whole > 0))


def _counts(machine: Ints, place: Ints, machines: int, levels: int) -> Floats:
    """Return (M, K) how many windows each machine has at each level."""
    flat = np.bincount(machine * levels + place, minlength=machines * levels)
    return flat.reshape(machines, levels).astype(np.float64)


def _at_or_above(counts: Floats) -> Floats:
    return np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]


# Whether a gain is more than chance --------------------------------------------------


@dataclass(frozen=True)
class Size:
    """How many machines stand behind a number.

    Attributes:
        machines: with a test window.
        failing: of them with a failure ahead, of the nearest horizon; None where the task
            asks for no risk.
        sites: whose machines carry the number, drawn apart from each other.
    """

    machines: int
    failing: int | None
    sites: int

    @property
    def carrying(self) -> int:
        return self.machines if self.failing is None else self.failing

    @property
    def too_few(self) -> str | None:
        """Why nothing can be called sure; None if it can."""
        failed = "" if self.failing is None else " failed"
        if self.carrying < FEWEST:
            only = f"only {counted(self.carrying, 'machine')}" if self.carrying else "no machine"
            return f"{only}{failed}: too few to be sure"
        if self.carrying <= self.sites:
            return f"only one machine{failed} at each site: too few to be sure"
        return None


def beyond_chance(value: float, values: Floats, size: Size, looks: int) -> bool:
    """Return whether a difference is more than chance, where ``looks`` sites are looked at.

    Percentiles promise too much of few machines, more so the further out they lie. So the
    spread of the resamples goes with Student's t: a bootstrap within sites has as many
    degrees of freedom as machines less sites, and its variance is too small by their share.
    The risk is divided by ``looks`` (Bonferroni).

    Args:
        value: difference on the sample itself.
        values: (B,) resampled differences; NaN where there is none.
        size: of the sample, with more machines that carry the metric than sites.
        looks: how many such questions are asked at once.
    """
    from scipy import stats

    freedom = size.carrying - size.sites
    spread = float(np.std(values[np.isfinite(values)], ddof=1)) * np.sqrt(size.carrying / freedom)
    return bool(abs(value) > float(stats.t.isf(RISK / looks / 2, freedom)) * spread)

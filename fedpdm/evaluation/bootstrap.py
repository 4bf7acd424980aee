"""Bootstrap over machines: how sure a number or a gain is. Rows are never resampled.

Rows of a machine are alike, so drawing rows would promise far too much. Machines are drawn
with replacement within their site (the sites of a federation are given, their machines a
sample), B times. A machine drawn twice counts twice, so a resample is a weight per machine,
and all resamples of a metric are a few products of matrices. N windows, M machines, B
resamples, K levels of alarm.

The interval is the symmetric bootstrap-t (Hall 1988, Journal of the Royal Statistical Society
B 50): each resample is measured in units of its own standard error, which comes from the
slopes of the metric in the weights (the infinitesimal jackknife). How often it holds the truth,
and how seldom percentiles do, is measured by ``benchmarks/coverage.py``.

What average precision rests on is machines that failed in the test part. Of two equally good
models with two such machines, percentiles of a bootstrap call one better in half of all runs,
with five in every seventh. So nothing is called sure of fewer than ``FEWEST``; from there on
equal models are called surely different in 5 % of the runs, at most 7 %, with one to ten sites
(twins in ``benchmarks/coverage.py``, and tests/evaluation/test_significance.py).
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


@dataclass(frozen=True)
class Drawn:
    """A metric on resamples of machines.

    Attributes:
        values: (B,) the metric; NaN where it has none.
        slopes: (B, M) its derivative in each machine's weight.
    """

    values: Floats
    slopes: Floats

    def __sub__(self, other: Drawn) -> Drawn:
        return Drawn(self.values - other.values, self.slopes - other.slopes)


@dataclass(frozen=True)
class Scale:
    """A monotone change of scale, its derivative, and the way back."""

    to: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]
    back: Callable[[Floats], Floats]


LOGIT = Scale(
    lambda p: np.log(p) - np.log1p(-p), lambda p: 1 / (p * (1 - p)), lambda z: 1 / (1 + np.exp(-z))
)
"""For shares, as average precision."""
LOG = Scale(np.log, lambda x: 1 / x, np.exp)
"""For errors."""

Resampled = Callable[[Floats], Drawn]
"""From (B, M) weights of machines to a metric."""


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


def standard_errors(drawn: Drawn, weights: Floats, site: Ints) -> Floats:
    """Return (B,) standard errors of a metric, by the infinitesimal jackknife within sites.

    The variance is the sum over machines of (weight · slope²), slopes centred within their site
    of n machines, times n / (n − 1) (Efron 1982, The Jackknife, the Bootstrap and Other
    Resampling Plans, chapter 6).

    Args:
        drawn: the metric.
        weights: (B, M) how often each machine is drawn.
        site: (M,) number of the site a machine belongs to.
    """
    variance = np.zeros(len(weights))
    for number in np.unique(site):
        own = site == number
        n = int(own.sum())
        if n < 2:
            continue
        weight, slope = weights[:, own], drawn.slopes[:, own]
        centred = slope - (weight * slope).sum(axis=1, keepdims=True) / n
        variance += n / (n - 1) * (weight * centred**2).sum(axis=1)
    return np.asarray(np.sqrt(variance))


def bootstrap_t(
    value: float, drawn: Drawn, weights: Floats, site: Ints, scale: Scale | None = None
) -> tuple[float, float] | None:
    """Return the symmetric bootstrap-t interval of a metric, freed of its bias.

    Its middle is the metric less the median of what resamples change it, because the average
    precision of few machines is too high, and a mean over sites keeps that error while its own
    spread shrinks. Half its width is the larger of two quantiles, that of the resamples and
    Student's with as many degrees of freedom as machines less sites, times the standard error.

    Args:
        value: the metric of the sample.
        drawn: the metric; the first is that of the sample, the others of resamples.
        weights: (1 + B, M) how often each machine is drawn; the first are ones.
        site: (M,) number of the site a machine belongs to.
        scale: on which the metric is nearer to normal; None for its own.

    Returns:
        The ends; None where the machines are too much alike, or too many resamples have no
        value. They hold the metric. A metric that is 0 whatever is drawn, as the gain of equal
        predictions, is known without doubt.
    """
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    if value == 0 and not drawn.values.any():
        return 0.0, 0.0
    scale = scale or Scale(lambda x: x, np.ones_like, lambda x: x)
    with np.errstate(divide="ignore", invalid="ignore"):
        there = scale.to(drawn.values)
        errors = standard_errors(drawn, weights, site) * np.abs(scale.slope(drawn.values))
        moved = there[1:] - there[0]
        studentised = np.abs(moved) / errors[1:]
        middle = float(scale.to(np.array(value)))
    known = np.isfinite(studentised)
    freedom = len(site) - len(np.unique(site))
    if known.sum() < LEAST * len(known) or not 0 < errors[0] < np.inf or freedom < 1:
        return None
    quantile = max(
        float(np.quantile(studentised[known], LEVEL, method="higher")),
        float(stdtrit(freedom, (1 + LEVEL) / 2)),
    )
    half = quantile * float(errors[0])
    middle -= float(np.median(moved[known]))
    with np.errstate(over="ignore"):
        low, high = scale.back(np.array([middle - half, middle + half])).tolist()
    return (min(low, value), max(high, value)) if np.isfinite([low, high]).all() else None


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

    def resampled(weights: Floats) -> Drawn:
        at, found, said = weights @ positives, weights @ hits, weights @ alarms
        precision, share = _ratio(found, said, 0.0), _ratio(at, said, 0.0)
        whole = at.sum(axis=1)
        values = _ratio((at * precision).sum(axis=1), whole, np.nan)
        slopes = precision @ positives.T + share @ hits.T - (share * precision) @ alarms.T
        slopes -= values[:, None] * positives.sum(axis=1)
        return Drawn(values, _ratio(slopes, np.broadcast_to(whole[:, None], slopes.shape), np.nan))

    return resampled


def root_mean_square(error: Floats, machine: Ints, machines: int) -> Resampled:
    """Return the resampled root mean square of (N,) errors."""
    squares = np.bincount(machine, weights=error**2, minlength=machines)
    count = np.bincount(machine, minlength=machines).astype(np.float64)

    def resampled(weights: Floats) -> Drawn:
        whole = weights @ count
        mean = _ratio(weights @ squares, whole, np.nan)
        values = np.sqrt(mean)
        slopes = squares - mean[:, None] * count
        under = np.broadcast_to((2 * values * whole)[:, None], slopes.shape)
        return Drawn(values, _ratio(slopes, under, 0.0))

    return resampled


def mean_of(parts: Sequence[Resampled]) -> Resampled:
    """Return the mean of several metrics, for example over horizons."""

    def resampled(weights: Floats) -> Drawn:
        drawn = [part(weights) for part in parts]
        return Drawn(
            np.mean([each.values for each in drawn], axis=0),
            np.mean([each.slopes for each in drawn], axis=0),
        )

    return resampled


def affordable(resamples: int, machines: int, positives: int) -> int:
    """Return how many resamples are drawn: fewer where there are very many windows."""
    cost = 6.0 * max(machines, 1) * min(max(positives, 1), MOST_LEVELS)
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
    from scipy.special import stdtrit

    freedom = size.carrying - size.sites
    spread = float(np.std(values[np.isfinite(values)], ddof=1)) * np.sqrt(size.carrying / freedom)
    return bool(abs(value) > -float(stdtrit(freedom, RISK / looks / 2)) * spread)

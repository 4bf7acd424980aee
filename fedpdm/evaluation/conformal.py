"""Split conformal intervals for remaining life; they need no model of the errors.

Windows of one machine are not exchangeable, machines are. A test asks about each machine
once, at the moment its record ends. So a calibration machine counts once, too: cut at a
random moment, it gives one score, and the interval takes the ceil((n + 1) level)-th
smallest of the n scores (Vovk et al. 2005). With one cut per machine that is exact, and
depends on luck. Instead of one draw, all cuts are averaged over, without randomness: the
interval is the one that holds as much of the calibration scores (each machine's windows
together weigh one) as the order statistic of one random cut per machine does on average.
If a machine's windows are all alike, that is the order statistic itself; if machines are
alike and windows differ, it is the quantile k / (n + 1); both cover exactly.

(Adding 1 / (n + 1) at infinity to the pooled scores, Lee, Barber and Willett, arXiv
2306.06342, promises a coverage of at least the level; with 20 machines of C-MAPSS it covered
.95 for .90, and the intervals were a tenth wider.)

Scores are scaled: an error counts in proportion to the predicted life plus a fifth of the
cap, because what is far away cannot be told as closely as what is near. Any fixed scale
keeps the coverage; this one makes the intervals narrower on the training engines of C-MAPSS.

What leaves a site in a federation are its machines' scores, (score, weight) pairs without
readings or times; quantiles of the pooled pairs are exact, those of sites' quantiles not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedpdm.data.rows import Bools, Floats, Ints

GRID = 500
"""Scores at which the order statistic is looked at."""
MANY = 500
"""Of more machines the order statistic is its mean, to one part in as many."""


@dataclass(frozen=True)
class Interval:
    """How far around a prediction the truth may lie.

    Attributes:
        level: promised coverage, for example 0.9.
        factor: half of the width, in units of ``scale``; infinite where machines are too few.
        cap: predictions and truths end here.
        machines: how many calibrated it.
    """

    level: float
    factor: float
    cap: float
    machines: int

    def __call__(self, predicted: Floats) -> tuple[Floats, Floats]:
        """Return (N,) lower and upper ends for (N,) predictions, within [0, cap]."""
        half = self.factor * scale(predicted, self.cap)
        return (
            np.clip(predicted - half, 0.0, self.cap),
            np.clip(predicted + half, 0.0, self.cap),
        )

    def unclipped(self, predicted: Floats) -> Floats:
        """Return (N,) widths before the ends are clipped to [0, cap], as others state theirs."""
        return np.asarray(2 * self.factor * scale(predicted, self.cap))


def scale(predicted: Floats, cap: float) -> Floats:
    """Return (N,) what an error is measured by at a predicted life."""
    return np.asarray(predicted + cap / 5.0)


def calibrate(
    predicted: Floats, truth: Floats, machine: Ints, level: float, cap: float
) -> Interval:
    """Return the interval that is to cover a new machine's truth with probability ``level``.

    It does for a machine that is exchangeable with those that calibrated it, on average over
    calibration machines; a shift between them and the test, or an asymmetry, is not made good.

    Args:
        predicted: (N,) remaining life on calibration windows, within [0, cap].
        truth: (N,) capped truth.
        machine: (N,) number of the machine. Each of its windows is as likely the last one
            seen: a machine that is cut at a random moment of its life.
        level: promised coverage, between 0 and 1.
        cap: the greatest remaining life.
    """
    number = np.unique(machine, return_inverse=True)[1] if len(machine) else machine
    machines = int(number.max(initial=-1)) + 1
    scores = np.abs(predicted - truth) / scale(predicted, cap)
    return Interval(level, expected_quantile(scores, number, machines, level), cap, machines)


def expected_quantile(scores: Floats, machine: Ints, machines: int, level: float) -> float:
    """Return the conformal quantile of one random window per machine, averaged over windows.

    With F the distribution of the pooled scores, each machine weighing the same, and Q the
    k-th smallest score of one window drawn from each machine, k = ceil((machines + 1) level):
    the least score q with F(q) >= E F(Q). How many draws lie below a score is
    Poisson-binomial.

    Args:
        scores: (N,).
        machine: (N,) 0 … machines-1.
        machines: how many there are; each has a window.
        level: promised coverage.

    Returns:
        Infinity where k is more than there are machines (fewer than 9 for 0.9).
    """
    k = int(np.ceil((machines + 1) * level - 1e-9))
    if k > machines:
        return float("inf")
    order = np.argsort(scores, kind="stable")
    ranked, owner = scores[order], machine[order]
    share = (1.0 / np.bincount(machine, minlength=machines))[owner]
    below = np.cumsum(share) / machines  # F at each score
    if machines > MANY:
        wanted = k / (machines + 1)
    else:
        grid = np.unique(np.linspace(0, len(ranked) - 1, GRID).astype(np.int64))
        step = np.zeros((len(grid), machines))
        np.add.at(step, (np.searchsorted(grid, np.arange(len(ranked))), owner), share)
        reached = at_least(np.cumsum(step, axis=0), k)  # P(Q <= score)
        wanted = float(np.diff(reached, prepend=0.0) @ below[grid])
    place = int(np.searchsorted(below, wanted - 1e-9))
    return float(ranked[min(place, len(ranked) - 1)])


def at_least(probability: Floats, k: int) -> Floats:
    """Return (G,) the probability that at least ``k`` of (G, n) independent events happen."""
    number = np.zeros((len(probability), probability.shape[1] + 1))
    number[:, 0] = 1.0
    for column in np.clip(probability, 0.0, 1.0).T:
        number[:, 1:] = number[:, 1:] * (1.0 - column[:, None]) + number[:, :-1] * column[:, None]
        number[:, 0] *= 1.0 - column
    return np.asarray(number[:, k:].sum(axis=1))


def covered(interval: Interval, predicted: Floats, truth: Floats) -> tuple[Bools, Floats]:
    """Return (N,) whether the capped truth lies within the interval, and (N,) its width."""
    low, high = interval(predicted)
    slack = 1e-9 * interval.cap
    capped = np.minimum(truth, interval.cap)
    return (capped >= low - slack) & (capped <= high + slack), high - low


def binomial_interval(hits: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a share (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    tail = (1.0 - level) / 2.0
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, count - hits + 1))
    high = 1.0 if hits == count else float(beta.ppf(1.0 - tail, hits + 1, count - hits))
    return low, high

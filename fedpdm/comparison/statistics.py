"""Statistics of paired runs: permutation test, Holm, effect sizes, ranks. Arrays in, numbers out.

Scores of two settings are paired by seed: the same seed gives both the same data, the same
start and the same batches, so their difference is what the setting does. All tests are
two-sided. ``d`` below is an array of paired differences, one per seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpdm.seeding import numpy_generator

Floats = NDArray[np.float64]

LEVEL = 0.05
"""A difference is claimed below this p-value (after correction)."""
EXACT_UP_TO = 20
"""Pairs up to which every flip of signs is counted: 2^20 of them."""
DRAWS = 100_000
"""Flips drawn beyond that."""
CHUNK = 10_000
"""Flips drawn at once, which bounds memory."""
FEWEST_PAIRS = 6
"""2 / 2^5 = .0625: with fewer pairs no p-value can fall below .05."""
FEWEST_BLOCKS = 6
"""Blocks from which ranks are tested; the approximation is good from about ten (Demšar)."""
TIE = 1e-10
"""Sums of differences closer than this share of the largest possible sum are equal."""


def sign_flip(differences: Floats, seed: int = 0) -> Floats:
    """Return two-sided p-values of the sign-flip permutation test of paired differences.

    If two settings are equally good, a difference is as likely to be positive as negative.
    The p-value is the share of all 2^n ways to choose the signs whose sum is at least as far
    from 0 as the observed one (Fisher 1935, The Design of Experiments, section 21; Dror et
    al. 2018, ACL). Up to ``EXACT_UP_TO`` pairs all ways are counted, beyond them ``DRAWS``
    are drawn and the observed one is added (Phipson and Smyth 2010). Ties count as "at
    least as far", so differences that are all 0 give 1.

    Args:
        differences: (…, n) one row per test; n of 1 or more.
        seed: of the drawn flips.

    Returns:
        (…) p-values, at least 2 / 2^n where all were counted.

    Raises:
        ValueError: there is no pair, or a difference is not finite.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim == 0 or d.shape[-1] == 0:
        raise ValueError("no pairs to compare")
    if not np.isfinite(d).all():
        raise ValueError("a paired difference is not finite")
    n = d.shape[-1]
    reach = np.abs(d).sum(axis=-1)
    least = np.abs(d.sum(axis=-1)) - TIE * reach
    if n <= EXACT_UP_TO:
        # Flipping all signs mirrors the sum: half of the flips, the first sign fixed, do.
        sums = d[..., :1]
        for index in range(1, n):
            next_ = d[..., index : index + 1]
            sums = np.concatenate([sums + next_, sums - next_], axis=-1)
        return np.asarray((np.abs(sums) >= least[..., None]).mean(axis=-1))
    generator = numpy_generator(seed, "sign-flip", n)
    further = np.zeros(d.shape[:-1])
    for _ in range(DRAWS // CHUNK):
        signs = generator.integers(0, 2, size=(CHUNK, n), dtype=np.int8) * 2.0 - 1.0
        further += (np.abs(d @ signs.T) >= least[..., None]).sum(axis=-1)
    return np.asarray((further + 1) / (DRAWS + 1))


def skewness_corrected(differences: Floats) -> Floats:
    """Return two-sided p-values of a t test whose statistic is freed of skewness.

    With T = mean / s and k the skewness of n differences, √n · g(T) is nearly Student's with
    n − 1 degrees of freedom, g(T) = ((1 + kT/3)³ − 1) / k + k / 6n (Hall 1992, Journal of the
    Royal Statistical Society B 54). Differences that are all the same give 0, or 1 if they are 0.

    Args:
        differences: (…, n) one row per test; n of 2 or more.
    """
    from scipy import stats

    d = np.asarray(differences, dtype=np.float64)
    n, mean, spread = d.shape[-1], d.mean(axis=-1), d.std(axis=-1)
    alike = spread <= TIE * np.abs(d).max(axis=-1)
    spread = np.where(alike, 1.0, spread)
    k = ((d - mean[..., None]) ** 3).mean(axis=-1) / spread**3
    k = np.where(np.abs(k) < TIE, TIE, k)
    ratio = mean / (spread * math.sqrt(n / (n - 1)))
    free = ((1 + k * ratio / 3) ** 3 - 1) / k + k / (6 * n)
    p = 2 * stats.t.sf(np.abs(free) * math.sqrt(n), n - 1)
    return np.asarray(np.where(alike, np.where(mean == 0, 1.0, 0.0), p))


def paired_test(differences: Floats, seed: int = 0) -> Floats:
    """Return p-values of paired differences: the larger of two tests'.

    Signs are as likely to flip only if differences are symmetric; where they are skewed,
    ``sign_flip`` calls equal settings different in 9 % of the cases with ten pairs. The
    skewness-corrected t test does not, and is not exact. Together they are wrong in at most 6.5 %
    of the cases from six pairs on, for the laws in ``benchmarks/coverage.py``.

    Args:
        differences: (…, n) one row per test; n of 1 or more.
        seed: of the drawn flips.
    """
    p = sign_flip(differences, seed)
    if np.asarray(differences).shape[-1] < 3:
        return p
    return np.asarray(np.maximum(p, skewness_corrected(differences)))


def smallest_p(pairs: int) -> float:
    """Return the smallest p-value that either test of so many pairs can give."""
    return min(1.0, 2.0 / 2.0**pairs) if pairs <= EXACT_UP_TO else 1.0 / (DRAWS + 1)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for their number, by Holm's step-down procedure.

    The k-th smallest of m is multiplied by m − k + 1 and is at least its predecessor: the
    chance of any false claim in the family stays below the level (Holm 1979, Scandinavian
    Journal of Statistics 6). None (no test was possible) stays None and is not counted.
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    result: list[float | None] = [None] * len(p_values)
    above = 0.0
    for position, (p, index) in enumerate(known):
        above = max(above, min(1.0, p * (len(known) - position)))
        result[index] = above
    return result


@dataclass(frozen=True)
class Effect:
    """How large a paired difference is.

    Attributes:
        pairs: n.
        mean: mean difference, in the metric's unit.
        deviation: standard deviation of the differences (n − 1); None for one pair.
        low: lower end of the 95 % t interval of the mean; None for one pair.
        high: its upper end.
        size: mean over deviation, Hedges-corrected (``hedges``); None where undefined.
    """

    pairs: int
    mean: float
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    size: float | None = None


def effect(differences: Floats) -> Effect:
    """Return mean, spread, interval and size of (n,) paired differences, n of 1 or more."""
    from scipy import stats

    d = np.asarray(differences, dtype=np.float64)
    n, mean = len(d), float(d.mean())
    if n < 2:
        return Effect(n, mean)
    deviation = float(d.std(ddof=1))
    half = float(stats.t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return Effect(n, mean, deviation, mean - half, mean + half, hedges(d))


def hedges(differences: Floats) -> float | None:
    """Return Hedges' g of (n,) paired differences: Cohen's d_z without its bias.

    d_z is the mean difference in units of the differences' standard deviation; few pairs
    overstate it by 1 / J with J = Γ(m/2) / (√(m/2) Γ((m−1)/2)), m = n − 1 (Hedges 1981,
    Journal of Educational Statistics 6; Lakens 2013, Frontiers in Psychology 4). About 0.2
    is small, 0.5 medium, 0.8 large; paired over seeds, often far more. None for fewer than
    three pairs or differences that are all the same.
    """
    d = np.asarray(differences, dtype=np.float64)
    m = len(d) - 1
    if m < 2:
        return None
    deviation = float(d.std(ddof=1))
    if deviation <= TIE * float(np.abs(d).max()):
        return None
    correction = math.exp(math.lgamma(m / 2) - math.lgamma((m - 1) / 2)) / math.sqrt(m / 2)
    return correction * float(d.mean()) / deviation


def ranks(scores: Floats, higher_is_better: bool = True) -> Floats:
    """Return (N, k) ranks within each of N blocks of k settings; 1 is best, ties share."""
    from scipy import stats

    ordered = -np.asarray(scores) if higher_is_better else np.asarray(scores)
    return np.asarray(stats.rankdata(ordered, axis=1), dtype=np.float64)


@dataclass(frozen=True)
class Ranking:
    """Average ranks of k settings over N blocks, and how far apart they must be.

    Attributes:
        blocks: N.
        mean: (k,) average rank of each setting; 1 is best.
        p_value: of Friedman's test (Iman and Davenport's F): are all settings alike?
        critical: Nemenyi's critical difference at ``LEVEL``.
        undefined: why ``p_value`` and ``critical`` are None; None where they are defined.
    """

    blocks: int
    mean: tuple[float, ...]
    p_value: float | None = None
    critical: float | None = None
    undefined: str | None = None


def ranking(scores: Floats, higher_is_better: bool = True) -> Ranking:
    """Return average ranks, Friedman's test and Nemenyi's critical difference.

    With R the average ranks, chi² = 12N / (k(k+1)) · (Σ R² − k(k+1)²/4), corrected for ties,
    and F = (N−1) chi² / (N(k−1) − chi²) with (k−1) and (k−1)(N−1) degrees of freedom (Iman
    and Davenport 1980). Two settings differ if their average ranks are at least
    CD = q √(k(k+1) / 6N) apart, q from the studentised range (Nemenyi 1963; Demšar 2006,
    Journal of Machine Learning Research 7).

    Args:
        scores: (N, k), one row per block: a seed. Blocks must be independent, which data
            sets of one seed are not.
        higher_is_better: False for errors.
    """
    from scipy import stats

    table = np.asarray(scores, dtype=np.float64)
    n, k = table.shape
    if n == 0:
        return Ranking(0, (), undefined="there is no seed that all settings have")
    ranked = ranks(table, higher_is_better)
    mean = tuple(float(value) for value in ranked.mean(axis=0))
    spread = float(np.sum((ranked - (k + 1) / 2) ** 2))
    undefined = None
    if k < 3:
        undefined = "it takes three settings or more; see the paired test"
    elif n < FEWEST_BLOCKS:
        undefined = f"it takes {FEWEST_BLOCKS} blocks (seeds) or more, there are {n}"
    elif spread == 0:
        undefined = "all settings score the same in every block"
    if undefined is not None:
        return Ranking(n, mean, undefined=undefined)
    # The spread of the ranks themselves takes the correction for ties along.
    total = float(np.sum((np.asarray(mean) - (k + 1) / 2) ** 2))
    chi2 = n**2 * (k - 1) * total / spread
    rest = n * (k - 1) - chi2
    if rest <= TIE * n * k:  # every block ranks alike: F is infinite
        p_value = 0.0
    else:
        p_value = float(stats.f.sf((n - 1) * chi2 / rest, k - 1, (k - 1) * (n - 1)))
    return Ranking(n, mean, p_value, critical_difference(k, n))


def critical_difference(settings: int, blocks: int, level: float = LEVEL) -> float:
    """Return Nemenyi's critical difference of average ranks (``ranking``)."""
    from scipy import stats

    q = float(stats.studentized_range.ppf(1 - level, settings, np.inf)) / math.sqrt(2)
    return q * math.sqrt(settings * (settings + 1) / (6 * blocks))


def cliques(mean_ranks: Sequence[float], critical: float) -> list[tuple[int, ...]]:
    """Return the largest groups of settings that cannot be told apart, best rank first.

    Args:
        mean_ranks: (k,) average ranks.
        critical: average ranks closer than this cannot be told apart.

    Returns:
        Groups of two or more positions in ``mean_ranks``; none lies within another.
    """
    order = sorted(range(len(mean_ranks)), key=lambda index: (mean_ranks[index], index))
    found: list[tuple[int, ...]] = []
    for start, first in enumerate(order):
        group = tuple(i for i in order[start:] if mean_ranks[i] - mean_ranks[first] < critical)
        if len(group) > 1 and not (found and set(group) <= set(found[-1])):
            found.append(group)
    return found

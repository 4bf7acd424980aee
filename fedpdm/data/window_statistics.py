"""The 28 statistics and 11 range features of a window, as functions of arrays.

They are those of the HVAC hybrid system (tk-yasuno/tsfm_attention_multitask,
models/README_PRODUCTION.md, 307d6c1), of every sensor of a window on its own. Deviations
are those of the population; what is no number (a ratio to zero) is 0. Shapes: N windows,
T time steps x[0] … x[T-1], the last one the newest, F sensors.

The source has windows of 90 steps, one a day. In shorter windows its fixed lengths give
way, so that no feature is a constant: see each function. From 60 steps on they are the
source's.
"""

from __future__ import annotations

import numpy as np

from fedpdm.data.rows import Bools, Floats

DISTRIBUTION = (
    "mean", "std", "min", "max", "median", "range", "q25", "q75", "iqr", "skewness", "kurtosis",
    "cv",
)  # fmt: skip
TREND = (
    "trend_slope", "trend_intercept", "recent_vs_past_ratio", "recent_vs_past_diff",
    "recent_change_rate",
)  # fmt: skip
ROLLING = (7, 14, 30)
"""Lengths of the rolling deviations, in time steps."""
CHANGE = (
    "diff_mean", "diff_std", "diff_abs_mean",
    *(f"rolling_std_{length}_{of}" for length in ROLLING for of in ("mean", "max")),
    "max_drawdown", "mean_drawdown",
)  # fmt: skip
STATISTICS = (*DISTRIBUTION, *TREND, *CHANGE)
"""The 28, in the order of ``statistics``."""
RANGE = (
    "mean_distance_to_upper", "mean_distance_to_lower", "min_distance_to_upper",
    "min_distance_to_lower", "mean_distance_to_center", "relative_position", "in_range_ratio",
    "out_of_range_count", "max_consecutive_in_range", "above_upper_ratio", "below_lower_ratio",
)  # fmt: skip
"""The 11, in the order of ``range_features``."""
HALF, STEPS = 30, 10  # "recent" and "past" are 30 steps each; the rate of change looks 10 back
TINY = 1e-10  # below it a mean is no divisor


def statistics(x: Floats) -> Floats:
    """Return (N, F, 28) statistics of (N, T, F) windows, in the order of ``STATISTICS``."""
    x = np.asarray(x, dtype=np.float64)
    parts = (*_distribution(x), *_trend(x), *_change(x))
    return _numbers(np.stack(parts, axis=2))


def range_features(x: Floats, lower: Floats, upper: Floats) -> Floats:
    """Return (N, F, 11) features of (N, T, F) windows against limits, in the order of ``RANGE``.

    Mean and least distance to the upper limit, upper - x[t], and to the lower, x[t] - lower;
    mean of abs(x[t] - (lower + upper) / 2); mean of (x[t] - lower) / (upper - lower); share of
    steps with lower <= x[t] <= upper; number of steps outside; longest run of steps inside;
    shares of steps above the upper and below the lower limit.

    Args:
        x: windows.
        lower: (F,) lower limits.
        upper: (F,) upper limits, above the lower ones.
    """
    x = np.asarray(x, dtype=np.float64)
    above, below = upper - x, x - lower
    inside: Bools = (above >= 0) & (below >= 0)
    run, longest = np.zeros((2, len(x), x.shape[2]))
    for step in range(x.shape[1]):
        run = (run + 1) * inside[:, step]
        longest = np.maximum(longest, run)
    parts = (
        above.mean(1), below.mean(1), above.min(1), below.min(1),
        np.abs(x - (lower + upper) / 2).mean(1), (below / (upper - lower)).mean(1),
        inside.mean(1), (~inside).sum(1).astype(np.float64), longest,
        (above < 0).mean(1), (below < 0).mean(1),
    )  # fmt: skip
    return _numbers(np.stack(parts, axis=2))


def _distribution(x: Floats) -> list[Floats]:
    """Moments and order statistics of the readings, in whatever order they came.

    Quantiles interpolate linearly. Skewness is m3 / m2^1.5 and kurtosis m4 / m2² - 3, both 0
    for a constant; cv is std / abs(mean), 0 where the mean is 0.
    """
    mean, ordered = x.mean(1), np.sort(x, axis=1)
    centred = x - mean[:, None]
    squared = centred * centred
    second = squared.mean(1)
    # What rounding leaves of a constant is not a deviation.
    second = np.where(ordered[:, -1] == ordered[:, 0], 0.0, second)
    std = np.sqrt(second)
    low, middle, high = (_quantile(ordered, share) for share in (0.25, 0.5, 0.75))
    least, most = ordered[:, 0], ordered[:, -1]
    skewness = _ratio((squared * centred).mean(1), second * std)
    kurtosis = np.where(std > 0, _ratio((squared * squared).mean(1), second**2) - 3.0, 0.0)
    cv = np.where(np.abs(mean) > TINY, _ratio(std, np.abs(mean)), 0.0)
    return [
        mean, std, least, most, middle, most - least, low, high, high - low, skewness, kurtosis, cv
    ]  # fmt: skip


def _trend(x: Floats) -> list[Floats]:
    """Where the readings are going.

    Slope and intercept of the least-squares line over the index 0 … T-1. With H = 30, or T // 2
    if that is less: mean of the last H readings divided by, and less, the mean of the H before
    them (ratio 0 where that is 0; ratio 1 and difference 0 for T = 1). With K = 10, or T if that
    is less: (x[T-1] - x[T-K]) / K.
    """
    length = x.shape[1]
    step = np.arange(length) - (length - 1) / 2
    mean = x.mean(1)
    slope = np.einsum("ntf,t->nf", x, step) / (float(step @ step) or 1.0)
    half, back = min(HALF, length // 2), min(STEPS, length)
    if half:
        recent, past = x[:, -half:].mean(1), x[:, -2 * half : length - half].mean(1)
        ratio = np.where(np.abs(past) > TINY, _ratio(recent, past), 0.0)
        difference = recent - past
    else:
        ratio, difference = np.ones_like(mean), np.zeros_like(mean)
    rate = (x[:, -1] - x[:, -back]) / back
    return [slope, mean - slope * (length - 1) / 2, ratio, difference, rate]


def _change(x: Floats) -> list[Floats]:
    """How the readings move from step to step.

    Mean, deviation and mean size of x[t] - x[t-1] (0 for T = 1); mean and largest of the
    deviations of all runs of 7, 14 and 30 readings (of all T where T is less); largest and mean
    drawdown, max(x[0] … x[t]) - x[t].
    """
    length = x.shape[1]
    step = np.diff(x, axis=1) if length > 1 else np.zeros_like(x)
    drawdown = np.maximum.accumulate(x, axis=1) - x
    centred = x - x.mean(1)[:, None]
    sums = np.zeros((2, len(x), length + 1, x.shape[2]))
    np.cumsum(centred, axis=1, out=sums[0, :, 1:])
    np.cumsum(centred**2, axis=1, out=sums[1, :, 1:])
    noise = 1e-13 * (centred**2).mean(1)[:, None]  # what differences of sums leave of a constant
    rolling = []
    for size in (min(size, length) for size in ROLLING):
        mean, square = (sums[:, :, size:] - sums[:, :, : length - size + 1]) / size
        variance = square - mean**2
        deviation = np.sqrt(np.where(variance > noise, variance, 0.0))
        rolling += [deviation.mean(1), deviation.max(1)]
    return [
        step.mean(1), step.std(1), np.abs(step).mean(1), *rolling, drawdown.max(1), drawdown.mean(1)
    ]  # fmt: skip


def _quantile(ordered: Floats, share: float) -> Floats:
    """Return (N, F) quantiles of windows sorted over time, interpolated linearly."""
    position = share * (ordered.shape[1] - 1)
    below = int(position)
    above = min(below + 1, ordered.shape[1] - 1)
    part = position - below
    return np.asarray(ordered[:, below] * (1 - part) + ordered[:, above] * part)


def _ratio(over: Floats, under: Floats) -> Floats:
    with np.errstate(all="ignore"):  # what gets too large is no number, and becomes 0
        return np.asarray(np.divide(over, under, out=np.zeros_like(over), where=under != 0))


def _numbers(values: Floats) -> Floats:
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)

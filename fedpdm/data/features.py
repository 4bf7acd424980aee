"""What a model sees of a window: its readings, statistics of them, or both.

Statistics are taken of readings in raw units, inside one window, so no reading of another
window, machine or split goes into them. They are scaled like readings, by means and deviations
of training windows: their sums travel in the same message as the readings' (``Moments`` of F + K
columns), so a federation needs no further question and the scaler of a run holds both. Shapes:
N windows, T time steps, F sensors, K = 28·F + 11·(sensors with limits).

The 28 statistics and 11 range features are those of the HVAC hybrid system
(tk-yasuno/tsfm_attention_multitask, models/README_PRODUCTION.md, 307d6c1), of every sensor of a
window on its own. Deviations are those of the population; what is no number (a ratio to zero)
is 0. A window is x[0] … x[T-1], the last step the newest.

The source has windows of 90 steps, one a day. In shorter windows its fixed lengths give
way, so that no feature is a constant: see each function. From 60 steps on they are the
source's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedpdm.data.normalise import Moments, Scaler
from fedpdm.data.rows import Bools, Floats, Floats32, Rows
from fedpdm.data.sources.base import Source, require_choice
from fedpdm.data.sources.with_history import OF_SENSOR, add_history, history_names
from fedpdm.errors import ConfigError

ROLLING = (7, 14, 30)
"""Lengths of the rolling deviations, in time steps."""
STATISTICS = (
    "mean", "std", "min", "max", "median", "range", "q25", "q75", "iqr", "skewness", "kurtosis",
    "cv", "trend_slope", "trend_intercept", "recent_vs_past_ratio", "recent_vs_past_diff",
    "recent_change_rate", "diff_mean", "diff_std", "diff_abs_mean",
    *(f"rolling_std_{length}_{of}" for length in ROLLING for of in ("mean", "max")),
    "max_drawdown", "mean_drawdown",
)  # fmt: skip
"""The 28, in the order of ``statistics``."""
RANGE = (
    "mean_distance_to_upper", "mean_distance_to_lower", "min_distance_to_upper",
    "min_distance_to_lower", "mean_distance_to_center", "relative_position", "in_range_ratio",
    "out_of_range_count", "max_consecutive_in_range", "above_upper_ratio", "below_lower_ratio",
)  # fmt: skip
"""The 11, in the order of ``range_features``."""
HALF, STEPS = 30, 10  # "recent" and "past" are 30 steps each; the rate of change looks 10 back
TINY = 1e-10  # below it a mean is no divisor
MODES = ("raw", "statistics", "both", "history")
CHUNK = 2048  # windows computed at once: bounds memory
FARTHEST = 10.0
"""Scaled statistics end at so many deviations: a ratio to a mean near 0 has no bound."""


@dataclass(frozen=True)
class WindowFeatures:
    """Features of windows, for every model and the boosted trees.

    Attributes:
        mode: ``raw``: (N, T, F) readings. ``statistics``: (N, K) rows, for models of tables.
            ``both``: (N, T, F + K), the statistics as channels that are the same at every step.
            ``history``: (N, T, F) readings, whose source adds columns of each row's past
            (``fedpdm.data.sources.with_history``).
        limits: lowest and highest allowed reading by sensor, in raw units, as data sheets give
            them; such a sensor gets the 11 range features, too. Limits are given, never
            estimated, so no data can leak through them.

    Raises:
        ConfigError: an unknown mode, or limits that are no range.
    """

    mode: str = "raw"
    limits: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_choice("features.mode", self.mode, MODES)
        limits = {}
        for sensor, pair in dict(self.limits or {}).items():
            try:
                lower, upper = (float(value) for value in pair)
            except (TypeError, ValueError):
                lower, upper = np.nan, np.nan
            if not lower < upper:
                raise ConfigError(
                    f"features.limits.{sensor}={pair} must be two numbers, the lower one first, "
                    "for example [0.2, 4.5]"
                )
            limits[sensor] = (lower, upper)
        object.__setattr__(self, "limits", limits)

    @property
    def active(self) -> bool:
        """Whether there are statistics to compute."""
        return self.mode in ("statistics", "both")

    def check(self, source: Source) -> None:
        """Raise ConfigError if this data has no such features; the message says what to do."""
        unknown = [name for name in self.limits if name not in source.features]
        if unknown:
            raise ConfigError(
                f"features.limits: {unknown[0]} is no sensor of data={source.name}; there are "
                f"{', '.join(source.features)}"
            )
        if self.limits and not self.active:
            raise ConfigError(
                "features.limits is of use only with features=statistics or features=both"
            )
        if self.mode == "raw":
            return
        if source.window is None:
            raise ConfigError(
                f"features={self.mode} takes statistics over time, and data={source.name} has "
                "single rows: leave features=raw"
            )
        if source.conditions > 1:
            raise ConfigError(
                f"features={self.mode}: data={source.name} switches between {source.conditions} "
                "operating conditions within a window, so statistics of raw readings would "
                "describe the switching: leave features=raw, or take data with one condition "
                "(C-MAPSS FD001 and FD003)"
            )

    def columns(self, sensors: Sequence[str]) -> tuple[str, ...]:
        """Return the names of a row's columns: the sensors, and their history if it is used."""
        return history_names(tuple(sensors)) if self.mode == "history" else tuple(sensors)

    def sensors(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Return the sensors among the columns of a row."""
        count = len(columns)
        return tuple(
            columns[: (count - 1) // (1 + len(OF_SENSOR))] if self.mode == "history" else columns
        )

    def with_columns(self, rows: Rows) -> Rows:
        """Return rows of sensors with all columns."""
        return add_history(rows) if self.mode == "history" else rows

    def names(self, sensors: Sequence[str]) -> tuple[str, ...]:
        """Return the K names, sensor by sensor: ``vibration: mean`` …"""
        if not self.active:
            return ()
        return tuple(
            f"{sensor}: {name}"
            for sensor in sensors
            for name in (*STATISTICS, *(RANGE if sensor in self.limits else ()))
        )

    def inputs(self, sensors: Sequence[str]) -> tuple[str, ...]:
        """Return the names of a model's input features, in their order."""
        return (*(() if self.mode == "statistics" else sensors), *self.names(sensors))

    def length(self, window: int | None) -> int | None:
        """Return the time steps of a model's input, None for rows."""
        return None if self.mode == "statistics" else window

    def compute(self, windows: Floats, sensors: Sequence[str]) -> Floats:
        """Return (N, K) features of (N, T, F) windows of raw readings.

        A missing reading counts as the one before it in the window, at the window's start as
        the first known one. A sensor without any reading in a window has NaN.
        """
        parts = [
            self._compute(windows[first : first + CHUNK], sensors)
            for first in range(0, len(windows), CHUNK)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.names(sensors))))

    def _compute(self, windows: Floats, sensors: Sequence[str]) -> Floats:
        x = fill_inside(windows)
        # (N, F): what is filled has no reading missing, or all of them.
        silent: Bools = np.asarray(np.isnan(x).any(axis=1))
        x = np.where(silent[:, None], 0.0, x)
        found = statistics(x)
        found[silent] = np.nan
        columns = []
        for position, sensor in enumerate(sensors):
            columns.append(found[:, position])
            if sensor in self.limits:
                lower, upper = (np.array([value]) for value in self.limits[sensor])
                part = range_features(x[:, :, position : position + 1], lower, upper)[:, 0]
                part[silent[:, position]] = np.nan
                columns.append(part)
        return np.concatenate(columns, axis=1)

    def add_moments(self, readings: Moments, features: Floats) -> Moments:
        """Return the moments of F readings and K features: (1, F + K)."""
        own = Moments.of(features, np.zeros(len(features), dtype=np.int64), 1)
        joined = {
            name: np.concatenate([sums, vars(own)[name]], axis=1)
            for name, sums in vars(readings).items()
        }
        return Moments(**joined)

    def of_readings(self, scaler: Scaler, count: int) -> Scaler:
        """Return the scaler of the ``count`` readings out of that of readings and features."""
        if not self.active:
            return scaler
        return Scaler(scaler.mean[:, :count], scaler.scale[:, :count])

    def join(self, x: Floats32, features: Floats, scaler: Scaler) -> Floats32:
        """Return what the model sees: (N, K) or (N, T, F + K) float32.

        Args:
            x: (N, T, F) scaled readings.
            features: (N, K) features in raw units; NaN counts as the training mean.
            scaler: of readings and features.
        """
        count = x.shape[2]
        own = Scaler(scaler.mean[:, count:], scaler.scale[:, count:])
        scaled = own.apply(features, np.zeros(len(features), dtype=np.int64))
        scaled = np.clip(np.nan_to_num(scaled, nan=0.0), -FARTHEST, FARTHEST)
        if self.mode == "statistics":
            return scaled
        steps = np.broadcast_to(scaled[:, None], (*x.shape[:2], scaled.shape[1]))
        return np.concatenate([x, steps], axis=2)

    def apart(self, x: Floats32, sensors: int) -> tuple[Floats32 | None, Floats32 | None]:
        """Return a model's input as (N, T, F) or (N, F) readings and (N, K) features.

        None for what the input does not hold.
        """
        if self.mode == "statistics":
            return None, x
        if self.mode == "both":
            return x[:, :, :sensors], x[:, -1, sensors:]
        return x, None


RAW = WindowFeatures()
"""The readings themselves."""


def fill_inside(windows: Floats) -> Floats:
    """Return (N, T, F) windows with NaN filled from readings of the same window only.

    Each takes the last one known before it, those at the start the first one known. NaN stays
    where a sensor has no reading in the whole window.
    """
    missing = np.isnan(windows)
    if not missing.any():
        return windows
    steps = np.arange(windows.shape[1])[:, None]
    known = np.maximum.accumulate(np.where(missing, -1, steps), axis=1)
    source = np.where(known < 0, np.argmin(missing, axis=1)[:, None], known)
    return np.asarray(np.take_along_axis(windows, source, axis=1))


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

"""Standardisation from training rows only, with sums that sites can share.

A site reduces its training rows to counts, sums, sums of squares and squared deviations per
operating condition and feature: ``Moments``, 4·K·F numbers. Added over sites they give the mean
and the standard deviation of the pooled training rows exactly, without pooling them.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass

import numpy as np

from fedpdm.data.rows import Floats, Floats32, Ints, Rows, Split
from fedpdm.data.windows import segment_starts


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation per operating condition: two (K, F) float64 arrays."""

    mean: Floats
    scale: Floats

    def apply(self, values: Floats, condition: Ints) -> Floats32:
        """Return (R, F) float32 with mean 0 and deviation 1 on the training rows.

        NaN stays NaN. A feature that never varied in training becomes 0.
        """
        mean, scale = self.mean[condition], self.scale[condition]
        usable = np.where(scale > 0, scale, 1.0)
        scaled = np.where(
            scale > 0, (values - mean) / usable, np.where(np.isnan(values), np.nan, 0.0)
        )
        return scaled.astype(np.float32)


@dataclass(frozen=True)
class Moments:
    """What sites add up to a scaler: four (K, F) float64 arrays.

    Attributes:
        count: readings.
        total: their sum.
        squares: the sum of their squares.
        spread: the sum of their squared deviations from their own mean.
    """

    count: Floats
    total: Floats
    squares: Floats
    spread: Floats

    @staticmethod
    def of(values: Floats, condition: Ints, conditions: int) -> Moments:
        """Return the moments of ``values`` (R, F), NaN left out, by their condition (R,)."""
        count, total, squares, spread = np.zeros((4, conditions, values.shape[1]))
        for k in range(conditions):
            part = values[condition == k]
            known = ~np.isnan(part)
            filled = np.where(known, part, 0.0)
            count[k], total[k], squares[k] = known.sum(0), filled.sum(0), (filled**2).sum(0)
            mean = total[k] / np.maximum(count[k], 1.0)
            spread[k] = (np.where(known, part - mean, 0.0) ** 2).sum(0)
        return Moments(count, total, squares, spread)

    def __add__(self, other: Moments) -> Moments:
        # The parallel formula of Chan, Golub and LeVeque (1983): deviations within the parts,
        # and of the parts' means from each other.
        count = self.count + other.count
        apart = self._mean() - other._mean()
        between = apart**2 * (self.count * other.count / np.maximum(count, 1.0))
        return Moments(
            count, self.total + other.total, self.squares + other.squares,
            self.spread + other.spread + between,
        )  # fmt: skip

    def _mean(self) -> Floats:
        return np.asarray(self.total / np.maximum(self.count, 1.0))

    def flaw(self, other: Moments) -> str | None:
        """Return why these cannot be added to ``other``, or None."""
        for name, mine in vars(self).items():
            expected = getattr(other, name).shape
            if mine.shape != expected or mine.ndim != 2:
                return f"{name} has shape {mine.shape} and not {expected}"
            if not np.isfinite(mine).all():
                return f"{name} holds NaN or infinity"
        for name in ("count", "squares", "spread"):
            if getattr(self, name).min(initial=0) < 0:
                return f"{name} is negative"
        return None

    def pooled(self) -> Moments:
        """Return the moments of all conditions together: (1, F) arrays."""
        parts = [
            Moments(*(array[k : k + 1] for array in vars(self).values()))
            for k in range(len(self.count))
        ]
        return functools.reduce(operator.add, parts)

    def scaler(self) -> Scaler:
        """Return the scaler of the rows behind these moments (population deviation).

        A condition that no training row was in borrows the moments of all conditions.
        """
        seen, whole = self.count > 0, self.pooled()
        count, total, squares, spread = (
            np.where(seen, own, np.broadcast_to(getattr(whole, name), own.shape))
            for name, own in vars(self).items()
        )
        count = np.maximum(count, 1.0)
        mean = total / count
        variance = squares / count - mean**2
        # This difference cancels where a sensor varies little around a large mean. There the
        # variance comes from the deviations; elsewhere both agree to float32, and the difference
        # stays, because recorded weights rest on its last digits.
        cancelled = variance <= 1e-10 * mean**2
        variance = np.where(cancelled, spread / count, variance)
        # Rounding leaves about 1e-16 of the mean as deviation: that is a constant, not a signal.
        constant = variance <= np.maximum(1e-26 * mean**2, 1e-24)
        return Scaler(mean, np.where(constant, 0.0, np.sqrt(np.maximum(variance, 0.0))))


def moments(rows: Rows, conditions: int) -> Moments:
    """Return the moments of a site's training rows; other rows are never read."""
    training = rows.split == Split.TRAIN
    return Moments.of(rows.values[training], rows.condition[training], conditions)


def fill_missing(scaled: Floats32, rows: Rows) -> Floats32:
    """Replace NaN by the last known reading of the same segment, else by 0 (the mean).

    Only the past is used, so no information crosses into an earlier window.
    """
    if not np.isnan(scaled).any():
        return scaled
    filled = np.empty(scaled.shape, dtype=np.float32)
    start, here = segment_starts(rows), np.arange(len(scaled))
    for number, column in enumerate(scaled.T):
        last = np.maximum.accumulate(np.where(np.isnan(column), 0, here))
        value = column[last]
        filled[:, number] = np.where((last < start) | np.isnan(value), 0.0, value)
    return filled

"""Scaling that never sees a test machine and never moves a row.

A site reduces its training rows to counts, sums and sums of squares per operating
condition and feature: ``Moments``, 3·K·F numbers. Added over sites they give the mean
and the standard deviation of the pooled training rows exactly, without pooling them.
"""

from __future__ import annotations

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
    """Counts, sums and sums of squares: three (K, F) float64 arrays."""

    count: Floats
    total: Floats
    squares: Floats

    @staticmethod
    def of(values: Floats, condition: Ints, conditions: int) -> Moments:
        """Return the moments of ``values`` (R, F), NaN left out, by their condition (R,)."""
        shape = (conditions, values.shape[1])
        count, total, squares = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for k in range(conditions):
            part = values[condition == k]
            known = ~np.isnan(part)
            filled = np.where(known, part, 0.0)
            count[k], total[k], squares[k] = known.sum(0), filled.sum(0), (filled**2).sum(0)
        return Moments(count, total, squares)

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count, self.total + other.total, self.squares + other.squares
        )

    def flaw(self, other: Moments) -> str | None:
        """Return why these cannot be added to ``other``, or None."""
        for name, mine in vars(self).items():
            expected = getattr(other, name).shape
            if mine.shape != expected or mine.ndim != 2:
                return f"{name} has shape {mine.shape} and not {expected}"
            if not np.isfinite(mine).all():
                return f"{name} holds NaN or infinity"
        if min(self.count.min(initial=0), self.squares.min(initial=0)) < 0:
            return "count or squares are negative"
        return None

    def scaler(self) -> Scaler:
        """Return the scaler of the rows behind these moments (population deviation).

        A condition that no training row was in borrows the moments of all conditions.
        """
        pooled = (self.count.sum(0), self.total.sum(0), self.squares.sum(0))
        seen = self.count > 0
        count, total, squares = (
            np.where(seen, own, np.broadcast_to(whole, own.shape))
            for own, whole in zip((self.count, self.total, self.squares), pooled, strict=True)
        )
        count = np.maximum(count, 1.0)
        mean = total / count
        variance = squares / count - mean**2
        # Cancellation leaves about 1e-16 of mean²: that is a constant, not a signal.
        constant = variance <= 1e-12 * np.maximum(mean**2, 1e-12)
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
    import pandas as pd  # workers that meet no gap start without it

    segments = pd.DataFrame(scaled).groupby(segment_starts(rows))
    return np.ascontiguousarray(segments.ffill().fillna(0.0), dtype=np.float32)

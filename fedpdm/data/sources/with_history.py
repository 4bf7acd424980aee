"""Columns that tell a row's past within its machine's life (``features=history``).

A window of a few days does not show what a reading was when the part was new. R rows, F
features; everything is of rows of the same life up to the row itself, whatever split they are
of: a site knows its machines' past.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedpdm.data.rows import Floats, Ints, Rows
from fedpdm.data.sources.base import Source, WrappedSource

FAST, MIDDLE, SLOW = 8, 28, 112
"""Half-lives of the weighted means, in rows; of the default fleet 2, 7 and 28 days."""
NEW = 28
"""Rows at the start of a life that tell how a sensor reads when the part is new."""
OF_SENSOR = ("level", "trend", "change")
"""The columns of each sensor, in the order of ``history``."""


class HistorySource(WrappedSource):
    """The rows of another source with columns of their past.

    Args:
        inner: the data, with rows in time.
    """

    def __init__(self, inner: Source) -> None:
        super().__init__(inner)
        self.features = history_names(inner.features)
        self.tells_age = True  # it is one of the columns
        own = ["", *(f": {of}" for of in OF_SENSOR)]
        alone = {name: (name,) for name in inner.features}
        self.groups = {
            group: tuple(f"{name}{of}" for name in members for of in own)
            for group, members in (inner.groups or alone).items()
        }

    def rows(self, site: str) -> Rows:
        return add_history(self.inner.rows(site))


def history_names(features: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the columns with history: readings, age, and three of each sensor."""
    return (*features, "age in life", *(f"{name}: {of}" for of in OF_SENSOR for name in features))


def add_history(rows: Rows) -> Rows:
    """Return rows with the columns of ``history`` beside their readings."""
    values = np.concatenate([rows.values, history(rows)], axis=1)
    return replace(rows, values=values, features=history_names(rows.features))


def history(rows: Rows) -> Floats:
    """Return (R, 1 + 3 F): the age of each row in its life, and of each sensor its past.

    *level* is the exponentially weighted mean with a half-life of ``MIDDLE`` rows; *trend* is the
    mean with ``FAST`` less that with ``SLOW``; *change* is the level less the mean of the first
    ``NEW`` rows of the life (of all rows so far, before that). Missing readings have no weight;
    without any reading so far there is no number (NaN).
    """
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (rows.machine[1:] != rows.machine[:-1]) | (rows.life[1:] != rows.life[:-1])
    starts = np.flatnonzero(new)
    first = starts[np.cumsum(new) - 1] if len(rows) else starts
    fast, level, slow = (_weighted_mean(rows.values, starts, half) for half in (FAST, MIDDLE, SLOW))
    age = (rows.time - rows.time[first])[:, None]
    return np.concatenate([age, level, fast - slow, level - _when_new(rows.values, first)], axis=1)


def _weighted_mean(values: Floats, starts: Ints, half_life: float) -> Floats:
    """Return (R, F) means of the readings since the start of the life, newer ones weighing more."""
    from scipy.signal import lfilter

    known = ~np.isnan(values)
    sums, weights = np.where(known, values, 0.0), known.astype(np.float64)
    fade = [1.0, -(0.5 ** (1.0 / half_life))]
    for begin, end in zip(starts, [*starts[1:], len(values)], strict=True):
        for column in (sums, weights):
            column[begin:end] = lfilter([1.0], fade, column[begin:end], axis=0)
    return np.divide(sums, weights, out=np.full_like(sums, np.nan), where=weights > 1e-12)


def _when_new(values: Floats, first: Ints) -> Floats:
    """Return (R, F) means of the readings of the first rows of each row's life."""
    known = ~np.isnan(values)
    last = np.minimum(np.arange(len(values)), first + NEW - 1)

    def between(column: Floats) -> Floats:
        total = np.concatenate([np.zeros((1, column.shape[1])), np.cumsum(column, axis=0)])
        return np.asarray(total[last + 1] - total[first])

    count = between(known.astype(np.float64))
    sums = between(np.where(known, values, 0.0))
    return np.divide(sums, count, out=np.full_like(sums, np.nan), where=count > 0)

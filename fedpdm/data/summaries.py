"""Windows in figures: what boosted trees see. Shapes: N windows, T steps, F features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.rows import Floats, Floats32

STATISTICS = ("last", "mean", "std", "min", "max", "slope")
"""What is taken of every feature of a window, in the order of the result's blocks."""
SMALLEST, LARGEST = 1e-7, 1e30
"""Of a column of trees: what is nearer to zero is rounding, and what is larger has no bound."""


def summarise(x: NDArray[np.floating]) -> Floats:
    """Return (N, 6·F) float64 summary features of (N, T, F) windows; (N, F) stays (N, F).

    Blocks of F columns in the order of ``STATISTICS``: last value, mean, population
    standard deviation, minimum, maximum, and least-squares slope per time step
    (0 for a window of one step). NaN in a feature of a window gives NaN there.
    """
    if x.ndim == 2:
        return x.astype(np.float64)
    steps = np.arange(x.shape[1], dtype=np.float64)
    steps -= steps.mean()
    # One row of weights turns every window into its slope; they add to zero, so a
    # constant has slope zero up to rounding.
    weights = steps / (float(steps @ steps) or 1.0)
    mean, std = x.mean(axis=1, dtype=np.float64), x.std(axis=1, dtype=np.float64)
    slope = np.einsum("ntf,t->nf", x, weights, dtype=np.float64)
    blocks = [x[:, -1], mean, std, x.min(axis=1), x.max(axis=1), slope]
    return np.concatenate(blocks, axis=1, dtype=np.float64)


def tree_columns(x: NDArray[np.floating]) -> Floats32:
    """Return (N, K) float32 columns that trees split: ``summarise``, without rounding noise.

    Thresholds are float32, too, so a row lies on the same side wherever it is compared.
    """
    found = summarise(x)
    found[np.abs(found) < SMALLEST] = 0.0
    return np.clip(found, -LARGEST, LARGEST).astype(np.float32)


def column_count(features: int, length: int | None) -> int:
    """Return K, the columns of windows of ``length`` steps, or of rows (None)."""
    return features if length is None else features * len(STATISTICS)

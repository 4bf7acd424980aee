"""Summary features of windows, for models that take no sequences (boosted trees)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STATISTICS = ("last", "mean", "std", "min", "max", "slope")
"""What is taken of every feature of a window, in the order of the result's blocks."""


def summarise(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return (N, 6·F) float64 summary features of (N, T, F) windows; (N, F) stays (N, F).

    Blocks of F columns in the order of ``STATISTICS``: last value, mean, population
    standard deviation, minimum, maximum, and least-squares slope per time step
    (0 for a window of one step). NaN in a feature of a window gives NaN there.

    Raises:
        ValueError: ``x`` has neither two nor three axes, or windows have no time step.
    """
    if x.ndim == 2:
        return x.astype(np.float64)
    if x.ndim != 3 or x.shape[1] == 0:
        raise ValueError(f"windows must be (N, T, F) with T > 0, or (N, F); got {x.shape}")
    steps = np.arange(x.shape[1], dtype=np.float64)
    steps -= steps.mean()
    # One row of weights turns every window into its slope; they add to zero, so a
    # constant has slope zero up to rounding.
    weights = steps / (float(steps @ steps) or 1.0)
    return np.concatenate(
        [
            x[:, -1].astype(np.float64),
            x.mean(axis=1, dtype=np.float64),
            x.std(axis=1, dtype=np.float64),
            x.min(axis=1).astype(np.float64),
            x.max(axis=1).astype(np.float64),
            np.einsum("ntf,t->nf", x, weights, dtype=np.float64),
        ],
        axis=1,
    )

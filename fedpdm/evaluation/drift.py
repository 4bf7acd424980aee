"""How far one sample of a quantity lies from another."""

from __future__ import annotations

import numpy as np

from fedpdm.data.rows import Floats

BINS = 10
LEAST = 1e-4
"""Share that an empty bin counts as: its logarithm would have no bound."""


def population_stability_index(before: Floats, after: Floats) -> float | None:
    """Return sum((q - p) · ln(q / p)) over bins that each hold a tenth of ``before``.

    p and q are the shares of the two samples in a bin. By custom below 0.1 there is no drift and
    above 0.25 much of it (Siddiqi 2006, Credit Risk Scorecards). Two samples of n from the same
    quantity give about 2 · (bins - 1) / n, so small samples say little. NaN is left out.

    Args:
        before: (N,) values.
        after: (M,) values.

    Returns:
        None where a sample is empty.
    """
    before, after = before[~np.isnan(before)], after[~np.isnan(after)]
    if not len(before) or not len(after):
        return None
    inner = np.unique(np.quantile(before, np.arange(1, BINS) / BINS))
    # A value that fills half a bin has one of its own, or what falls below it would not be seen.
    filling = [edge for edge in inner if np.mean(before == edge) >= 0.5 / BINS]
    inner = np.unique([*inner, *np.nextafter(filling, -np.inf)])
    p, q = (
        np.maximum(
            np.bincount(np.searchsorted(inner, values), minlength=len(inner) + 1) / len(values),
            LEAST,
        )
        for values in (before, after)
    )
    return float(np.sum((q - p) * np.log(q / p)))


def kolmogorov_smirnov(before: Floats, after: Floats) -> float | None:
    """Return the largest distance between the two samples' distribution functions, 0 to 1.

    Args:
        before: (N,) values; NaN is left out.
        after: (M,) values.

    Returns:
        None where a sample is empty.
    """
    before, after = np.sort(before[~np.isnan(before)]), np.sort(after[~np.isnan(after)])
    if not len(before) or not len(after):
        return None
    values = np.concatenate([before, after])
    shares = (np.searchsorted(own, values, side="right") / len(own) for own in (before, after))
    return float(np.abs(np.subtract(*shares)).max())

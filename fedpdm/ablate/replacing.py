"""Takes from windows what a group of sensors says. Shapes: N windows, T time steps, F inputs."""

from __future__ import annotations

import numpy as np

from fedpdm.data.rows import Bools, Floats32, Ints
from fedpdm.errors import ConfigError

HOW = {
    "permute": "each window gets the group's readings of another test window of its site",
    "mean": "the group reads the mean of the site's training windows all the time",
    "zero": "the group reads 0 after scaling, as a sensor does that never gave a reading",
}
"""Ways to replace, the one that is ranked by first."""


def replaced(
    how: str,
    x: Floats32,
    columns: Ints,
    training: Floats32,
    codes: Bools,
    generator: np.random.Generator,
) -> Floats32:
    """Return windows of a site in which a group of inputs says nothing of the window.

    ``permute`` moves whole windows of the group, all of its inputs together: the order in time
    and how the group's sensors go together stay, and so does what they read on the whole.

    Args:
        how: one of ``HOW``.
        x: (N, T, F) or (N, F) scaled windows.
        columns: positions of the group's inputs.
        training: (M, T, F) or (M, F) scaled training windows of the site.
        codes: (F,) which inputs are codes (``Source.levels``): their mean is the commonest.
        generator: draws the permutation.

    Raises:
        ConfigError: there is no such way.
    """
    if how not in HOW:
        raise ConfigError(f"--how {how} is unknown; choose {', '.join(HOW)}")
    result = x.copy()
    if how == "permute":
        result[..., columns] = x[generator.permutation(len(x))][..., columns]
    else:
        level = np.zeros(len(columns), dtype=np.float32)
        if how == "mean":
            level = _typical(training[..., columns], codes[columns])
        result[..., columns] = level
    return result


def _typical(training: Floats32, codes: Bools) -> Floats32:
    """Return (C,) means of (…, C) inputs; of codes the commonest, the least of several."""
    rows = training.reshape(-1, training.shape[-1])
    found: Floats32 = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    for place in np.flatnonzero(codes):
        values, counts = np.unique(rows[:, place], return_counts=True)
        found[place] = values[counts.argmax()]
    return found

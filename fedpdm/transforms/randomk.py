"""Random-k: a random choice of differences travels, and the mean over all choices is right.

Konečný et al. 2016, *Federated Learning: Strategies for Improving Communication Efficiency*,
subsampling; Stich et al. 2018 (NeurIPS), definition 2.1. Of D values k = ⌈share·D⌉, drawn without
replacement, travel multiplied by D/k:

    E C(p) = p,   E ‖C(p) − p‖² = (D/k − 1)·‖p‖²

Both ends draw the places from a seed of eight bytes that travels instead of them. With error
feedback the values travel as they are, without D/k: multiplied, the rest would grow from round to
round, while E ‖C(p) − p‖² = (1 − k/D)·‖p‖² without.

*Use it* where sums must stay unbiased, or as the simplest thing to compare top-k with: at the
same number of bytes its error is larger unless all differences are about equal. *It costs* 4
bytes for each value sent, and with error feedback memory of one model at each site. The seed is
drawn by the sender, so that a reader needs neither the run's seed nor the round.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.transforms.compression import Compression, check, flat, kind_of, read, unflat
from fedpdm.transforms.topk import count
from fedpdm.wire.records import Arrays


class RandomK(Compression):
    """Sends a random choice of the differences.

    Args:
        share: of the values that travel, above 0 and at most 1.
        direction: ``up``, ``down`` or ``both``.
        error_feedback: values travel as they are, and the others are remembered; else they are
            multiplied by D/k.

    Raises:
        ConfigError: a setting is out of its range.
    """

    def __init__(
        self, share: float = 0.1, direction: str = "both", error_feedback: bool = False
    ) -> None:
        super().__init__(direction, error_feedback)
        check(self, {"share": (share, 1e-6, 1)})
        self.share = share

    def pack(self, change: Arrays, own: Arrays, generator: np.random.Generator) -> Arrays:
        vector = flat(change)
        seed = generator.integers(2**64, size=1, dtype=np.uint64)
        values = vector[places(seed, count(self.share, vector.size), vector.size)]
        return {"seed": seed, "values": values}

    def unpack(self, packed: Arrays, like: Arrays) -> Arrays:
        size = sum(array.size for array in like.values())
        k = count(self.share, size)
        forms = {"seed": (1, np.dtype(np.uint64)), "values": (k, kind_of(like))}
        seed, values = read(packed, **forms)
        return unflat(scattered(values, places(seed, k, size), size, self.error_feedback), like)


def places(seed: NDArray[np.uint64], k: int, size: int) -> NDArray[np.int64]:
    """Return k of ``size`` places, drawn without replacement."""
    return np.random.default_rng(int(seed[0])).choice(size, k, replace=False, shuffle=False)


def scattered(
    values: NDArray[Any], where: NDArray[np.int64], size: int, as_they_are: bool
) -> NDArray[Any]:
    """Return (size,) values with 0 where nothing was sent.

    Args:
        values: (k,) values.
        where: (k,) places.
        size: of the whole.
        as_they_are: not multiplied by size/k.
    """
    vector = np.zeros(size, values.dtype)
    vector[where] = values if as_they_are else values * (size / max(len(values), 1))
    return vector

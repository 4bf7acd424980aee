"""Top-k: only the largest differences travel; the rest is remembered and comes later.

Stich, Cordonnier and Jaggi 2018, *Sparsified SGD with Memory* (NeurIPS), definition 2.1 and
algorithm 1; Lin et al. 2018, *Deep Gradient Compression* (ICLR). Of D values the k = ⌈share·D⌉
largest by magnitude travel as they are, so that

    ‖C(p) − p‖² ≤ (1 − k/D)·‖p‖²

which with error feedback is enough for the rate of uncompressed SGD. All tensors compete with
each other. Without error feedback a small difference would never travel, and the run may come to
rest beside the optimum.

*Use it* when updates are long and concentrated: from 10 to 100 times fewer bytes. *It costs*, for
each value sent, its 4 bytes and 1, 2 or 4 for the gap to the one before (all of a message the
same), and memory of one model at each site. Of Lin et al.'s further means (momentum correction,
warm-up) none is here: they correct momentum SGD, and our sites start fresh optimizers every
round.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.transforms.compression import Compression, check, flat, kind_of, read, unflat
from fedpdm.wire.records import Arrays

GAPS = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.uint32))


class TopK(Compression):
    """Sends the largest differences.

    Args:
        share: of the values that travel, above 0 and at most 1.
        direction: ``up``, ``down`` or ``both``.
        error_feedback: what does not travel is remembered and added to the next difference.

    Raises:
        ConfigError: a setting is out of its range.
    """

    def __init__(
        self, share: float = 0.01, direction: str = "both", error_feedback: bool = True
    ) -> None:
        super().__init__(direction, error_feedback)
        check(self, {"share": (share, 1e-6, 1)})
        self.share = share

    def pack(self, change: Arrays, own: Arrays, generator: np.random.Generator) -> Arrays:
        vector = flat(change)
        chosen = largest(vector, count(self.share, vector.size))
        gaps = np.diff(chosen, prepend=-1) - 1
        kind = next(k for k in GAPS if gaps.max(initial=0) <= np.iinfo(k).max)
        return {"gaps": gaps.astype(kind), "values": vector[chosen]}

    def unpack(self, packed: Arrays, like: Arrays) -> Arrays:
        size = sum(array.size for array in like.values())
        k = count(self.share, size)
        gaps, values = read(packed, gaps=(k, GAPS), values=(k, kind_of(like)))
        # From gaps of at least 0 no place can come twice, nor one below 0.
        places = np.cumsum(gaps.astype(np.int64) + 1) - 1
        if k and places[-1] >= size:
            raise ValueError(f"it has a value for place {places[-1]} of {size}")
        vector = np.zeros(size, values.dtype)
        vector[places] = values
        return unflat(vector, like)


def count(share: float, size: int) -> int:
    """Return how many of so many values a share is: at least one, if there are any."""
    return min(size, max(1, math.ceil(share * size)))


def largest(vector: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Return the places of the k values of largest magnitude, in ascending order.

    Of equal ones those at the lowest places: which ones a partition finds differs by processor.
    """
    size = vector.size
    if k >= size:
        return np.arange(size)
    magnitude = np.abs(vector)
    limit = np.partition(magnitude, size - k)[size - k]
    above = magnitude > limit
    chosen = np.flatnonzero(above | np.isnan(magnitude))[:k]
    equal = np.flatnonzero(magnitude == limit)[: k - chosen.size]
    missing = k - chosen.size - equal.size  # only where there is NaN
    if missing:
        others = np.setdiff1d(np.arange(size), [*chosen, *equal])
        equal = np.concatenate([equal, others[:missing]])
    return np.sort(np.concatenate([chosen, equal]))

"""Outlier detection: updates of unusual length or direction are left out of the mean.

A detector by a robust statistic, in place of the z-score of the source systems, which cannot
fire: of n values none lies more than sqrt(n − 1) deviations from their mean, so with five sites
or fewer z > 2 never happens. Here the distance from the median m counts in median absolute
deviations (Iglewicz and Hoaglin 1993, How to Detect and Handle Outliers, the modified z-score),

    z_k = (x_k − m) / max(1.4826·MAD(x), floor)

of two values of each update: its length (|z| counts), and its cosine with the median update, that
of each coordinate's median (low z counts). Who is beyond ``threshold`` in either is left out of
this round's mean, and the event is in the history. The others are averaged as by FedAvg.

Use it to see who is odd: it names the sites. It tells of one among four sites; with three it
cannot be told which two of them are right. Attacks that stay within the spread of honest updates
pass. Honest sites with rare machines may be called odd. The floor (``SPREAD`` of the median
length, and of a cosine) keeps sites that differ in nothing that matters. It costs memory at the
server (every update of a round), no bytes, and remembers nothing. As the threshold goes to
infinity, with ``by_examples``, this is FedAvg.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.strategies.ranges import check_range
from fedpdm.strategies.robust import RobustStrategy, Updates, Vector, mean_of

__all__ = ["OutlierDetection"]

CONSISTENT = 1.4826
"""The deviation of a normal distribution over its MAD."""
SPREAD = 0.1
"""The least deviation of lengths, relative to their median, and of cosines."""


class OutlierDetection(RobustStrategy):
    """The mean without updates whose length or direction is far from the median.

    Args:
        threshold: how many robust deviations from the median are too far.
        by_examples: weigh sites by the number of examples that they state.
        **flower: further arguments of Flower's FedAvg.
    """

    rule = "f < n/2, of at least four sites, and only updates outside the spread of the others"

    def __init__(self, threshold: float = 3.5, by_examples: bool = False, **flower: Any) -> None:
        check_range("threshold", threshold, below=1e18)
        super().__init__(by_examples, **flower)
        self.threshold = threshold

    def tolerated(self, sites: int) -> int:
        return 0 if sites < 4 else (sites - 1) // 2

    def step(self, updates: Updates) -> Vector:
        points = updates.start + updates.deltas
        return self.combine_points(updates, points, updates.weights) - updates.start

    def combine_points(
        self, updates: Updates, points: NDArray[np.float64], weights: Vector
    ) -> Vector:
        norms = updates.norms
        center = np.median(updates.deltas, axis=0)
        cosines = directions(updates.deltas, center)
        long = robust_z(norms, SPREAD * float(np.median(norms)))
        turned = robust_z(cosines, SPREAD)
        odd = (np.abs(long) > self.threshold) | (turned < -self.threshold)
        if len(norms) < 4 or odd.all():  # nobody could say who is right
            odd[:] = False
        for k in np.flatnonzero(odd).tolist():
            what = "length" if abs(long[k]) > self.threshold else "direction"
            far = abs(long[k]) if what == "length" else abs(turned[k])
            self.suspect(
                updates.sites[k], f"its {what} is {far:.3g} robust deviations from the median"
            )
        self.report(left_out_sites=float(odd.sum()))
        if not weights[~odd].sum() > 0:
            return updates.start
        return mean_of(points[~odd], weights[~odd])


def robust_z(values: Vector, floor: float) -> Vector:
    """Return (n,) distances from the median in robust deviations.

    Args:
        values: (n,).
        floor: the least deviation; 0 only where all values are 0.
    """
    away = values - np.median(values)
    spread = max(CONSISTENT * float(np.median(np.abs(away))), floor)
    return np.asarray(away / (spread or 1.0))


def directions(vectors: NDArray[np.float64], other: Vector) -> Vector:
    """Return (n,) cosines with another vector; 0 where either has no length."""
    lengths = np.sqrt(np.sum(np.square(vectors), axis=1)) * float(np.sqrt(other @ other))
    return np.asarray(
        np.where(lengths > 0, vectors @ other / np.where(lengths > 0, lengths, 1.0), 0.0)
    )

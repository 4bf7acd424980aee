"""DnC: the updates that stretch the round's spread the most are left out of the mean.

Shejwalkar, Houmansadr 2021, Manipulating the Byzantine: Optimizing Model Poisoning Attacks and
Defenses for Federated Learning (NDSS), divide-and-conquer. Centred by their mean, the updates
have one direction in which they differ most, the first right singular vector v of the matrix of
them; what f malicious sites do together shows along it:

    s_k = ⟨Δ_k − mean(Δ), v⟩²        w ← w_t + the mean of all but the ⌈c·f⌉ with the largest s_k

It needs to be told f (``num_malicious``) and leaves out so many in every round, honest ones if
nobody attacks: use it where you expect attackers that agree. It costs memory at the server (every
update of a round), no bytes. With f = 0 and ``by_examples`` this is FedAvg.

The paper draws a part of the coordinates, several times, and keeps who passes each time, because
its models are large; here one pass looks at all coordinates, which draws nothing. The paper does
not weigh by examples. Nothing is remembered.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.errors import ConfigError
from fedpdm.strategies.ranges import check_range
from fedpdm.strategies.robust import RobustStrategy, Updates, Vector, mean_of

__all__ = ["DnC"]


class DnC(RobustStrategy):
    """The mean without the updates that stretch the spread the most.

    Args:
        num_malicious: f, how many malicious sites are expected in a round.
        filtering: c, how many updates are left out for each of them.
        by_examples: weigh sites by the number of examples that they state.
        **flower: further arguments of Flower's FedAvg.
    """

    rule = "f < n/2, and strategy.num_malicious says f"

    def __init__(
        self,
        num_malicious: int = 1,
        filtering: float = 1.0,
        by_examples: bool = False,
        **flower: Any,
    ) -> None:
        if num_malicious < 0:
            raise ConfigError(f"strategy.num_malicious={num_malicious} must be at least 0")
        check_range("filtering", filtering)
        super().__init__(by_examples, **flower)
        self.num_malicious, self.filtering = num_malicious, filtering

    @property
    def left_out(self) -> int:
        """How many updates are left out of a round."""
        return math.ceil(self.filtering * self.num_malicious - 1e-9)

    @property
    def min_sites(self) -> int:
        """Sites that a round needs: an honest majority, of which something is left."""
        return max(2 * self.num_malicious, self.left_out) + 1

    def tolerated(self, sites: int) -> int:
        return min(self.num_malicious, self.left_out, (sites - 1) // 2)

    def step(self, updates: Updates) -> Vector:
        points = updates.start + updates.deltas
        return self.combine_points(updates, points, updates.weights) - updates.start

    def combine_points(
        self, updates: Updates, points: NDArray[np.float64], weights: Vector
    ) -> Vector:
        stretch = stretches(updates.deltas)
        out = min(self.left_out, len(points) - 1)  # sites may have failed
        kept = np.sort(np.argsort(stretch, kind="stable")[: len(points) - out])
        self.report(left_out_sites=float(out))
        if not weights[kept].sum() > 0:
            return updates.start
        return mean_of(points[kept], weights[kept])


def stretches(vectors: NDArray[np.float64]) -> Vector:
    """Return (n,) squared lengths of (n, P) vectors along where they differ most."""
    away = vectors - vectors.mean(axis=0)
    # With away = U·S·Vᵀ the length of row k along the first column of V is S₁·U_k1.
    values, columns = np.linalg.eigh(away @ away.T)
    return np.asarray(np.maximum(values[-1], 0.0) * np.square(columns[:, -1]))

"""RFA: the geometric median of the sites' models in place of their mean.

Pillutla, Kakade, Harchaoui 2022, Robust Aggregation for Federated Learning (IEEE Transactions on
Signal Processing 70), the geometric median by the smoothed Weiszfeld algorithm. With weights α_k
it is

    z* = argmin_z Σ_k α_k·‖z − w_k‖        β_k = α_k / max(ν, ‖z − w_k‖),  z ← Σ β_k·w_k / Σ β_k

A single site can pull the mean anywhere; the geometric median stays near the others as long as
less than half of the weight is malicious. Use it when you do not know which attack to expect: it
has nothing to be set. It costs memory at the server (every update of a round), no bytes, and
accuracy where sites differ much, because sites far from the middle count little.

The paper takes three steps, because each is a round of secure aggregation there. Here the server
has all updates, so it goes on until the step is small (``iterations`` at most). The paper weighs
by examples; here every site counts alike (``strategies.robust``). Nothing is remembered.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.errors import ConfigError
from fedpdm.strategies.ranges import check_range
from fedpdm.strategies.robust import RobustStrategy, Updates, Vector

__all__ = ["RFA"]

PRECISION = 1e-9
"""Of the distance between the points: a smaller step ends the iteration."""


class RFA(RobustStrategy):
    """The geometric median of the sites' models.

    Args:
        smoothing: ν, the least distance that is divided by.
        iterations: Weiszfeld steps at most.
        by_examples: weigh sites by the number of examples that they state.
        **flower: further arguments of Flower's FedAvg.
    """

    rule = "f < n/2"

    def __init__(
        self,
        smoothing: float = 1e-6,
        iterations: int = 100,
        by_examples: bool = False,
        **flower: Any,
    ) -> None:
        check_range("smoothing", smoothing, below=1e18)
        if iterations < 1:
            raise ConfigError(f"strategy.iterations={iterations} must be at least 1")
        super().__init__(by_examples, **flower)
        self.smoothing, self.iterations = smoothing, iterations

    def tolerated(self, sites: int) -> int:
        return (sites - 1) // 2

    def step(self, updates: Updates) -> Vector:
        found, steps = geometric_median(
            updates.deltas, updates.weights, self.smoothing, self.iterations
        )
        self.report(weiszfeld_steps=float(steps))
        return found


def geometric_median(
    points: NDArray[np.float64], weights: Vector, smoothing: float, iterations: int
) -> tuple[Vector, int]:
    """Return (P,) the point with the least weighted sum of distances, and how many steps it took.

    Args:
        points: (n, P).
        weights: (n,), they add up to 1.
        smoothing: the least distance that is divided by.
        iterations: steps at most.
    """
    found = weights @ points
    scale = float(np.abs(points - found).max(initial=0.0))
    for number in range(1, iterations + 1):
        distance = np.sqrt(np.sum(np.square(points - found), axis=1))
        beta = weights / np.maximum(smoothing, distance)
        last, found = found, (beta / beta.sum()) @ points
        if float(np.abs(found - last).max(initial=0.0)) <= PRECISION * scale:
            return found, number
    return found, iterations

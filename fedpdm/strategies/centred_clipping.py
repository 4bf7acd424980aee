"""Centred clipping: updates are clipped about the last round's step, which the server remembers.

Karimireddy, He, Jaggi 2021, Learning from History for Byzantine Robust Optimization (ICML),
centered clipping. With the center v of the last round and the radius τ, ``iterations`` times

    v ← v + Σ_k p_k·(Δ_k − v)·min(1, τ/‖Δ_k − v‖)        then w ← w_t + v

Whatever f of n sites send, each iteration moves v by at most τ, and their part of that is at most
τ·f/n: a round cannot turn the last one's step around. Use it where honest updates point alike
from round to round, and where norm clipping is too weak: it cuts differences, not lengths. It
costs memory at the server (every update of a round, and v), no bytes. As τ goes to infinity one
iteration is the mean, whatever v is.

The server remembers v; the history keeps it. In the paper sites send momentum of single
gradients; here they send the change of a round of local epochs, which averages many, and keep
none. The paper fixes τ; ``radius: null`` takes the median distance from the center, again in each
iteration. Its proof is for f ≤ n/10; above that it is a rule of thumb.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.errors import ConfigError
from fedpdm.strategies.ranges import check_range
from fedpdm.strategies.robust import RobustStrategy, Updates, Vector

__all__ = ["CentredClipping"]


class CentredClipping(RobustStrategy):
    """The mean of updates clipped about the last step.

    Args:
        radius: τ; None for the median distance from the center.
        iterations: how often the center moves in a round.
        by_examples: weigh sites by the number of examples that they state.
        **flower: further arguments of Flower's FedAvg.
    """

    rule = "proven for f ≤ n/10"

    def __init__(
        self,
        radius: float | None = None,
        iterations: int = 3,
        by_examples: bool = False,
        **flower: Any,
    ) -> None:
        if radius is not None:
            check_range("radius", radius, below=1e18)
        if iterations < 1:
            raise ConfigError(f"strategy.iterations={iterations} must be at least 1")
        super().__init__(by_examples, **flower)
        self.radius, self.iterations = radius, iterations
        self.center: NDArray[np.float64] | None = None

    def tolerated(self, sites: int) -> int:
        return sites // 10

    def step(self, updates: Updates) -> Vector:
        found = np.zeros_like(updates.start) if self.center is None else self.center
        for _ in range(self.iterations):
            away = updates.deltas - found
            distance = np.sqrt(np.sum(np.square(away), axis=1))
            radius = float(np.median(distance)) if self.radius is None else self.radius
            inside = distance <= radius
            factor = np.where(inside, 1.0, radius / np.where(inside, 1.0, distance))
            found = found + (updates.weights * factor) @ away
        self.report(clip_radius=radius)
        self.center = found
        return found

"""Norm clipping: no update is longer than a bound before the mean is taken.

Sun, Kairouz, Suresh, McMahan 2019, Can You Really Backdoor Federated Learning? (arXiv
1911.07963), norm thresholding of updates. With the bound M

    Δ_k ← Δ_k / max(1, ‖Δ_k‖/M)        w ← w_t + Σ_k p_k·Δ_k

An attack that replaces the model has to send a long update; clipped to M, f of n sites move the
model by at most M·f/n a round. So it bounds the damage of each round, not its direction: sites
that flip the sign of an update of usual length stay in the mean. Use it against scaling and
noise. It costs memory at the server (every update of a round) and no bytes.

The paper fixes M. Which length is usual depends on model, data and round, so ``clip: null`` takes
the median length of the round, which less than half of the sites cannot move beyond honest
lengths. The paper's noise on the sum is left out: it is the matter of privacy. The paper weighs
by examples; here every site counts alike (``strategies.robust``). Nothing is remembered. As M
goes to infinity, with ``by_examples``, this is FedAvg.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.strategies.ranges import check_range
from fedpdm.strategies.robust import RobustStrategy, Updates, Vector, mean_of, shortened

__all__ = ["NormClipping"]


class NormClipping(RobustStrategy):
    """The mean of updates clipped to a length.

    Args:
        clip: M, the greatest length of an update; None for the median of the round's.
        by_examples: weigh sites by the number of examples that they state.
        **flower: further arguments of Flower's FedAvg.
    """

    rule = "it bounds what a site does to the model in a round, for any f, and does not undo it"

    def __init__(self, clip: float | None = None, by_examples: bool = False, **flower: Any) -> None:
        if clip is not None:
            check_range("clip", clip, below=1e18)
        super().__init__(by_examples, **flower)
        self.clip = clip

    def tolerated(self, sites: int) -> int:
        return 0

    def step(self, updates: Updates) -> Vector:
        return self._new(updates, updates.start + updates.deltas, updates.weights) - updates.start

    def combine_points(
        self, updates: Updates, points: NDArray[np.float64], weights: Vector
    ) -> Vector:
        return self._new(updates, points, weights)

    def _new(self, updates: Updates, points: NDArray[np.float64], weights: Vector) -> Vector:
        radius = float(np.median(updates.norms)) if self.clip is None else self.clip
        self.report(clip_norm=radius, clipped_sites=float(np.sum(updates.norms > radius)))
        return mean_of(shortened(updates, points, radius), weights)

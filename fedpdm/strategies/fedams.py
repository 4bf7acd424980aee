"""FedAMS: FedAdam whose second moment never falls, so that its steps cannot grow late.

Wang, Lin and Chen 2022, Communication-Efficient Adaptive Federated Learning (ICML), algorithm 1,
option 1. With Δ the sites' mean change,

    m ← β₁·m + (1 − β₁)·Δ
    v ← β₂·v + (1 − β₂)·Δ²
    v̂ ← max(v̂, v, ε)
    w ← w_t + η·m/√v̂

The largest v̂ so far is kept, as in AMSGrad: where FedAdam takes long steps again after a quiet
time, this one does not. ε is inside the maximum, where FedAdam adds τ to the root. Δ is weighted by
examples; the paper's is a plain mean. Sites train as with FedAvg. The server remembers three
numbers per parameter in float64.

Use it in the place of FedAdam where its late steps undo what was learnt.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fedpdm.aggregation.sums import Sums
from fedpdm.strategies.base import PlainClient, ServerHalf
from fedpdm.strategies.ranges import check_range
from fedpdm.wire.records import Arrays

__all__ = ["FedAMS"]


class FedAMS(ServerHalf):
    """The server's half.

    Args:
        eta: η, the server's learning rate.
        beta_1: β₁, how long the mean of changes is remembered.
        beta_2: β₂, the same for their squares.
        epsilon: ε, the least that a square counts.
        **flower: further arguments of Flower's FedAvg.

    Raises:
        ConfigError: a value out of its range; names ``strategy.KEY``.
    """

    client = PlainClient

    def __init__(
        self,
        eta: float = 0.01,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        epsilon: float = 1e-6,
        **flower: Any,
    ) -> None:
        check_range("eta", eta)
        check_range("beta_1", beta_1, zero=True, below=1)
        check_range("beta_2", beta_2, zero=True, below=1)
        check_range("epsilon", epsilon)
        super().__init__(**flower)
        self.eta, self.beta_1, self.beta_2, self.epsilon = eta, beta_1, beta_2, epsilon
        self.mean: Arrays = {}
        self.square: Arrays = {}
        self.largest: Arrays = {}

    def combine(self, server_round: int, sent: Arrays, sums: Sums) -> Arrays:
        zeros = {name: np.zeros(w.shape) for name, w in sent.items()}
        mean, square, largest = (each or zeros for each in (self.mean, self.square, self.largest))
        change = {name: sums.mean[name] - w for name, w in sent.items()}
        self.mean = {n: self.beta_1 * mean[n] + (1 - self.beta_1) * d for n, d in change.items()}
        self.square = {
            n: self.beta_2 * square[n] + (1 - self.beta_2) * d**2 for n, d in change.items()
        }
        self.largest = {
            n: np.maximum(np.maximum(largest[n], v), self.epsilon) for n, v in self.square.items()
        }
        return {n: w + self.eta * self.mean[n] / np.sqrt(self.largest[n]) for n, w in sent.items()}

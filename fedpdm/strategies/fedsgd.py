"""FedSGD with Adam at the server: one step per round along the gradient of all sites' rows.

McMahan et al. 2017, Communication-Efficient Learning of Deep Networks from Decentralized
Data (AISTATS), FedSGD: every site makes one plain step over all its rows, so the mean of
their changes Δ, weighted by examples, is −η_l times the gradient on all rows. The server
takes it as Adam does (Kingma and Ba 2015; Reddi et al. 2021, algorithm 2):

    m ← β₁·m + (1 − β₁)·Δ
    v ← β₂·v + (1 − β₂)·Δ²
    w ← w + η · m/(1 − β₁^t) / (√(v/(1 − β₂^t)) + τ)

All of it is in float64: a mean of float32 weights that were not changed would differ from
them in the last digits, and Adam makes steps of full length of such noise.

Use it as a reference: it is training on pooled rows without moving them, so what local steps gain
or lose shows beside it. It needs far more rounds than FedAvg, and so more bytes. The server
remembers two models in float64; a message is as long as FedAvg's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fedpdm.aggregation.sums import Sums
from fedpdm.strategies.base import ClientHalf, ServerHalf, client_half
from fedpdm.strategies.ranges import check_range
from fedpdm.wire.records import Arrays

__all__ = ["FedSGD", "FedSGDClient"]


@client_half("fedsgd")
class FedSGDClient(ClientHalf):
    """Plain steps: what a site sends is its gradient."""

    optimizers = ("sgd",)


class FedSGD(ServerHalf):
    """The server's half: Adam on the sites' mean change.

    Args:
        eta: η, the server's learning rate.
        beta_1: β₁, how long the mean of changes is remembered.
        beta_2: β₂, the same for their squares.
        tau: τ, changes much smaller than this are not enlarged.
        **flower: further arguments of Flower's FedAvg.

    Raises:
        ConfigError: a value out of its range; names ``strategy.KEY``.
    """

    client = FedSGDClient

    def __init__(
        self,
        eta: float = 0.003,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        tau: float = 1e-6,
        **flower: Any,
    ) -> None:
        check_range("eta", eta)
        check_range("tau", tau)
        check_range("beta_1", beta_1, zero=True, below=1)
        check_range("beta_2", beta_2, zero=True, below=1)
        super().__init__(**flower)
        self.eta, self.beta_1, self.beta_2, self.tau = eta, beta_1, beta_2, tau
        self.steps = 0
        self.mean: Arrays = {}
        self.square: Arrays = {}

    def combine(self, server_round: int, sent: Arrays, sums: Sums) -> Arrays:
        self.steps += 1
        zeros = {name: np.zeros(w.shape) for name, w in sent.items()}
        mean, square = self.mean or zeros, self.square or zeros
        change = {name: sums.mean[name] - w for name, w in sent.items()}
        self.mean = {
            name: self.beta_1 * mean[name] + (1 - self.beta_1) * d for name, d in change.items()
        }
        self.square = {
            name: self.beta_2 * square[name] + (1 - self.beta_2) * d**2
            for name, d in change.items()
        }
        first, second = 1 - self.beta_1**self.steps, 1 - self.beta_2**self.steps
        return {
            name: w
            + self.eta
            * (self.mean[name] / first)
            / (np.sqrt(self.square[name] / second) + self.tau)
            for name, w in sent.items()
        }

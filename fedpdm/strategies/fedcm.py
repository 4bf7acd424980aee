"""FedCM: every local step is mixed with the federation's last direction.

Xu et al. 2021, FedCM: Federated Learning with Client-level Momentum (arXiv 2106.10874), algorithm
1. The server sends the direction D_t of the last round; site k steps along

    v_k = α·g_k + (1 − α)·D_t

and the server sets, with R_k the sum of the rates of a site's steps (the paper's K·η_l),

    D   ← Σ_k p_k (w_t − w_k) / Σ_k p_k R_k
    w   ← w_t + η_g·Σ_k p_k (w_k − w_t)

Sites remember nothing, so it suits federations of which few sites are sampled in a round. Messages
to sites are twice as long, those back are not. α = 1 is FedAvg, bit for bit. Here p_k is a site's
share of the examples (the paper's: 1/S), and where sites make unequally many steps the mean length
stands for the paper's one K. D is 0 in the first round, so that goes α times as far as FedAvg's.
With ``objective=fedsam`` this is MoFedSAM (Qu et al. 2022).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedpdm.aggregation.sums import Sums
from fedpdm.strategies.base import ClientHalf, Outcome, ServerHalf, Work, client_half
from fedpdm.strategies.ranges import check_range
from fedpdm.training.loop import GradientTerm, Memory
from fedpdm.wire.records import EXAMPLES, Arrays

__all__ = ["FedCM", "FedCMClient", "length_of", "mean_length"]

DIRECTION, LENGTH = "direction", "local_length"


@client_half("fedcm-alpha")
class FedCMClient(ClientHalf):
    """Steps along α·g + (1 − α)·D, and says how far its steps may have gone, R_k."""

    optimizers = ("sgd",)
    reads = (DIRECTION,)

    def term(self, received: Sequence[Tensor], memory: Memory) -> GradientTerm | None:
        alpha, common = float(self.setting), self.sent[DIRECTION]
        if alpha == 1.0:
            return None

        def add(parameters: Sequence[Tensor], received: Sequence[Tensor]) -> None:
            with torch.no_grad():
                for parameter, direction in zip(parameters, common, strict=True):
                    if parameter.grad is not None:
                        parameter.grad.mul_(alpha).add_(direction, alpha=1 - alpha)

        return add

    def finish(self, work: Work) -> Outcome:
        return Outcome(metrics={LENGTH: sum(work.rates)})


def length_of(metrics: Mapping[str, float]) -> float:
    """Return R_k as a site reported it; raises ValueError for what no length can be."""
    length = metrics[LENGTH]
    if not 0 < length < math.inf:
        raise ValueError(f"{LENGTH} is {length}")
    return length


def mean_length(sums: Sums, weights: Sequence[float]) -> float:
    """Return Σ_k p_k R_k."""
    pairs = zip(sums.sites, weights, strict=True)
    return sum(weight * site[LENGTH] for site, weight in pairs) / sum(weights)


class FedCM(ServerHalf):
    """The server's half: the direction D, and the step.

    Args:
        alpha: α, the share of a site's own gradient in its steps; 1: FedAvg.
        server_learning_rate: η_g; 1 takes the mean of the sites' weights.
        **flower: further arguments of Flower's FedAvg.

    Raises:
        ConfigError: a value out of its range; names ``strategy.KEY``.
    """

    client = FedCMClient

    def __init__(
        self, alpha: float = 0.1, server_learning_rate: float = 1.0, **flower: Any
    ) -> None:
        check_range("alpha", alpha, below=1.0 + 1e-9)
        check_range("server_learning_rate", server_learning_rate)
        super().__init__(setting=float(alpha), **flower)
        self.server_learning_rate = float(server_learning_rate)
        self.direction: Arrays = {}

    def send(self, arrays: Arrays) -> Mapping[str, Arrays]:
        if not self.direction:
            self.direction = {name: np.zeros(a.shape) for name, a in arrays.items()}
        return {DIRECTION: {n: self.direction[n].astype(a.dtype) for n, a in arrays.items()}}

    def weight(self, metrics: Mapping[str, float]) -> float:
        length_of(metrics)
        return metrics[EXAMPLES]

    def combine(self, server_round: int, sent: Arrays, sums: Sums) -> Arrays:
        length = mean_length(sums, [site[EXAMPLES] for site in sums.sites])
        self.direction = {name: (w - sums.mean[name]) / length for name, w in sent.items()}
        rate = self.server_learning_rate
        if rate == 1.0:
            return sums.mean
        return {name: w + rate * (sums.mean[name] - w) for name, w in sent.items()}

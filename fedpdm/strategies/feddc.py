"""FedDC: each site learns its own drift, and the server takes it out of the mean.

Gao et al. 2022, FedDC: Federated Learning with Non-IID Data via Local Drift Decoupling and
Correction (CVPR), algorithm 1 and eq. 4 to 6. Site k remembers its drift h_k and its last change
per length, s_k; with the federation's s from the server it minimises

    L_k(w) + (α/2)·‖w + h_k − w_t‖² + ⟨w, s_k − s⟩

comes to w_k, and sets, with R_k the sum of the rates of its steps (the paper's K·η),

    h_k ← h_k + (w_k − w_t)        s_k ← (w_k − w_t)/R_k

The server takes w ← mean_S (w_k + h_k) and s ← mean_S (w_k − w_t) / mean_S R_k. Means are the
paper's, not weighted by examples. Where it stops every w_k is w_t and the drifts add up to 0, so
the sites' gradients do, too: that is the common optimum, where FedAvg stops beside it. Fresh drifts
double the first step, as in FedDyn.

Messages are twice as long both ways; a site remembers two models.

Use it where sites differ much and take part in most rounds, and bandwidth is no matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedpdm.aggregation.sums import Sums
from fedpdm.strategies.base import ClientHalf, Outcome, ServerHalf, Work, client_half
from fedpdm.strategies.fedcm import LENGTH, length_of, mean_length
from fedpdm.strategies.ranges import check_range
from fedpdm.training.loop import GradientTerm, Memory
from fedpdm.wire.records import Arrays

__all__ = ["FedDC", "FedDCClient"]

DRIFT, SLOPE = "drift", "slope"


@client_half("feddc-alpha")
class FedDCClient(ClientHalf):
    """Adds α·(w + h_k − w_t) + s_k − s to the gradient; remembers h_k and s_k."""

    optimizers = ("sgd",)
    groups = (DRIFT, SLOPE)
    reads = (SLOPE,)
    replies = (DRIFT,)

    def term(self, received: Sequence[Tensor], memory: Memory) -> GradientTerm:
        alpha = float(self.setting)
        parts = zip(received, memory[DRIFT], memory[SLOPE], self.sent[SLOPE], strict=True)
        offsets = [alpha * (drift - start) + own - common for start, drift, own, common in parts]

        def add(parameters: Sequence[Tensor], received: Sequence[Tensor]) -> None:
            with torch.no_grad():
                for parameter, offset in zip(parameters, offsets, strict=True):
                    if parameter.grad is not None:
                        parameter.grad.add_(parameter, alpha=alpha).add_(offset)

        return add

    def finish(self, work: Work) -> Outcome:
        length, own = sum(work.rates), work.memory[DRIFT]
        change = {name: work.trained[name] - w for name, w in work.received.items()}
        drift = {name: own[name] + d for name, d in change.items()}
        slope = {name: (d / length).astype(d.dtype) for name, d in change.items()}
        return Outcome({DRIFT: drift, SLOPE: slope}, {DRIFT: drift}, {LENGTH: length})


class FedDC(ServerHalf):
    """The server's half: the mean without the drifts, and the common slope.

    Args:
        alpha: α, how strongly sites are held to what was sent less their drift.
        **flower: further arguments of Flower's FedAvg.

    Raises:
        ConfigError: ``strategy.alpha`` is out of its range.
    """

    client = FedDCClient

    def __init__(self, alpha: float = 0.1, **flower: Any) -> None:
        check_range("alpha", alpha)
        super().__init__(setting=float(alpha), **flower)
        self.slope: Arrays = {}

    def send(self, arrays: Arrays) -> Mapping[str, Arrays]:
        if not self.slope:
            self.slope = {name: np.zeros(a.shape) for name, a in arrays.items()}
        return {SLOPE: {name: self.slope[name].astype(a.dtype) for name, a in arrays.items()}}

    def weight(self, metrics: Mapping[str, float]) -> float:
        length_of(metrics)
        return 1.0

    def combine(self, server_round: int, sent: Arrays, sums: Sums) -> Arrays:
        length = mean_length(sums, [1.0] * len(sums.sites))
        self.slope = {name: (sums.mean[name] - w) / length for name, w in sent.items()}
        return {name: sums.mean[name] + sums.means[DRIFT][name] for name in sent}

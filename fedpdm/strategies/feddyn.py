"""FedDyn: a dynamic regulariser aligns each site's optimum with the federation's.

Acar et al. 2021, Federated Learning Based on Dynamic Regularization (ICLR), algorithm 1.
Site k minimises L_k(w) − ⟨λ_k, w⟩ + (α/2)·‖w − w_t‖² and then sets

    λ_k ← λ_k − α·(w_k − w_t)
    h   ← h − (α/m)·Σ_S (w_k − w_t)        m: all sites, sampled or not
    w   ← mean_S w_k − h/α

So h is the mean of all sites' λ_k: those that were not sampled have not changed theirs.
Means are the paper's, not weighted by examples. As α goes to 0 this does not become FedAvg:
h/α stays.

Use it where sites differ and all of them, or most, take part; a λ_k that is seldom renewed is out
of date. A site remembers λ_k and the server h, a model each; messages are those of FedAvg.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedpdm.aggregation.sums import Sums
from fedpdm.strategies.base import ClientHalf, Outcome, ServerHalf, Work, client_half
from fedpdm.strategies.ranges import check_range
from fedpdm.training.loop import GradientTerm, Memory
from fedpdm.wire.records import Arrays

__all__ = ["FedDyn", "FedDynClient"]

LAMBDA = "lambda"


@client_half("feddyn-alpha")
class FedDynClient(ClientHalf):
    """Adds −λ_k + α·(w − w_t) to the gradient; remembers λ_k."""

    optimizers = ("sgd",)
    groups = (LAMBDA,)

    def term(self, received: Sequence[Tensor], memory: Memory) -> GradientTerm:
        alpha = float(self.setting)
        pairs = zip(received, memory[LAMBDA], strict=True)
        offsets = [own + alpha * start for start, own in pairs]

        def add(parameters: Sequence[Tensor], received: Sequence[Tensor]) -> None:
            with torch.no_grad():
                for parameter, offset in zip(parameters, offsets, strict=True):
                    if parameter.grad is not None:
                        parameter.grad.add_(parameter, alpha=alpha).sub_(offset)

        return add

    def finish(self, work: Work) -> Outcome:
        alpha, own = float(self.setting), work.memory[LAMBDA]
        return Outcome(
            memory={
                LAMBDA: {
                    name: own[name] - alpha * (work.trained[name] - before)
                    for name, before in work.received.items()
                }
            }
        )


class FedDyn(ServerHalf):
    """The server's half: h, and the weights it corrects.

    Args:
        alpha: strength of the dynamic regulariser.
        **flower: further arguments of Flower's FedAvg.
    """

    client = FedDynClient

    def __init__(self, alpha: float = 0.1, **flower: Any) -> None:
        check_range("alpha", alpha)
        super().__init__(setting=float(alpha), **flower)
        self.h: Arrays = {}

    def weight(self, metrics: Mapping[str, float]) -> float:
        return 1.0

    def combine(self, server_round: int, sent: Arrays, sums: Sums) -> Arrays:
        alpha, share = self.setting, len(sums.sites) / self.total_sites
        before = self.h or {name: np.zeros(w.shape) for name, w in sent.items()}
        self.h = {
            name: before[name] - alpha * share * (sums.mean[name] - w) for name, w in sent.items()
        }
        return {name: sums.mean[name] - self.h[name] / alpha for name in sent}

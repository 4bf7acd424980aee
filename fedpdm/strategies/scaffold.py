"""SCAFFOLD: control variates correct the drift of the sites' local steps.

Karimireddy et al. 2020, SCAFFOLD: Stochastic Controlled Averaging for Federated Learning
(ICML), algorithm 1 with option II. Site k steps along g_k − c_k + c and then sets

    c_k⁺ = c_k − c + (w_t − w_k)/Σ_s η_s
    c   ← c + (|S|/N) · mean_S (c_k⁺ − c_k)
    w   ← w_t + η_g · mean_S (w_k − w_t)

Where the paper writes K·η stands the sum of the rates of the K steps, because ours fall
from epoch to epoch. Means are the paper's, not weighted by examples: with sites of equal
size and controls of zero, the first round is that of FedAvg. The controls travel too, so a
message is twice as long both ways.

Use it where sites differ, train for many local steps, and take part often: controls of sites that
are seldom sampled are out of date. A site remembers c_k, the server c, a model each.
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

__all__ = ["Scaffold", "ScaffoldClient"]

CONTROL = "control"


@client_half("scaffold")
class ScaffoldClient(ClientHalf):
    """Steps along g − c_k + c; remembers c_k and sends how it changed."""

    optimizers = ("sgd",)
    groups = (CONTROL,)
    reads = (CONTROL,)
    replies = (CONTROL,)

    def term(self, received: Sequence[Tensor], memory: Memory) -> GradientTerm:
        pairs = zip(self.sent[CONTROL], memory[CONTROL], strict=True)
        corrections = [common - own for common, own in pairs]

        def add(parameters: Sequence[Tensor], received: Sequence[Tensor]) -> None:
            with torch.no_grad():
                for parameter, correction in zip(parameters, corrections, strict=True):
                    if parameter.grad is not None:
                        parameter.grad.add_(correction)

        return add

    def finish(self, work: Work) -> Outcome:
        length, common, own = sum(work.rates), work.sent[CONTROL], work.memory[CONTROL]
        new = {
            name: own[name] - common[name] + (before - work.trained[name]) / length
            for name, before in work.received.items()
        }
        change = {name: new[name] - own[name] for name in new}
        return Outcome(memory={CONTROL: new}, records={CONTROL: change})


class Scaffold(ServerHalf):
    """The server's half: the common control c, and the step of length η_g.

    Args:
        server_learning_rate: η_g; 1 takes the mean of the sites' weights.
        **flower: further arguments of Flower's FedAvg.
    """

    client = ScaffoldClient

    def __init__(self, server_learning_rate: float = 1.0, **flower: Any) -> None:
        check_range("server_learning_rate", server_learning_rate)
        super().__init__(**flower)
        self.server_learning_rate = server_learning_rate
        self.control: Arrays = {}

    def send(self, arrays: Arrays) -> Mapping[str, Arrays]:
        if not self.control:
            self.control = {name: np.zeros(a.shape) for name, a in arrays.items()}
        return {CONTROL: {name: self.control[name].astype(a.dtype) for name, a in arrays.items()}}

    def weight(self, metrics: Mapping[str, float]) -> float:
        return 1.0

    def combine(self, server_round: int, sent: Arrays, sums: Sums) -> Arrays:
        share, change = len(sums.sites) / self.total_sites, sums.means[CONTROL]
        self.control = {name: c + share * change[name] for name, c in self.control.items()}
        rate = self.server_learning_rate
        return {name: w + rate * (sums.mean[name] - w) for name, w in sent.items()}

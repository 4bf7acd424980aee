"""FedMom: Nesterov momentum at the server, which looks ahead along the last step.

Huo et al. 2020, Faster On-Device Training Using New Federated Momentum Algorithm (arXiv
2002.02090), algorithm 2. With p_k a site's share of the examples,

    v_{t+1} = w_t − η·Σ_k p_k (w_t − w_k)
    w_{t+1} = v_{t+1} + β·(v_{t+1} − v_t)        v_0 = w_0

FedAvgM adds the last step again before the new one is known, this one after it: the next round
begins where the momentum leads. β = 0 with η = 1 is FedAvg, bit for bit. Sites train as with
FedAvg. The server remembers one model in float64, and no byte more travels.

Use it as FedAvgM, where rounds pull to and fro.
"""

from __future__ import annotations

from typing import Any

from fedpdm.aggregation.sums import Sums
from fedpdm.strategies.base import PlainClient, ServerHalf
from fedpdm.strategies.ranges import check_range
from fedpdm.wire.records import Arrays

__all__ = ["FedMom"]


class FedMom(ServerHalf):
    """The server's half.

    Args:
        server_learning_rate: η, of the sites' mean change.
        server_momentum: β, the share of the last step that is added; 0: none.
        **flower: further arguments of Flower's FedAvg.

    Raises:
        ConfigError: a value out of its range; names ``strategy.KEY``.
    """

    client = PlainClient

    def __init__(
        self, server_learning_rate: float = 1.0, server_momentum: float = 0.5, **flower: Any
    ) -> None:
        check_range("server_learning_rate", server_learning_rate)
        check_range("server_momentum", server_momentum, zero=True, below=1)
        super().__init__(**flower)
        self.server_learning_rate = float(server_learning_rate)
        self.server_momentum = float(server_momentum)
        self.before: Arrays = {}

    def combine(self, server_round: int, sent: Arrays, sums: Sums) -> Arrays:
        rate, momentum = self.server_learning_rate, self.server_momentum
        last = self.before or sent
        new = sums.mean
        if rate != 1.0:
            new = {name: w + rate * (sums.mean[name] - w) for name, w in sent.items()}
        self.before = {name: array.copy() for name, array in new.items()}
        if momentum == 0.0:
            return new
        return {name: v + momentum * (v - last[name]) for name, v in new.items()}

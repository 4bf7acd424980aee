"""Tilted averaging (TERM): sites count the more, the worse the model fits them; or the less.

Li, Beirami, Sanjabi and Smith 2021, Tilted Empirical Risk Minimization (ICLR), eq. 2 and lemma 1,
with sites as groups. In place of the mean of the losses F_k of the received model the federation
minimises

    (1/t)·log Σ_k p_k e^{t·F_k(w)}

whose gradient weighs site k by p_k e^{t·F_k}, so the server takes w ← Σ q_k w_k with q_k in
proportion to that and p_k by examples. t = 0 is FedAvg, bit for bit. t > 0 raises the worst sites:
as t grows, the largest loss is minimised. t < 0 lowers those that nothing fits, such as a site with
broken labels. With one gradient step a round this is gradient descent on the formula; with more it
is FedAvg's approximation of it.

Use t > 0 where no site may be left behind. A site computes the loss of the received model before it
trains, one more pass over its rows; one number travels. t·F_k is held between −20 and 20, and a
reported loss is believed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from fedpdm.aggregation.sums import Sums
from fedpdm.errors import ConfigError
from fedpdm.strategies.base import PlainClient, ServerHalf
from fedpdm.wire.records import EXAMPLES, Arrays

__all__ = ["TiltedAvg"]

LOSS = "received_loss"
MOST = 20.0
"""A site's weight can be that of so many e-folds of examples, and no sum loses the others."""


class TiltedAvg(ServerHalf):
    """The server's half; sites train as with FedAvg and report the loss of the received model.

    Args:
        tilt: t; 0: FedAvg, above 0: the worst sites count more, below 0: less.
        **flower: further arguments of Flower's FedAvg.

    Raises:
        ConfigError: ``strategy.tilt`` is out of its range.
    """

    client = PlainClient

    def __init__(self, tilt: float = 1.0, **flower: Any) -> None:
        if not abs(tilt) <= 1e3:
            raise ConfigError(f"strategy.tilt={tilt} must be at least -1000 and at most 1000")
        super().__init__(**flower)
        self.tilt = float(tilt)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        config["report-received-loss"] = True
        return super().configure_train(server_round, arrays, config, grid)

    def weight(self, metrics: Mapping[str, float]) -> float:
        loss = metrics[LOSS]
        if not math.isfinite(loss):
            raise ValueError(f"{LOSS} is {loss}")
        exponent = self.tilt * loss
        return metrics[EXAMPLES] * math.exp(max(-MOST, min(MOST, exponent)))

    def combine(self, server_round: int, sent: Arrays, sums: Sums) -> Arrays:
        return sums.mean

"""FedExP: the server takes a longer step the less the sites' updates agree.

Jhunjhunwala, Wang and Joshi 2023, FedExP: Speeding Up Federated Averaging via Extrapolation (ICLR),
algorithm 1 and eq. 2. With Δ_k = w_k − w_t and Δ = Σ_k p_k Δ_k,

    η_g = max(1, Σ_k p_k ‖Δ_k‖² / (2·(‖Δ‖² + ε)))
    w   ← w_t + η_g·Δ

Updates that point in different directions have a short mean; η_g undoes that. The server knows the
lengths of the updates from their values, so it costs no memory and no byte. Here p_k is a site's
share of the examples, as in FedAvg; for sites of equal size it is the paper's 1/M. Where η_g is 1
the round is FedAvg's, bit for bit, and so is every round for a large ε. The paper returns the mean
of the last two models, because a long last step may overshoot; here validation chooses the round.

Use it where sites differ and rounds are few. The step is a metric of the round, ``server_step``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fedpdm.aggregation.sums import Sums
from fedpdm.strategies.base import PlainClient, ServerHalf
from fedpdm.strategies.ranges import check_range
from fedpdm.wire.records import EXAMPLES, Arrays

__all__ = ["FedExP"]


class FedExP(ServerHalf):
    """The server's half; sites train as with FedAvg.

    Args:
        epsilon: ε, against a division by nothing; updates much shorter than its root are not
            extrapolated.
        **flower: further arguments of Flower's FedAvg.

    Attributes:
        needs_norms: it reads how long each update is.

    Raises:
        ConfigError: ``strategy.epsilon`` is out of its range.
    """

    client = PlainClient
    needs_norms: ClassVar[bool] = True

    def __init__(self, epsilon: float = 1e-3, **flower: Any) -> None:
        check_range("epsilon", epsilon, below=float("inf"))
        super().__init__(**flower)
        self.epsilon, self.step = float(epsilon), 1.0

    def combine(self, server_round: int, sent: Arrays, sums: Sums) -> Arrays:
        pairs = zip(sums.sites, sums.norms, strict=True)
        squares = sum(site[EXAMPLES] * (norm or 0.0) ** 2 for site, norm in pairs) / sums.weight
        mean = sum(float(np.sum((sums.mean[name] - w) ** 2)) for name, w in sent.items())
        self.step = max(1.0, squares / (2 * (mean + self.epsilon)))
        if self.step == 1.0:
            return sums.mean
        return {name: w + self.step * (sums.mean[name] - w) for name, w in sent.items()}

    def metrics(self) -> Mapping[str, float]:
        return {"server_step": self.step}

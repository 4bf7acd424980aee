"""Weighted averaging: a site counts by its failures, its precision, or like any other.

FedAvg (McMahan et al. 2017) takes w ← Σ_k p_k w_k with p_k by examples. Here p_k is proportional to

    examples          n_k: FedAvg, bit for bit
    uniform           1: every site alike, as the theory of FedDyn or SCAFFOLD has it
    positives         the site's training windows before a failure (any class but 0)
    inverse_variance  n_k / L_k, with L_k the mean training loss of the site's last epoch

``positives`` suits rare failures: who has seen none does not move the model. It tells the server
each site's number of failures, one number a round. ``inverse_variance`` is the fixed-effect weight
of meta-analysis (Hedges and Olkin 1985, section 6B): for a squared error L_k estimates the variance
σ_k² of a site's noise, so the weights are n_k/σ_k² and the mean of unbiased estimates has the least
variance that any weights give. For cross-entropy it is a rule of thumb: noisy sites count less.

It costs no memory and no bytes worth counting. A weight that a site reports is believed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.aggregation.sums import Sums
from fedpdm.errors import ConfigError
from fedpdm.strategies.base import ClientHalf, Outcome, ServerHalf, Work, client_half
from fedpdm.wire.records import EXAMPLES, Arrays

__all__ = ["WeightedAvg", "WeightedAvgClient"]

POSITIVES, LOSS = "training_positives", "train_loss"
WEIGHTS = ("examples", "uniform", "positives", "inverse_variance")


@client_half("weights")
class WeightedAvgClient(ClientHalf):
    """Trains as with FedAvg, and says how many failures it trained on where that is asked."""

    def finish(self, work: Work) -> Outcome:
        if self.setting != "positives":
            return Outcome()
        return Outcome(metrics={POSITIVES: float(positives(work.targets))})


def positives(targets: NDArray[Any]) -> int:
    """Return how many of (N,) or (N, H) targets are a failure, of H horizons within the longest.

    Raises:
        ConfigError: the targets are no classes.
    """
    nearest = targets if targets.ndim == 1 else targets[..., -1]
    if targets.ndim > 2 or (targets.dtype.kind == "f" and not np.isin(targets, (0, 1)).all()):
        raise ConfigError(
            "strategy.weights=positives counts failures, and this task learns values: use "
            "strategy.weights=uniform or inverse_variance"
        )
    return int(np.count_nonzero(nearest))


class WeightedAvg(ServerHalf):
    """The server's half: the weighted mean.

    Args:
        weights: what a site counts by: examples, uniform, positives or inverse_variance.
        **flower: further arguments of Flower's FedAvg.

    Raises:
        ConfigError: there are no such weights.
    """

    client = WeightedAvgClient

    def __init__(self, weights: str = "uniform", **flower: Any) -> None:
        if weights not in WEIGHTS:
            raise ConfigError(f"strategy.weights={weights} is unknown; there are {list(WEIGHTS)}")
        super().__init__(setting=weights, **flower)

    def weight(self, metrics: Mapping[str, float]) -> float:
        if self.setting == "uniform":
            return 1.0
        if self.setting == "positives":
            found = metrics[POSITIVES]
            if not 0 <= found <= metrics[EXAMPLES]:
                raise ValueError(f"{POSITIVES} is {found}")
            return found
        if self.setting == "inverse_variance":
            loss = metrics[LOSS]
            if not 0 < loss < math.inf:
                raise ValueError(f"{LOSS} is {loss}")
            return metrics[EXAMPLES] / loss
        return metrics[EXAMPLES]

    def combine(self, server_round: int, sent: Arrays, sums: Sums) -> Arrays:
        return sums.mean

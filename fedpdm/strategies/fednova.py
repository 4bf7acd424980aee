"""FedNova: normalised averaging, so that sites with more local steps do not dominate.

Wang et al. 2020, Tackling the Objective Inconsistency Problem in Heterogeneous Federated
Optimization (NeurIPS), eq. 5 and 6. With p_k the share of site k in all examples,

    d_k   = (w_t − w_k)/‖a_k‖₁
    w     ← w_t − τ_eff·Σ_k p_k d_k        τ_eff = Σ_k p_k ‖a_k‖₁

For plain gradient steps a_k holds each step's rate over the round's first, so ‖a_k‖₁ is the
number of local steps as long as the rate does not fall within a round. Sites of unequal
size make unequally many. With equally many this is FedAvg. A site sends its weights and
‖a_k‖₁, from which the server makes d_k.

Use it where sites make very different numbers of local steps: it takes out the pull of the busy
ones. One number travels beside the weights, and nobody remembers anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fedpdm.aggregation.sums import Sums
from fedpdm.strategies.base import ClientHalf, Outcome, ServerHalf, Work, client_half
from fedpdm.wire.records import EXAMPLES, Arrays

__all__ = ["FedNova", "FedNovaClient"]

STEPS = "local_steps"


@client_half("fednova")
class FedNovaClient(ClientHalf):
    """Says how far its steps may have gone, ‖a_k‖₁. Momentum or Adam have another a_k."""

    optimizers = ("sgd",)

    def finish(self, work: Work) -> Outcome:
        return Outcome(metrics={STEPS: sum(work.rates) / work.rates[0]})


class FedNova(ServerHalf):
    """The server's half: normalised changes, and a step of the mean length.

    Args:
        **flower: arguments of Flower's FedAvg.
    """

    client = FedNovaClient

    def __init__(self, **flower: Any) -> None:
        super().__init__(**flower)

    def weight(self, metrics: Mapping[str, float]) -> float:
        steps = metrics[STEPS]
        if not 1.0 <= steps < math.inf:
            raise ValueError(f"{STEPS} is {steps}")
        return metrics[EXAMPLES] / steps

    def combine(self, server_round: int, sent: Arrays, sums: Sums) -> Arrays:
        # Σ p_k d_k from sums that can be made one site after another: with weights
        # q_k = n_k/‖a_k‖₁ and their mean of the w_k, it is (Σ q/Σ n)·(w_t − mean).
        examples = sum(site[EXAMPLES] for site in sums.sites)
        steps = sum(site[EXAMPLES] * site[STEPS] for site in sums.sites) / examples
        factor = steps * sums.weight / examples
        return {name: w + factor * (sums.mean[name] - w) for name, w in sent.items()}

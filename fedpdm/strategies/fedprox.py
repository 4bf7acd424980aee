"""FedProx: a proximal term keeps local training near the received model.

Li et al. 2020, Federated Optimization in Heterogeneous Networks (MLSys), eq. 2. The
local objective is F_k(w) + (mu/2)·‖w − w_t‖², whose gradient adds mu·(w − w_t). The
server half is Flower's: FedAvg that sends ``proximal-mu``.

Use it where sites differ and train long in a round, or stop at different times. It costs one pass
over the parameters in each step; messages are those of FedAvg.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from flwr.serverapp.strategy import FedProx as FlowerFedProx
from torch import Tensor

from fedpdm.strategies.local_terms import local_term
from fedpdm.strategies.ranges import check_range
from fedpdm.training.loop import GradientTerm

__all__ = ["FedProx", "proximal_term"]


class FedProx(FlowerFedProx):
    """Flower's FedProx, refusing a mu that would push sites away from the received model."""

    def __init__(self, proximal_mu: float = 0.0, **flower: Any) -> None:
        check_range("proximal_mu", proximal_mu, zero=True)
        super().__init__(proximal_mu=proximal_mu, **flower)


@local_term("proximal-mu")
def proximal_term(mu: float) -> GradientTerm | None:
    """Return the gradient of (mu/2)·‖w − w_t‖², or None for mu = 0 (then it is FedAvg)."""
    if mu == 0.0:
        return None

    def add(parameters: Sequence[Tensor], received: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, start in zip(parameters, received, strict=True):
                if parameter.grad is not None:
                    parameter.grad.add_(parameter - start, alpha=mu)

    return add

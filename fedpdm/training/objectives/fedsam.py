"""FedSAM: sites step along the gradient at the worst point nearby, towards flat minima.

Qu et al. 2022, Generalized Federated Learning via Sharpness Aware Minimization (ICML), algorithm 1;
Foret et al. 2021 (ICLR), eq. 2. For each batch with gradient g(w),

    e = ρ·g(w)/‖g(w)‖        the step is along g(w + e)

Models that sites train apart then fit into one another better: the mean of flat minima is still
low. ρ = 0 is the base, bit for bit. With ``strategy=fedcm`` this is MoFedSAM of the same paper
(algorithm 2). The terms of a strategy are added to g(w + e), not to g(w). Running statistics see
both passes, and both draw their own dropout.

Use it where many local steps on unlike sites make the mean worse than each of its parts. It costs
two passes in place of one, and neither memory nor bytes. Networks alone and pooled train
so, too: it needs no server.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedpdm.training.objective import LocalContext, Objective
from fedpdm.training.objectives.wrapping import Wrapping, check_share

__all__ = ["FedSAM"]


class FedSAM(Wrapping):
    """A supervised loss whose gradient is taken at the worst point nearby.

    Args:
        rho: ρ, how far away; 0: here.
        base: the supervised loss; None: the task's own.

    Raises:
        ConfigError: a value out of its range.
    """

    def __init__(self, rho: float = 0.05, base: Objective | None = None) -> None:
        check_share("rho", rho)
        super().__init__(base)
        self.rho = float(rho)

    def backward(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        loss = super().backward(model, x, y, context)
        moved = [p for p in model.parameters() if p.grad is not None]
        if self.rho == 0 or not moved:
            return loss
        with torch.no_grad():
            here = [p.clone() for p in moved]
            gradients = [p.grad for p in moved if p.grad is not None]
            length = torch.linalg.vector_norm(
                torch.stack([torch.linalg.vector_norm(g) for g in gradients])
            )
            if length > 0:  # else this is a minimum already
                for parameter, gradient in zip(moved, gradients, strict=True):
                    parameter.add_(gradient * (self.rho / length))
        for parameter in moved:
            parameter.grad = None
        super().backward(model, x, y, context)
        with torch.no_grad():
            for parameter, before in zip(moved, here, strict=True):
                parameter.copy_(before)
        return loss

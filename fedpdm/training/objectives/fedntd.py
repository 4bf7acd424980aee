"""FedNTD: a site keeps the received model's opinion of all classes but the true one.

Lee et al. 2022, Preservation of the Global Knowledge by Not-True Distillation in Federated Learning
(NeurIPS), eq. 3 and 4. Softmax is taken over the classes that are not the true one, at temperature
τ, of the received model (q̃_t) and of the one in training (q̃):

    loss = base + β·Σ_{c≠y} q̃_t(c)·log(q̃_t(c)/q̃(c))

What a site has no windows of is not forgotten there. With two classes one is left, whose share is 1
in both models: the term is 0, so such tasks are refused. The received model is in eval mode. β = 0
is the base, bit for bit.

Use it for kinds of machines or of failures that only some sites have. It costs one more forward
pass a step, and neither memory nor bytes. Networks alone and pooled train by the base.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedpdm.tasks.base import Task
from fedpdm.training.objective import LocalContext, Objective
from fedpdm.training.objectives.wrapping import (
    OfOtherModels,
    check_share,
    require_classes,
    still,
)

__all__ = ["FedNTD"]


class FedNTD(OfOtherModels):
    """A supervised loss and the distillation of what is not true.

    Args:
        beta: β, weight of the term; 0: none.
        temperature: τ, the larger the more alike classes count.
        base: the supervised loss; None: the task's own.

    Raises:
        ConfigError: a value out of its range, or a task of fewer than three classes.
    """

    def __init__(
        self, beta: float = 1.0, temperature: float = 1.0, base: Objective | None = None
    ) -> None:
        check_share("beta", beta)
        check_share("temperature", temperature, zero=False)
        super().__init__(base)
        self.beta, self.temperature = float(beta), float(temperature)
        self.received: nn.Module | None = None

    def check_task(self, task: Task) -> None:
        require_classes(task, self.key, least=3)

    def begin(self, model: nn.Module, context: LocalContext) -> None:
        self.received = still(model, context.received) if self.beta else None

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        if self.received is None:
            return self.base.loss(model, x, y, context)
        with torch.no_grad():
            before = self.received(x)
        output = model(x)
        kept = not_true(output, before, y, self.temperature)
        return self.base.loss_function(output, y) + self.beta * kept

    def end(self, model: nn.Module, context: LocalContext) -> None:
        self.received = None


def not_true(output: Tensor, before: Tensor, y: Tensor, temperature: float) -> Tensor:
    """Return the mean divergence between (B, C) logits over the C − 1 classes that are not y."""
    count, classes = output.shape
    others = torch.arange(classes, device=y.device) != y[:, None]
    now, then = (
        functional.log_softmax(logits[others].view(count, classes - 1) / temperature, dim=1)
        for logits in (output, before)
    )
    return functional.kl_div(now, then, reduction="batchmean", log_target=True)

"""What tasks of one class per window have in common: cross-entropy over N windows."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from fedpdm.tasks.base import Task


class CrossEntropy(Task):
    """A task whose model gives a logit for each class, and whose targets are (N,) classes."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output, target)

    def row_losses(self, output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output, target, reduction="none")

    def log_likelihoods(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        each = functional.log_softmax(output, dim=1)
        return each.gather(1, target[:, None]), each.mean(dim=1, keepdim=True)

"""FedRS: a site that lacks a class unlearns it more slowly.

Li and Zhan 2021, FedRS: Federated Learning with Restricted Softmax for Label Distribution Non-IID
Data (KDD), eq. 6. The logits of classes of which a site has no training window are multiplied by α
before the loss, so their weights are pushed away α times as hard. α = 1, and any site that has all
classes, is the base, bit for bit.

Use it where some sites have seen no failure, or not of every kind. It costs nothing. Predictions
and validation use the logits as they are; networks alone and pooled train by the base.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedpdm.training.objective import Objective
from fedpdm.training.objectives.label_counts import OfLabelCounts
from fedpdm.training.objectives.wrapping import check_share

__all__ = ["FedRS"]


class FedRS(OfLabelCounts):
    """A supervised loss of restricted logits.

    Args:
        alpha: α, the factor of logits of missing classes; 1: none.
        base: the supervised loss; None: the task's own.

    Raises:
        ConfigError: a value out of its range, or a task without a logit for each class.
    """

    def __init__(self, alpha: float = 0.5, base: Objective | None = None) -> None:
        check_share("alpha", alpha, most=1)
        super().__init__(base)
        self.alpha = float(alpha)

    def changed(self, logits: Tensor) -> Tensor:
        if self.alpha == 1 or bool((self.counts > 0).all()):
            return logits
        return logits * torch.where(self.counts > 0, 1.0, self.alpha).to(logits.dtype)

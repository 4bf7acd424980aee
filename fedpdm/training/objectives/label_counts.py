"""Losses whose logits are changed by how many training windows of each class a site has."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from fedpdm.tasks.base import Task
from fedpdm.training.objective import LocalContext
from fedpdm.training.objectives.wrapping import OfOtherModels, require_classes

FEWEST = 1e-8
"""Windows of a class that a site lacks, as in the code of FedLC's authors: nearly none."""


class OfLabelCounts(OfOtherModels):
    """A supervised loss of changed logits; evaluation and prediction have them unchanged."""

    def check_task(self, task: Task) -> None:
        self.classes = require_classes(task, self.key)

    def begin(self, model: nn.Module, context: LocalContext) -> None:
        assert context.work is not None
        counts = torch.bincount(context.work.y, minlength=self.classes)
        self.counts = counts.to(torch.float32)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        return self.base.loss_function(self.changed(model(x)), y)

    @abstractmethod
    def changed(self, logits: Tensor) -> Tensor:
        """Return (B, C) logits as the loss sees them; ``counts`` are (C,) windows by class."""

"""Losses for rare failures: focal loss, class weights, label smoothing.

``objective=focal`` puts them in the place of a task's own loss. Shapes: N windows, K classes
or horizons, C outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedpdm.errors import ConfigError
from fedpdm.tasks.base import Task
from fedpdm.training.objective import LocalContext, Objective, Supervised


class Focal(Objective):
    """Cross-entropy that counts what is hard, rare or both (Lin et al. 2017, eq. 5).

    The loss of a case whose true class has probability p is -w (1 - p)^gamma log p. With
    ``gamma=0`` and nothing else it is the task's own loss.

    Args:
        gamma: how much less a case counts that the model is sure of; 0: all alike.
        alpha: weight of the positives, those that fail, and 1 - alpha of the negatives: above a
            half it helps the rare class. None: both 1. For tasks of two classes or horizons.
        class_weights: weight of each class; None: all 1. Not together with ``alpha``.
        label_smoothing: share of the truth that is spread evenly over all classes
            (Szegedy et al. 2016, section 7).

    Raises:
        ConfigError: a value is out of its range, or two weights are given.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | None = None,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        if not 0 <= gamma <= 10:
            raise ConfigError(f"objective.gamma={gamma} must be at least 0 and at most 10")
        if alpha is not None and not 0 < alpha < 1:
            raise ConfigError(f"objective.alpha={alpha} must be above 0 and below 1, or null")
        if not 0 <= label_smoothing < 1:
            raise ConfigError(
                f"objective.label_smoothing={label_smoothing} must be at least 0 and below 1"
            )
        if alpha is not None and class_weights is not None:
            raise ConfigError("objective: give alpha or class_weights, not both")
        if class_weights is not None and not all(weight > 0 for weight in class_weights):
            raise ConfigError(f"objective.class_weights={list(class_weights)} must be above 0")
        self.gamma, self.alpha, self.label_smoothing = gamma, alpha, label_smoothing
        self.class_weights = None if class_weights is None else [float(w) for w in class_weights]

    def for_task(self, task: Task) -> Objective:
        """Return the loss of a task.

        Raises:
            ConfigError: the task has no classes, or another number of them than of weights.
        """
        if type(task).log_likelihoods is Task.log_likelihoods or not task.learns_labels:
            raise ConfigError(
                f"objective: task={task.name} has no classes to weigh; use objective=task"
            )
        weights = self.class_weights if self.alpha is None else [1 - self.alpha, self.alpha]
        if weights is not None and len(weights) != task.classes:
            raise ConfigError(
                f"objective: {len(weights)} class weights for the {task.classes} classes of "
                f"task={task.name}"
            )

        def row_losses(output: Tensor, target: Tensor) -> Tensor:
            true, all_classes = task.log_likelihoods(output, target)
            # A power below 1 has no finite gradient where nothing is left to learn.
            hard = (-torch.expm1(true)).clamp_min(1e-12) ** self.gamma if self.gamma else 1.0
            smooth = self.label_smoothing
            known = (1 - smooth) * true + smooth * all_classes if smooth else true
            loss = -hard * known
            if weights is not None:
                by_class = torch.tensor(weights, device=loss.device)
                loss = loss * by_class[target.long()].reshape(loss.shape)
            return loss.sum(dim=1)

        return Supervised(lambda o, t: row_losses(o, t).mean(), row_losses)

    def losses(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        raise NotImplementedError("an objective for a task is made by for_task")

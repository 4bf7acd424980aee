"""What objectives around another one have in common."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fedpdm.data.rows import Floats
from fedpdm.errors import ConfigError
from fedpdm.tasks import Program, Task
from fedpdm.tasks.base import Metrics
from fedpdm.tasks.cross_entropy import CrossEntropy
from fedpdm.training.objective import LocalContext, Objective, Supervised


class Wrapping(Objective):
    """Trains by another objective and something beside it; evaluates by the other alone.

    Args:
        base: a supervised loss such as ``Focal``; None for the task's own.

    Raises:
        ConfigError: (for_task) the base is no supervised loss, or the task has none.
    """

    base: Supervised

    def __init__(self, base: Objective | None = None) -> None:
        self.given = base

    @property
    def key(self) -> str:
        """What a message calls it."""
        return f"objective={type(self).__name__}"

    def for_task(self, task: Task) -> Objective:
        if isinstance(task, Program) or not task.learns_labels:
            raise ConfigError(f"{self.key} needs labels, and task={task.name} has none")
        if not isinstance(self.given, Objective | None):
            raise ConfigError(
                f"objective.base={self.given} must be a block with the _target_ of a loss, or "
                "null: objective.base={_target_: fedpdm.training.losses.Focal}"
            )
        base = Supervised.of(task) if self.given is None else self.given.for_task(task)
        if not isinstance(base, Supervised):
            raise ConfigError(
                f"{self.key} goes around a loss of outputs and targets, and "
                f"objective.base={type(base).__name__} is none"
            )
        made = copy.copy(self)
        made.base = base
        made.check_task(task)
        return made

    def check_task(self, task: Task) -> None:
        """Refuse a task that it cannot train, with a ConfigError."""

    def losses(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        return self.base.losses(model, x, y, context)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        """Return the mean loss of a batch in training; subclasses add what they are about."""
        return self.base.loss(model, x, y, context)

    def mean_loss(
        self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext,
        output: Tensor | None = None,
    ) -> float:  # fmt: skip
        return self.base.mean_loss(model, x, y, context, output)

    def evaluate(
        self, model: nn.Module, x: Tensor, y: Tensor, truth: Floats, task: Task,
        context: LocalContext,
    ) -> Metrics:  # fmt: skip
        return self.base.evaluate(model, x, y, truth, task, context)


class OfOtherModels(Wrapping):
    """Compares the model in training with others, so there is nothing to it without a server."""

    def without_federation(self) -> Objective:
        return self.base


def require_classes(task: Task, who: str, least: int = 2) -> int:
    """Return the number of classes of a task whose model gives a logit for each.

    Raises:
        ConfigError: it has none, or fewer than ``least``.
    """
    if not isinstance(task, CrossEntropy):
        raise ConfigError(
            f"{who} works on a logit for each class, and task={task.name} has none: use "
            "task=failure, task=asset_type or task=device_failure"
        )
    if task.classes < least:
        raise ConfigError(
            f"{who} needs {least} classes or more: of {task.classes} there is nothing left once "
            f"the true one is set aside, so with task={task.name} it would be its base alone"
        )
    return task.classes


def check_share(name: str, value: float, *, most: float = 1e6, zero: bool = True) -> None:
    """Refuse an argument of an objective that is out of its range.

    Raises:
        ConfigError: names ``objective.NAME``.
    """
    if not (0 <= value <= most) or (value == 0 and not zero):
        least = "at least 0" if zero else "above 0"
        raise ConfigError(f"objective.{name}={value} must be {least} and at most {most:g}")


def still(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a model with other tensors, in eval mode and without gradients.

    Args:
        model: the model in training.
        tensors: by name; those that are missing are the model's.
    """
    other = copy.deepcopy(model)
    other.load_state_dict({**model.state_dict(), **tensors})
    return other.eval().requires_grad_(False)


def head_of(model: nn.Module) -> nn.Module:
    """Return the layer that gives outputs: ``output``, or else the last one with parameters."""
    layers = {prefix: layer for prefix, layer in model.named_modules() if layer._parameters}
    named = dict(model.named_children()).get("output")
    if named is None and (not layers or [*layers][-1] == ""):
        raise ConfigError(
            f"{type(model).__name__} has no layer before its outputs whose values could be compared"
        )
    return named if named is not None else layers[[*layers][-1]]


@contextmanager
def _caught(layer: nn.Module) -> Iterator[list[Tensor]]:
    found: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, given: found.append(given[0]))
    try:
        yield found
    finally:
        hook.remove()


def outputs_and_features(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, C) outputs, and (B, D) values of the layer before them."""
    with _caught(head_of(model)) as found:
        output: Tensor = model(x)
    return output, found[-1].flatten(1)


def features(model: nn.Module, x: Tensor) -> Tensor:
    """Return (B, D) values of the layer before the outputs, without gradients."""
    with torch.no_grad():
        return outputs_and_features(model, x)[1]

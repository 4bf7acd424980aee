"""The base of personal methods: what a site keeps for itself beside the shared model.

A method is an objective around the run's own: what sites minimise together stays the task's
loss, ``objective=focal`` or any other, and the method adds what stays at the site. It keeps
tensors in ``LocalContext.memory``, so the history has them, a resume and a rollback bring them
back, and evaluation, the final test and ``predict --site`` use the personal model. A method is
one class:

    @personal("mine")
    class Mine(Personal):
        personalises = "train"                         # or "evaluate": when ``personalise`` works
        def personalise(self, model, context): ...     # context.work has the site's windows
        def module(self, model, context): ...          # what predicts for the site

and ``personal: {_target_: mylab.Mine}`` in a yaml of ``conf/strategy``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from fedpdm.data.rows import Floats
from fedpdm.errors import ConfigError
from fedpdm.tasks.base import Metrics, Task
from fedpdm.training.loop import GradientTerm, TrainingSettings, batch_sizes
from fedpdm.training.objective import LocalContext, LocalWork, Objective

START = "personal."
"""How the names of a method's tensors begin; the run's own objective may keep others."""
MODEL = "model"
"""The group in which a method keeps a whole model."""

METHODS: dict[str, type[Personal]] = {}
"""Every personal method by its name: a run folder names it, and ``predict`` makes it again."""

Method = TypeVar("Method", bound="type[Personal]")


def personal(name: str) -> Callable[[Method], Method]:
    """Register a personal method under a name. All its settings must have defaults."""

    def decorate(method: Method) -> Method:
        METHODS[name] = method
        method.name = name
        return method

    return decorate


class Personal(Objective):
    """A personal method around the run's objective. ``around`` comes first.

    Attributes:
        name: in run folders.
        optimizers: the formulas hold for these; empty for any.
        together: whether sites can still be trained as one stack: ``begin``, ``backward`` and
            ``end`` are not overridden.
    """

    name: ClassVar[str]
    optimizers: ClassVar[tuple[str, ...]] = ()
    together: ClassVar[bool] = False

    base: Objective

    def around(self, base: Objective) -> Personal:
        """Put the method around an objective, which stays what is learnt together."""
        self.base = base
        self.row_losses = base.row_losses
        self.stacks = self.together and base.stacks
        return self

    def check(self, task: Task, settings: TrainingSettings) -> None:
        """Refuse a task or local training that the method's formulas do not describe.

        Raises:
            ConfigError: says what is needed.
        """
        if self.optimizers and settings.optimizer not in self.optimizers:
            raise ConfigError(
                f"the formulas of personal={self.name} assume plain gradient steps: it needs "
                f"training.optimizer={' or '.join(self.optimizers)}, not {settings.optimizer}, and "
                "a learning rate to go with it"
            )

    def module(self, model: nn.Module, context: LocalContext) -> nn.Module:
        """Return the site's personal model: the one that it kept, before that the shared one."""
        return with_tensors(model, recalled(context, MODEL))

    # What the run's own objective says -----------------------------------------------------

    def without_federation(self) -> Objective:
        return self.base

    def check_model(self, model: nn.Module) -> None:
        self.base.check_model(model)

    def begin(self, model: nn.Module, context: LocalContext) -> None:
        self.base.begin(model, context)

    def losses(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        return self.base.losses(model, x, y, context)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        return self.base.loss(model, x, y, context)

    def backward(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        return self.base.backward(model, x, y, context)

    def end(self, model: nn.Module, context: LocalContext) -> None:
        self.base.end(model, context)

    def mean_loss(
        self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext,
        output: Tensor | None = None,
    ) -> float:  # fmt: skip
        return self.base.mean_loss(model, x, y, context, output)

    def predictor(self, model: nn.Module, context: LocalContext) -> nn.Module:
        return self.base.predictor(self.module(model, context), context)

    def evaluate(
        self, model: nn.Module, x: Tensor, y: Tensor, truth: Floats, task: Task,
        context: LocalContext,
    ) -> Metrics:  # fmt: skip
        return self.base.evaluate(self.module(model, context), x, y, truth, task, context)


def recalled(context: LocalContext, group: str) -> dict[str, Tensor]:
    """Return the tensors that a site kept in a group, by name; none before the first time."""
    start = f"{START}{group}."
    return {n.removeprefix(start): t for n, t in context.memory.items() if n.startswith(start)}


def keep(context: LocalContext, group: str, tensors: Mapping[str, Tensor]) -> None:
    """Keep copies of tensors in a group, in the place of what was there."""
    start = f"{START}{group}."
    for name in [name for name in context.memory if name.startswith(start)]:
        del context.memory[name]
    context.memory.update({f"{start}{n}": t.detach().clone() for n, t in tensors.items()})


def with_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a model with other tensors; the model itself if there are none."""
    if not tensors:
        return model
    other = copy.deepcopy(model)
    other.load_state_dict({**model.state_dict(), **tensors})
    return other


def aside(context: LocalContext) -> LocalContext:
    """Return a context whose memory can be written to without being kept."""
    return replace(context, memory=dict(context.memory))


def work_of(context: LocalContext) -> LocalWork:
    """Return the site's windows, which are there in training and in ``personalise``."""
    assert context.work is not None
    return context.work


def trained(named: nn.Module) -> dict[str, nn.Parameter]:
    """Return a model's parameters that have gradients, by name."""
    return {name: p for name, p in named.named_parameters() if p.requires_grad}


class Steps:
    """Counts a round's steps.

    Attributes:
        done: how many there were.
    """

    def __init__(self, work: LocalWork) -> None:
        self.per_epoch = max(1, len(batch_sizes(len(work.x), work.settings.batch_size)))
        self.done = 0

    def next(self) -> int:
        """Return the epoch of the step that is made now, counted from 0 in the round."""
        epoch = self.done // self.per_epoch
        self.done += 1
        return epoch


def pull(weight: float, anchor: Mapping[str, Tensor], model: nn.Module) -> GradientTerm | None:
    """Return the gradient of (weight/2)·‖v − w‖² for the model ``v``; None for weight 0.

    Args:
        weight: of the term.
        anchor: w, by name.
        model: whose parameters that are trained the term is for.
    """
    if weight == 0.0:
        return None
    towards = [anchor[name].detach().clone() for name in trained(model)]

    def add(parameters: Sequence[Tensor], received: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, goal in zip(parameters, towards, strict=True):
                if parameter.grad is not None:
                    parameter.grad.add_(parameter - goal, alpha=weight)

    return add


def check_option(name: str, value: float, low: float, high: float, *, open: bool = False) -> None:
    """Refuse a setting out of its range.

    Args:
        name: of the setting.
        value: what was given.
        low: the least that is allowed.
        high: the most.
        open: ``low`` itself is not allowed.

    Raises:
        ConfigError: names ``personal.NAME``.
    """
    if not low <= value <= high or (open and value == low):
        least = "above" if open else "at least"
        raise ConfigError(f"personal.{name}={value} must be {least} {low:g} and at most {high:g}")

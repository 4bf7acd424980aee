"""The local objective: what a site minimises, and how it evaluates a model.

The loop, its schedules and clipping, strategies' terms and the stacked kernel are the same
for every objective. An objective of your own is a subclass of ``Objective`` and
``objective={_target_: mylab.MyObjective}``. Shapes: B windows of a batch, N of a site.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fedpdm.data.rows import Floats
from fedpdm.tasks.base import Metrics, Task

if TYPE_CHECKING:
    from fedpdm.training.loop import TrainingSettings

BatchRule = Callable[[int, int, torch.Generator], Iterator[Tensor]]
LossFunction = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) to a mean loss, or to the loss of each row."""


@dataclass(frozen=True)
class LocalWork:
    """A site's windows in a round, and how it trains on them.

    Attributes:
        x: (N, …) training inputs.
        y: (N, …) their targets.
        settings: of local training.
        seed: the run's seed.
        key: what draws are for: the site, the round and the attempt are in it.
        epochs: passes over the windows in a round.
        first_epoch: global number of the first of them.
        validation: (M, …) inputs and targets of the validation windows; None but before a site
            evaluates.
    """

    x: Tensor
    y: Tensor
    settings: TrainingSettings
    seed: int
    key: tuple[str | int, ...]
    epochs: int
    first_epoch: int = 0
    validation: tuple[Tensor, Tensor] | None = None


@dataclass
class LocalContext:
    """What an objective may look at beside model and batch.

    Attributes:
        received: the tensors that the server sent, by name; not to be changed.
        memory: tensors that the site keeps for the objective from round to round; empty at
            first. What ``begin``, ``loss`` and ``end`` put in is kept if the update counts.
        generator: drawn for seed, site, round and attempt.
        work: the windows, where a site has them at hand: in training and in ``personalise``.
    """

    received: Mapping[str, Tensor] = field(default_factory=dict)
    memory: dict[str, Tensor] = field(default_factory=dict)
    generator: torch.Generator = field(default_factory=torch.Generator)
    work: LocalWork | None = None


class Objective:
    """A local objective. One instance serves all sites of a process.

    A second model is built by ``begin`` and loaded from ``context.memory`` or
    ``context.received``. Whoever needs gradients of single windows overrides ``backward``.

    Attributes:
        stacks: whether sites can be trained as one stack (engine=batched): ``losses`` looks
            at the model, the batch and ``context.received`` only, and works under
            ``torch.func.vmap``; ``begin``, ``backward`` and ``end`` are not overridden.
        row_losses: (outputs, targets) to (B,) losses, where the loss needs no more: faster
            in a stack.
        batches: (windows of a site, ``batch_size``, generator) to the indices of each step of a
            pass, of any number; None: shuffled, each window once.
        personalises: when ``personalise`` is called: before a site trains, before it evaluates,
            or never.
    """

    stacks: bool = False
    row_losses: LossFunction | None = None
    batches: BatchRule | None = None
    personalises: ClassVar[Literal["train", "evaluate"] | None] = None

    def check_model(self, model: nn.Module) -> None:
        """Refuse a model that it cannot train; asked once, before the run.

        Raises:
            ConfigError: says which model it needs.
        """

    def for_task(self, task: Task) -> Objective:
        """Return the objective for a run's task; asked once, before anything else."""
        return self

    def without_federation(self) -> Objective:
        """Return what a network alone or on pooled data minimises, to compare with."""
        return self

    def personalise(self, model: nn.Module, context: LocalContext) -> None:
        """Fit what a site keeps for itself; the same on every engine.

        Args:
            model: as the site received it; may be changed, what counts goes into
                ``context.memory``.
            context: with ``context.work``.
        """

    def begin(self, model: nn.Module, context: LocalContext) -> None:
        """Get ready for a site's local training in a round."""

    @abstractmethod
    def losses(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        """Return (B,) losses of a batch.

        Args:
            model: in training; its outputs are what the model's class says.
            x: (B, T, F) or (B, F) inputs.
            y: (B, …) targets of the task.
            context: of the site.
        """

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        """Return the mean loss of a batch, a scalar."""
        return self.losses(model, x, y, context).mean()

    def backward(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        """Set the gradients of a batch, which were None before, and return its mean loss."""
        loss = self.loss(model, x, y, context)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def end(self, model: nn.Module, context: LocalContext) -> None:
        """Finish a site's local training in a round; fill ``context.memory`` here."""

    def predictor(self, model: nn.Module, context: LocalContext) -> nn.Module:
        """Return the module, in eval mode or not, whose outputs the task can read.

        Evaluation and the final test use it, so a model whose outputs are no predictions is
        wrapped here, and a personal model is put in the place of the shared one.
        """
        return model

    def mean_loss(
        self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext,
        output: Tensor | None = None,
    ) -> float:  # fmt: skip
        """Return the mean loss over N > 0 windows, in eval mode.

        ``output`` is what ``predictor`` makes of ``x``, if that is known already.
        """
        model.eval()
        parts = zip(torch.split(x, 1024), torch.split(y, 1024), strict=True)
        with torch.no_grad():
            return float(torch.cat([self.losses(model, *part, context) for part in parts]).mean())

    def evaluate(
        self, model: nn.Module, x: Tensor, y: Tensor, truth: Floats, task: Task,
        context: LocalContext,
    ) -> Metrics:  # fmt: skip
        """Return ``loss`` and the metrics of a site's validation windows.

        Args:
            model: as the site has it.
            x: (N, …) inputs; N may be 0.
            y: (N, …) targets.
            truth: (N,) uncapped truth.
            task: gives the metrics; rounds are compared by its ``primary``.
            context: of the site, after its last training.
        """
        output = outputs(self.predictor(model, context), x, columns=task.outputs)
        loss = self.mean_loss(model, x, y, context, output) if len(x) else None
        return {"loss": loss, **task.metrics(np.asarray(y.cpu()), truth, task.scores(output))}


class Supervised(Objective):
    """The default: a task's loss of the model's outputs.

    Args:
        loss: (outputs, targets) to mean loss.
        row_losses: (outputs, targets) to (B,) losses whose mean is ``loss``; None if unknown.
    """

    stacks = True

    def __init__(self, loss: LossFunction, row_losses: LossFunction | None = None) -> None:
        self.loss_function, self.row_losses = loss, row_losses

    @classmethod
    def of(cls, task: Task) -> Supervised:
        """Return the objective of a task."""
        known = type(task).row_losses is not Task.row_losses
        return cls(task.loss, task.row_losses if known else None)  # type: ignore[arg-type]

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        return self.loss_function(model(x), y)

    def losses(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        each = torch.vmap(lambda o, t: self.loss_function(o.unsqueeze(0), t.unsqueeze(0)))
        found: Tensor = each(model(x), y)
        return found

    def mean_loss(
        self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext,
        output: Tensor | None = None,
    ) -> float:  # fmt: skip
        return float(self.loss_function(outputs(model, x) if output is None else output, y))


def outputs(module: nn.Module, x: Tensor, batch_size: int = 1024, columns: int = 0) -> Tensor:
    """Return (N, outputs) in eval mode, in batches that bound memory; (0, columns) if N is 0."""
    module.eval()
    with torch.no_grad():
        parts = [module(x[i : i + batch_size]) for i in range(0, len(x), batch_size)]
    return torch.cat(parts) if parts else torch.zeros((0, columns))

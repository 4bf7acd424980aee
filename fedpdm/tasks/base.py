"""The interface of a prediction task.

A task turns rows into targets, a model's output into a loss and a score, and scores
into metrics. Adding one is a class here or anywhere importable, a yaml in ``conf/task``
and a test. Shapes: R rows, N windows, H horizons.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fedpdm.data.rows import Bools, Floats, Rows
from fedpdm.errors import ConfigError
from fedpdm.tasks.metrics import Metrics as Metrics

Scalar = TypeVar("Scalar", bound=np.generic)

NEEDS_TIMES = (
    "task={task} needs times of failure, and this data has only labels of single rows: "
    "use task=failure"
)


@dataclass(frozen=True)
class Risk:
    """One failure probability that a task gives, on which an alarm can be raised.

    Attributes:
        key: names it in summary.json: the horizon, or ``label`` where the data has no times.
        suffix: of its metrics' names: empty, or ``_30``.
        horizon: it is the risk of a failure within this time; None without times.
        column: of scores and targets, or None where they are (N,).
    """

    key: str
    suffix: str
    horizon: float | None
    column: int | None

    def of(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return (N,) of a task's (N,) or (N, H) targets or scores."""
        return values if self.column is None else values[:, self.column]


TASKS: dict[str, type[Task]] = {}
"""Every task class that has a name, by it."""


class Task(ABC):
    """One prediction task. A subclass with a ``name`` of its own is found by it."""

    name: str
    predicts: str = "gives the risk of a failure"
    """What the task does, to end a sentence that begins with "This task"."""
    outputs: int
    """Size of the model's last layer."""
    primary: str
    """The metric that chooses the round and fills the table."""
    higher_is_better: bool
    reach: float
    """How far past a row its label looks, in the data's time unit."""
    tested_at_the_end: bool = False
    """Whether an official test set asks for each machine's last row only."""
    lives: bool = False
    """Whether scores are remaining lives."""
    life_cap: float | None = None
    """The cap of remaining lives; None where scores are something else."""
    alarm_below: bool = False
    """Whether a low score raises the alarm, and not a high one."""
    columns: bool = True
    """Whether trees and ridge regression can learn it: each column of its targets is a value, or
    one of two classes."""
    classes: int = 2
    """How many classes a target can be of; meaningless where targets are values."""
    column: str | None = None
    """The column of words (``Rows.groups``) that labels come from, if they do."""
    learns_labels: bool = True
    """Whether training reads targets; if not, data without a failure will do, and no label judges
    or chooses a round: the loss does."""
    by_machine: bool = False
    """Whether all rows of a machine have one label, so that whole machines must be tested."""
    prepares: bool = False
    """Whether its weights are only a start for other runs: nothing of it can be promoted."""
    score_digits: int = 3
    """Digits after the point of a score that ``predict`` prints."""

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls):
            TASKS[cls.name] = cls

    def check_model(self, model: nn.Module) -> None:
        """Refuse a model whose outputs mean something else; asked once, before the run.

        Raises:
            ConfigError: says which model or task goes with it.
        """
        if hasattr(model, "rebuild"):
            raise ConfigError(
                f"model=masked_autoencoder rebuilds readings, and task={self.name} asks for "
                "something else: train it with task=reconstruction, then start the model whose "
                "encoder it holds with init=RUN_FOLDER"
            )

    @abstractmethod
    def targets(self, rows: Rows) -> tuple[NDArray[np.generic], Floats, Bools]:
        """Return (R, …) targets, (R,) uncapped truth, and (R,) which of them are known."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of (N, outputs) model outputs, a scalar."""

    def row_losses(self, output: Tensor, target: Tensor) -> Tensor | None:
        """Return (N,) losses whose mean is ``loss``, or None where there are no such.

        Stacked training computes the rows of all sites in one go with it; without it, it
        calls ``loss`` for site after site.
        """
        return None

    def log_likelihoods(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return (N, K) log-probabilities of the true class, and their mean over all classes.

        There is one column for each thing that is told of a window: its class, or whether it
        fails within each horizon. Where nothing is known, both are 0. ``row_losses`` is the
        negative sum of the first. Tasks without classes do not have it.
        """
        raise NotImplementedError(f"task={self.name} has no classes")

    @abstractmethod
    def scores(self, output: Tensor) -> NDArray[np.float64]:
        """Return (N,) or (N, H) float64: failure probabilities, or remaining life."""

    @abstractmethod
    def metrics(self, target: NDArray[np.generic], truth: Floats, scores: Floats) -> Metrics:
        """Return metrics by name; None where a metric cannot be computed (one class only)."""

    def details(self, target: NDArray[np.generic], truth: Floats, scores: Floats) -> Metrics:
        """Return what a final test adds to ``metrics``: too much for every round."""
        return {}

    @property
    def risks(self) -> tuple[Risk, ...]:
        """What alarms can be raised on, the nearest first; nothing if scores are no risks."""
        return ()

    @classmethod
    def gives_risks(cls) -> bool:
        """Return whether tasks of this kind give risks at all."""
        return cls.risks is not Task.risks

    @property
    def score_columns(self) -> tuple[str, ...]:
        """Names of the columns in which ``predict`` writes scores; an alarm rests on the first."""
        return tuple(f"risk{risk.suffix}" for risk in self.risks) or ("score",)

    @property
    def per_class(self) -> bool:
        """Whether scores are a probability for each class, of two classes too."""
        return self.classes > 2 or (not self.risks and len(self.score_columns) == self.classes)

    def trivial(self, target: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return the best constant score for training targets, their mean: shape () or (H,)."""
        values = target.astype(np.float64)
        return np.asarray(values.mean(axis=0) if len(values) else np.zeros(values.shape[1:]))

    def better(self, new: float | None, old: float | None) -> bool:
        """Return whether ``new`` beats ``old``; anything known beats None."""
        if new is None or np.isnan(new):
            return False
        if old is None or np.isnan(old):
            return True
        return new > old if self.higher_is_better else new < old

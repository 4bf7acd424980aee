"""What is predicted: a failure within a horizon, several horizons, or remaining life.

A task turns rows into targets, a model's output into a loss and a score, and scores
into metrics. Adding one is a class here or anywhere importable, a yaml in ``conf/task``
and a test. Shapes: R rows, N windows, H horizons.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedpdm.data.rows import Bools, Floats, Rows
from fedpdm.errors import ConfigError
from fedpdm.evaluation import metrics as measure

Metrics = dict[str, float | None]

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

    def of(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return (N,) of a task's (N,) or (N, H) targets or scores."""
        return values if self.column is None else values[:, self.column]


class Task(ABC):
    """One prediction task."""

    name: str
    outputs: int
    """Size of the model's last layer."""
    primary: str
    """The metric that chooses the round and fills the table."""
    higher_is_better: bool
    reach: float
    """How far past a row its label looks, in the data's time unit."""
    tested_at_the_end: bool = False
    """Whether an official test set asks for each machine's last row only."""

    @abstractmethod
    def targets(self, rows: Rows) -> tuple[NDArray[np.generic], Floats, Bools]:
        """Return (R, …) targets, (R,) uncapped truth, and (R,) which of them are known."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of (N, outputs) model outputs, a scalar."""

    def row_losses(self, output: Tensor, target: Tensor) -> Tensor | None:
        """Return (N,) losses whose mean is ``loss``, or None where there are no such.

        Stacked training computes the rows of all plants in one go with it; without it, it
        calls ``loss`` for plant after plant.
        """
        return None

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

    @abstractmethod
    def trivial(self, target: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return the best constant score for training targets: shape () or (H,)."""

    def better(self, new: float | None, old: float | None) -> bool:
        """Return whether ``new`` beats ``old``; anything known beats None."""
        if new is None or np.isnan(new):
            return False
        if old is None or np.isnan(old):
            return True
        return new > old if self.higher_is_better else new < old


def within_horizon(rows: Rows, horizon: float) -> tuple[Bools, Bools]:
    """Return (R,) whether a failure follows within ``horizon``, and (R,) whether that is known.

    A censored row is known to be negative only if its life was watched for the horizon. So
    near the end of a record only positives are known: splits must leave that stretch out
    (``fedpdm.data.splits.undecided``).
    """
    fails: Bools = np.asarray(~np.isnan(rows.time_to_failure))
    positive = fails & (np.where(fails, rows.time_to_failure, np.inf) <= horizon)
    known: Bools = np.asarray(fails | (rows.observed >= horizon))
    return positive, known


class Failure(Task):
    """Will this machine fail within ``horizon``? Two classes, cross-entropy."""

    name = "failure"
    outputs = 2
    primary = "average_precision"
    higher_is_better = True

    def __init__(self, horizon: float | None) -> None:
        if horizon is not None and not horizon > 0:
            raise ConfigError(f"task.horizon={horizon} must be greater than 0")
        self.horizon = horizon
        self.reach = float(horizon or 0.0)

    def targets(self, rows: Rows) -> tuple[NDArray[np.generic], Floats, Bools]:
        if rows.label is not None:
            return rows.label, rows.label.astype(np.float64), np.ones(len(rows), dtype=bool)
        if self.horizon is None:
            raise ConfigError(
                "task.horizon is needed: this data gives times of failure, not labels"
            )
        positive, known = within_horizon(rows, self.horizon)
        return positive.astype(np.int64), positive.astype(np.float64), known

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output, target)

    def row_losses(self, output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output, target, reduction="none")

    def scores(self, output: Tensor) -> NDArray[np.float64]:
        return np.asarray(torch.softmax(output.double(), dim=1)[:, 1].cpu().numpy())

    def metrics(self, target: NDArray[np.generic], truth: Floats, scores: Floats) -> Metrics:
        return measure.classification(target, scores)

    def details(self, target: NDArray[np.generic], truth: Floats, scores: Floats) -> Metrics:
        return measure.detailed(target, scores)

    @property
    def risks(self) -> tuple[Risk, ...]:
        key = "label" if self.horizon is None else f"{self.horizon:g}"
        return (Risk(key, "", self.horizon, None),)

    def trivial(self, target: NDArray[np.generic]) -> NDArray[np.float64]:
        return np.asarray(np.mean(target.astype(np.float64)) if len(target) else 0.0)


class Horizons(Task):
    """Will this machine fail within each of several horizons? Nested probabilities.

    Output h is the logit of failing in (horizon[h-1], horizon[h]] given that it has not
    failed before (discrete-time hazard), so p(h) = 1 - prod(1 - hazard) rises with the
    horizon by construction.
    """

    name = "horizons"
    primary = "average_precision"
    higher_is_better = True

    def __init__(self, horizons: Sequence[float] | None) -> None:
        if horizons is None:
            raise ConfigError(NEEDS_TIMES.format(task=self.name))
        values = [float(h) for h in horizons]
        if not values or min(values) <= 0 or values != sorted(set(values)):
            raise ConfigError(
                f"task.horizons={list(horizons)} must be positive and increasing, "
                "for example [30,60,90]"
            )
        self.horizons = tuple(values)
        self.outputs = len(values)
        self.reach = values[-1]

    def targets(self, rows: Rows) -> tuple[NDArray[np.generic], Floats, Bools]:
        if rows.label is not None:
            raise ConfigError(NEEDS_TIMES.format(task=self.name))
        pairs = [within_horizon(rows, h) for h in self.horizons]
        positive = np.stack([p for p, _ in pairs], axis=1)
        known: Bools = np.asarray(np.stack([k for _, k in pairs], axis=1).all(axis=1))
        return positive.astype(np.float32), positive[:, 0].astype(np.float64), known

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return self.row_losses(output, target).mean()

    def row_losses(self, output: Tensor, target: Tensor) -> Tensor:
        survived = torch.cat([torch.ones_like(target[:, :1]), 1 - target[:, :-1]], dim=1)
        losses = functional.binary_cross_entropy_with_logits(output, target, reduction="none")
        return (losses * survived).sum(dim=1)

    def scores(self, output: Tensor) -> NDArray[np.float64]:
        survival = torch.cumsum(functional.logsigmoid(-output.double()), dim=1)
        return np.asarray(-torch.expm1(survival).cpu().numpy())

    def metrics(self, target: NDArray[np.generic], truth: Floats, scores: Floats) -> Metrics:
        return self._each(measure.classification, target, scores)

    def details(self, target: NDArray[np.generic], truth: Floats, scores: Floats) -> Metrics:
        return self._each(measure.detailed, target, scores)

    @property
    def risks(self) -> tuple[Risk, ...]:
        return tuple(Risk(f"{h:g}", f"_{h:g}", h, i) for i, h in enumerate(self.horizons))

    def _each(
        self,
        measured: Callable[[NDArray[np.generic], Floats], Metrics],
        target: NDArray[np.generic],
        scores: Floats,
    ) -> Metrics:
        """Return the metrics of every horizon, and their means."""
        result: Metrics = {}
        per = [measured(target[:, h], scores[:, h]) for h in range(self.outputs)]
        for horizon, values in zip(self.horizons, per, strict=True):
            result |= {f"{name}_{horizon:g}": value for name, value in values.items()}
        for name in per[0]:
            known = [v[name] for v in per]
            result[name] = None if any(k is None for k in known) else float(np.mean(known))  # type: ignore[arg-type]
        return result

    def trivial(self, target: NDArray[np.generic]) -> NDArray[np.float64]:
        return target.astype(np.float64).mean(axis=0) if len(target) else np.zeros(self.outputs)


class RemainingLife(Task):
    """How long until this machine fails? One value, trained on min(life, cap) / cap.

    The cap (Heimes 2008, PHM challenge) says that a healthy machine's remaining life
    cannot be told from its sensors.
    """

    name = "rul"
    outputs = 1
    primary = "rmse"
    higher_is_better = False
    tested_at_the_end = True

    def __init__(self, cap: float | None) -> None:
        if cap is None:
            raise ConfigError(NEEDS_TIMES.format(task=self.name))
        if not cap > 0:
            raise ConfigError(f"task.cap={cap} must be greater than 0")
        self.cap = float(cap)
        self.reach = float(cap)

    def targets(self, rows: Rows) -> tuple[NDArray[np.generic], Floats, Bools]:
        if rows.label is not None:
            raise ConfigError(NEEDS_TIMES.format(task=self.name))
        fails = ~np.isnan(rows.time_to_failure)
        known: Bools = np.asarray(fails | (rows.observed >= self.cap))
        # A life watched for at least the cap is at the cap, but how long it was nobody knows.
        capped = np.minimum(np.where(fails, rows.time_to_failure, self.cap), self.cap)
        return (capped / self.cap).astype(np.float32), rows.time_to_failure, known

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return functional.mse_loss(output[:, 0], target)

    def row_losses(self, output: Tensor, target: Tensor) -> Tensor:
        return functional.mse_loss(output[:, 0], target, reduction="none")

    def scores(self, output: Tensor) -> NDArray[np.float64]:
        return np.asarray(output[:, 0].double().clamp(0.0, 1.0).cpu().numpy()) * self.cap

    def metrics(self, target: NDArray[np.generic], truth: Floats, scores: Floats) -> Metrics:
        return measure.remaining_life(truth, scores, self.cap)

    def details(self, target: NDArray[np.generic], truth: Floats, scores: Floats) -> Metrics:
        return measure.detailed_life(truth, scores, self.cap)

    def trivial(self, target: NDArray[np.generic]) -> NDArray[np.float64]:
        return np.asarray(np.mean(target.astype(np.float64)) * self.cap if len(target) else 0.0)

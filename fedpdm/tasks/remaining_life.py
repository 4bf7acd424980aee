"""The task ``rul``: remaining life, up to a cap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedpdm.data.rows import Bools, Floats, Rows
from fedpdm.errors import ConfigError
from fedpdm.tasks import metrics as measure
from fedpdm.tasks.base import NEEDS_TIMES, Metrics, Task


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
    predicts = "predicts remaining life"
    lives = True
    alarm_below = True
    score_digits = 1
    score_columns = ("remaining_life",)

    def __init__(self, cap: float | None) -> None:
        if cap is None:
            raise ConfigError(NEEDS_TIMES.format(task=self.name))
        if not cap > 0:
            raise ConfigError(f"task.cap={cap} must be greater than 0")
        self.cap = self.life_cap = float(cap)
        self.reach = float(cap)

    def targets(self, rows: Rows) -> tuple[NDArray[np.generic], Floats, Bools]:
        if rows.label is not None:
            raise ConfigError(NEEDS_TIMES.format(task=self.name))
        truth = rows.time_to_failure
        # A life watched for at least the cap is at the cap, but its length is unknown.
        known: Bools = np.asarray(~np.isnan(truth) | (rows.observed >= self.cap))
        return (measure.capped(truth, self.cap) / self.cap).astype(np.float32), truth, known

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
        return super().trivial(target) * self.cap

"""The task ``failure``: a failure within one horizon."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedpdm.data.rows import Bools, Floats, Rows, within_horizon
from fedpdm.errors import ConfigError
from fedpdm.tasks import metrics as measure
from fedpdm.tasks.base import Metrics, Risk
from fedpdm.tasks.cross_entropy import CrossEntropy


class Failure(CrossEntropy):
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

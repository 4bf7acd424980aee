"""Scores of a task from estimators that know one column of its targets each.

Shapes: N windows, K features, H horizons, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from fedpdm.baselines.inputs import BaselineInputs
from fedpdm.data.rows import Floats
from fedpdm.tasks import Task

Answer: TypeAlias = Callable[[NDArray[Any]], Floats]
"""(N, K) features to (N,) probabilities or values."""


def columns_of(task: Task, y: NDArray[np.generic]) -> NDArray[Any]:
    """Return (N,) or (N, H) targets as estimators know them: of C classes, (N, C) of 0 or 1."""
    return y if not task.per_class else (y[:, None] == np.arange(task.classes)).astype(np.int64)


class PerColumn:
    """Scores of a task from estimators that know one column of its targets each.

    Args:
        task: what is predicted.
        y: (N,) or (N, H) training targets; integers and several columns are classes, else values.
        fit: returns the answer for one column, given its position, its targets (N,) and whether
            they are classes. A column with one value only is answered by that value.
    """

    def __init__(
        self,
        task: Task,
        y: NDArray[np.generic],
        fit: Callable[[int, NDArray[Any], bool], Answer],
    ) -> None:
        y = columns_of(task, y)
        self._task, self._several = task, y.ndim == 2
        self._classes = self._several or y.dtype.kind == "i"
        columns = list(y.T) if self._several else [y]
        self._answers = [
            fit(position, column, self._classes)
            if len(np.unique(column)) > 1
            else _constant(float(column.flat[0]))
            for position, column in enumerate(columns)
        ]

    def __call__(self, x: NDArray[Any]) -> Floats:
        """Return (N,) or (N, H) scores as the task's ``scores`` gives them."""
        if len(x) == 0:
            return np.zeros((0, len(self._answers)) if self._several else 0)
        if not self._classes:
            unit = float(self._task.scores(torch.ones((1, 1)))[0])  # the cap: targets are shares
            return np.asarray(np.clip(self._answers[0](x), 0.0, 1.0) * unit)
        scores = np.stack([answer(x) for answer in self._answers], axis=1)
        if self._task.per_class:  # one against the rest, each
            total = scores.sum(axis=1, keepdims=True)
            return np.asarray(
                np.where(total > 0, scores / np.where(total > 0, total, 1), 1 / scores.shape[1])
            )
        # Horizons are nested: a failure within 30 is one within 60.
        return np.maximum.accumulate(scores, axis=1) if self._several else scores[:, 0]


def _constant(value: float) -> Answer:
    return lambda x: np.full(len(x), value)


def no_columns(inputs: BaselineInputs) -> str | None:
    """Return why trees and ridge regression cannot learn the task, or None."""
    if inputs.task.columns:
        return None
    return f"task={inputs.task.name} has targets that it does not learn"

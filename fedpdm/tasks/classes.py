"""Tasks of many classes: the kind of a machine, what it is doing, and which failure comes.

Shapes: R rows, N windows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedpdm.data.rows import Bools, Floats, Ints, Rows, within_horizon
from fedpdm.errors import ConfigError, DataError
from fedpdm.tasks import metrics as measure
from fedpdm.tasks.base import NEEDS_TIMES, Metrics
from fedpdm.tasks.cross_entropy import CrossEntropy


class Classes(CrossEntropy):
    """One of C classes for each window: softmax, cross-entropy. Scores are (N, C) probabilities.

    Nothing is an alarm, so there are no thresholds: the likeliest class is the answer.
    """

    primary = "macro_f1"
    higher_is_better = True
    reach = 0.0

    def __init__(self, names: Sequence[str] | None, column: str) -> None:
        """Check the classes.

        Args:
            names: of the classes, in the order of scores.
            column: of words, from which labels come.
        """
        if names is None:
            raise ConfigError(
                f"task={self.name}: this data does not say which classes there are; name them, for "
                "example task.classes=[pump,fan]"
            )
        self.names = tuple(str(name) for name in names)
        if len(set(self.names)) < max(2, len(self.names)):
            raise ConfigError(f"task.classes={list(names)} must name two or more different classes")
        self.outputs = self.classes = len(self.names)
        self.column = column

    def targets(self, rows: Rows) -> tuple[NDArray[np.generic], Floats, Bools]:
        every = np.ones(len(rows), dtype=bool)
        target = self._numbers(rows, every, self.names)
        return target, target.astype(np.float64), every

    def scores(self, output: Tensor) -> NDArray[np.float64]:
        return np.asarray(torch.softmax(output.double(), dim=1).cpu().numpy())

    def metrics(self, target: NDArray[np.generic], truth: Floats, scores: Floats) -> Metrics:
        return measure.of_classes(target, scores)

    def trivial(self, target: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return (C,) shares of the classes: its answer is the majority class."""
        counts = np.bincount(target.astype(np.int64), minlength=self.classes)
        return np.asarray(counts / max(len(target), 1))

    @property
    def score_columns(self) -> tuple[str, ...]:
        return tuple(f"p_{name}" for name in self.names)

    def _numbers(self, rows: Rows, chosen: Bools, names: Sequence[str]) -> Ints:
        """Return (R,) the position in ``names`` of each chosen row's word; 0 elsewhere."""
        assert self.column is not None
        words = rows.groups[self.column]
        place = {name: number for number, name in enumerate(names)}
        found, index = np.unique(words[chosen], return_inverse=True)
        strange = [word for word in found.tolist() if word not in place]
        if strange:
            raise DataError(
                f"column '{self.column}' holds '{strange[0]}', which is no class of "
                f"task={self.name}; there are {', '.join(names)}: name all classes in task.classes"
            )
        result = np.zeros(len(rows), dtype=np.int64)
        result[chosen] = np.array([place[word] for word in found.tolist()], dtype=np.int64)[index]
        return result


class AssetType(Classes):
    """Which kind of machine is this? Tested on machines that nothing was trained on."""

    name = "asset_type"
    predicts = "tells kinds of machines apart"
    by_machine = True

    def __init__(self, classes: Sequence[str] | None, column: str = "kind") -> None:
        super().__init__(classes, column)


class Operation(Classes):
    """Which operation is a machine at, in the last row of a window?"""

    name = "operation"
    predicts = "tells which operation a machine is at"
    columns = False

    def __init__(self, classes: Sequence[str] | None) -> None:
        super().__init__(classes, "operation")


class DeviceFailure(Classes):
    """Is this machine healthy, or will it fail within ``horizon``, and of what?

    Class 0 is healthy. The failure mode is the latent truth behind the record, or a column of
    the data; no rule on readings takes part in it.
    """

    name = "device_failure"
    predicts = "tells failure modes apart"

    def __init__(
        self, horizon: float | None, classes: Sequence[str] | None, column: str = "mode"
    ) -> None:
        if horizon is None:
            raise ConfigError(NEEDS_TIMES.format(task=self.name))
        if not horizon > 0:
            raise ConfigError(f"task.horizon={horizon} must be greater than 0")
        super().__init__(None if classes is None else ["healthy", *classes], column)
        self.horizon = self.reach = float(horizon)

    def targets(self, rows: Rows) -> tuple[NDArray[np.generic], Floats, Bools]:
        if rows.label is not None:
            raise ConfigError(NEEDS_TIMES.format(task=self.name))
        positive, known = within_horizon(rows, self.horizon)
        mode = self._numbers(rows, positive, self.names[1:])
        return np.where(positive, 1 + mode, 0), positive.astype(np.float64), known

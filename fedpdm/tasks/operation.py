"""Which operation a machine is at: one of several kinds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedpdm.data.rows import Bools, Floats, Rows
from fedpdm.errors import ConfigError, DataError
from fedpdm.tasks.base import Metrics
from fedpdm.tasks.cross_entropy import CrossEntropy


class Operation(CrossEntropy):
    """The kind of operation of a window's last row, out of ``classes``; cross-entropy.

    The truth is the column ``operation`` of ``Rows.groups``.

    Args:
        classes: names of all kinds, at least two.

    Raises:
        ConfigError: the data has no such kinds.
    """

    name = "operation"
    predicts = "tells which operation a machine is at"
    primary = "macro_f1"
    higher_is_better = True
    reach = 0.0
    columns = False

    def __init__(self, classes: Sequence[str] | None) -> None:
        if classes is None or len(set(classes)) < 2:
            raise ConfigError(
                "task=operation needs data whose rows name an operation: data=milling or data=npz"
            )
        self.kinds = tuple(str(name) for name in classes)
        self.outputs = self.classes = len(self.kinds)

    def targets(self, rows: Rows) -> tuple[NDArray[np.generic], Floats, Bools]:
        if "operation" not in rows.groups:
            raise ConfigError("task=operation: this data does not say which operation a row is of")
        named = rows.groups["operation"]
        order = np.argsort(self.kinds)
        place = np.searchsorted(np.array(self.kinds)[order], named).clip(max=self.outputs - 1)
        found = order[place].astype(np.int64)
        wrong = np.array(self.kinds)[found] != named
        if wrong.any():
            raise DataError(
                f"operation '{named[wrong][0]}' of {rows.machine[wrong][0]} is none of "
                f"task.classes ({', '.join(self.kinds)})"
            )
        return found, found.astype(np.float64), np.ones(len(rows), dtype=bool)

    def scores(self, output: Tensor) -> NDArray[np.float64]:
        return np.asarray(torch.softmax(output.double(), dim=1).cpu().numpy())

    def metrics(self, target: NDArray[np.generic], truth: Floats, scores: Floats) -> Metrics:
        """Return ``accuracy`` and ``macro_f1``, the mean over the classes that occur."""
        from sklearn.metrics import f1_score

        if len(target) == 0:
            return {"macro_f1": None, "accuracy": None, "n": 0.0}
        found = scores.argmax(axis=1)
        present = np.unique(target)
        score = f1_score(target, found, labels=present, average="macro", zero_division=0)
        return {
            "macro_f1": float(score),
            "accuracy": float(np.mean(found == target)),
            "n": float(len(target)),
        }

    def trivial(self, target: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return (classes,) shares of the training windows: the most frequent class wins."""
        counts = np.bincount(target.astype(np.int64), minlength=self.outputs)
        return np.asarray(counts / max(len(target), 1), dtype=np.float64)

    @property
    def score_columns(self) -> tuple[str, ...]:
        return self.kinds

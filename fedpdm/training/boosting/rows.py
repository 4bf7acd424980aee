"""What a holder of rows adds up for growing trees. It hands out sums, never rows.

Shapes: N rows, K columns, B bins, C outputs, J of them with trees, Q nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.rows import Floats, Floats32, Ints
from fedpdm.models.gbdt import TreeArrays, add_trees, leaf_of, start
from fedpdm.training.boosting.bins import CELLS, PARTS, bin_of, cell_counts, part_counts
from fedpdm.training.boosting.losses import Loss

UNIT = 2.0**20
"""Gradients, second derivatives and targets are counted in parts of it: the sums over a billion
rows stay below 2^53, where float64 is exact."""
STEEPEST = 4.0
"""A gradient ends here; those of our losses are seldom above 1."""
AT_ONCE = 1 << 22
"""Values that are added up in one go: bounds memory."""
SEEN = ("base", "value", "feature", "threshold", "left")

Sums = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Request:
    """What is to be added up.

    Attributes:
        kind: ``cells``: rows in the cells of each column, and targets; ``parts``: rows in the
            parts of ``cells`` (K, R); ``nodes``: histograms of ``nodes`` (Q, 2), each the position
            of an output among those with trees and a node of its growing tree, whose arrays are
            ``feature``, ``threshold`` and ``left`` (J, M).
        trees: how many trees are finished.
        arrays: of the kind.
    """

    kind: str
    trees: int = 0
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def at_roots(self) -> bool:
        """Whether it asks for whole trees' rows."""
        return self.kind == "nodes" and not self.arrays["nodes"][:, 1].any()

    def shapes(self, trees: TreeArrays, loss: Loss) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of the int64 sums that answer it."""
        columns, borders = trees["edges"].shape
        several = (len(loss.outputs),)
        if self.kind == "cells":
            return {"counts": (columns, CELLS), "rows": several, "targets": several}
        if self.kind == "parts":
            return {"counts": (*self.arrays["cells"].shape, PARTS)}
        return dict.fromkeys(names_of(loss), (len(self.arrays["nodes"]), columns, borders + 1))


def names_of(loss: Loss) -> tuple[str, ...]:
    """Return the names of the sums of a histogram."""
    return ("counts", "gradients") if loss.mean is None else ("counts", "gradients", "hessians")


class Rows:
    """The rows of one site, or pooled.

    What it computes for one request it keeps for the next, which changes no answer.

    Args:
        columns: (N, K) what trees see (``data.summaries.tree_columns``).
        y: (N, …) targets of the task.
        loss: of the task.
    """

    def __init__(self, columns: Floats32, y: NDArray[Any], loss: Loss) -> None:
        self.columns, self.loss = columns, loss
        self.targets, self.counted = loss.target(y)
        self._seen: dict[str, NDArray[Any]] = {}
        self._answers: Floats
        self._sums: tuple[Floats, ...]
        self._edges: Floats32 | None = None
        self._index: Ints

    def __len__(self) -> int:
        return len(self.columns)

    def answer(self, request: Request, trees: TreeArrays) -> Sums:
        """Return the sums that a request asks for, int64.

        Args:
            request: what.
            trees: those that are finished; those after ``request.trees`` may be missing.
        """
        if request.kind == "cells":
            targets = np.where(self.counted, np.rint(self.targets * UNIT), 0.0)
            return {
                "counts": cell_counts(self.columns),
                "rows": self.counted.sum(axis=0),
                "targets": targets.astype(np.int64).sum(axis=0),
            }
        if request.kind == "parts":
            return {"counts": part_counts(self.columns, request.arrays["cells"])}
        return self._histograms(trees, request)

    def answers(self, trees: TreeArrays, count: int) -> Floats:
        """Return (N, C) answers of the first ``count`` trees; not to be changed."""
        self._score(trees, count)
        return self._answers

    def _score(self, trees: TreeArrays, count: int) -> None:
        """Bring answers and derivatives up to the first ``count`` trees."""
        done = len(self._seen.get("value", ()))
        same = self._seen.keys() and done <= count and all(
            np.array_equal(old, _first(trees, name, done)) for name, old in self._seen.items()
        )  # fmt: skip
        if same and done == count:
            return
        if not same:
            self._answers, done = start(trees, len(self)), 0
        add_trees(trees, self.columns, self._answers, done, count)
        self._seen = {name: _first(trees, name, count).copy() for name in SEEN}
        answers = self._answers[:, list(self.loss.outputs)]
        if self.loss.mean is None:
            self._sums = (_whole(answers - self.targets),)
        else:
            mean = self.loss.mean(answers)
            self._sums = (_whole(mean - self.targets), _whole(mean * (1 - mean)))

    def _histograms(self, trees: TreeArrays, request: Request) -> Sums:
        """Return (Q, K, B) sums of the rows in each node of the growing trees."""
        self._score(trees, request.trees)
        edges, nodes = trees["edges"], request.arrays["nodes"]
        growing = [request.arrays[name] for name in ("feature", "threshold", "left")]
        count, bins = edges.shape[0], edges.shape[1] + 1
        if self._edges is None or not np.array_equal(self._edges, edges):
            self._edges = edges.copy()
            self._index = bin_of(self.columns, edges) + np.arange(count) * bins
        found = {n: np.zeros((len(nodes), count * bins), np.int64) for n in names_of(self.loss)}
        for output in np.unique(nodes[:, 0]):
            asked = np.flatnonzero(nodes[:, 0] == output)
            place = np.full(growing[0].shape[1], -1)
            place[nodes[asked, 1]] = np.arange(len(asked))
            slot = place[leaf_of(self.columns, *(array[output] for array in growing))]
            rows = np.flatnonzero((slot >= 0) & self.counted[:, output])
            size = len(asked) * count * bins
            for some in np.array_split(rows, len(rows) * count // AT_ONCE + 1):
                index = (self._index[some] + slot[some, None] * (count * bins)).ravel()
                weights = [None, *(sums[some, output] for sums in self._sums)]
                for name, weight in zip(found, weights, strict=True):
                    spread = None if weight is None else np.repeat(weight, count)
                    part = np.bincount(index, weights=spread, minlength=size)
                    found[name][asked] += part.astype(np.int64).reshape(len(asked), -1)
        return {name: sums.reshape(len(nodes), count, bins) for name, sums in found.items()}


def _first(trees: TreeArrays, name: str, count: int) -> NDArray[Any]:
    """Return what is known of the first ``count`` trees."""
    return trees[name] if name == "base" else trees[name][:count]


def _whole(values: Floats) -> Floats:
    """Return values in whole parts of ``UNIT``, in float64, which is exact for their sums."""
    return np.rint(np.clip(values, -STEEPEST, STEEPEST) * UNIT)

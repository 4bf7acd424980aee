"""Trees from sums: bins, the best split of a node, and when which node is split.

Gain and leaf values are those of Chen and Guestrin (XGBoost, 2016), formulas 7 and 5, without a
price of a leaf. Shapes: K columns, B bins, J outputs with trees, M nodes of a tree.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.models.gbdt import TreeArrays
from fedpdm.training.boosting.bins import edges_of, heavy_cells
from fedpdm.training.boosting.losses import Loss
from fedpdm.training.boosting.rows import UNIT, Request, Sums

FLATTEST = 1e-3
"""The least sum of second derivatives in a leaf, as scikit-learn has it."""
LEAST_GAIN = 1e-9
"""Less is rounding."""
TREE = ("value", "feature", "threshold", "left")

Steps = Generator[Request, Sums, None]


class Changed(Exception):
    """Who answers is no longer who answered before: the tree is begun again."""


@dataclass(frozen=True)
class Growth:
    """How trees grow.

    Attributes:
        trees_per_round: trees of each output in a round.
        leaves: the most leaves of a tree.
        learning_rate: what a tree's answer is multiplied by.
        least_rows: the fewest rows in a leaf.
        l2: added to the sum of second derivatives of a leaf.
    """

    trees_per_round: int = 5
    leaves: int = 31
    learning_rate: float = 0.06
    least_rows: int = 20
    l2: float = 0.0


def boost(trees: TreeArrays, growth: Growth, loss: Loss, round: int) -> Steps:
    """Grow the trees of a round in place; the first round begins with bins and the base.

    Args:
        trees: arrays that may be changed, with the trees of the rounds before.
        growth: how.
        loss: of the task.
        round: its number, from 1.
    """
    if not trees["edges"].any():
        yield from _until_done(lambda: _begin(trees, loss))
    last = round * growth.trees_per_round
    for tree in range(last - growth.trees_per_round, last):
        yield from _until_done(lambda tree=tree: _grow(trees, growth, loss, tree))  # type: ignore[misc]


def _until_done(steps: Callable[[], Steps]) -> Steps:
    while True:
        try:
            yield from steps()
            return
        except Changed:
            pass


def _begin(trees: TreeArrays, loss: Loss) -> Steps:
    """Find the borders of the bins, and the answer that is best without a tree."""
    bins = trees["edges"].shape[1] + 1
    first = yield Request("cells")
    cells = heavy_cells(first["counts"], bins)
    second = yield Request("parts", arrays={"cells": cells})
    trees["edges"][:] = edges_of(first["counts"], cells, second["counts"], bins)
    mean = first["targets"] / UNIT / np.maximum(first["rows"], 1)
    trees["base"][list(loss.outputs)] = loss.origin(mean)


def _grow(trees: TreeArrays, growth: Growth, loss: Loss, tree: int) -> Steps:
    """Grow one tree of every output, all in the same requests."""
    for name in TREE:
        trees[name][tree] = 0
    growing = [
        _Tree({n: trees[n][tree, output] for n in TREE}, trees["edges"], growth)
        for output in loss.outputs
    ]
    asked = [(j, 0) for j in range(len(growing))]
    while asked:
        nodes = np.array(asked, dtype=np.int64)
        sums = yield Request("nodes", tree + 1, {"nodes": nodes})
        for place, (j, node) in enumerate(asked):
            growing[j].take(node, histogram({name: each[place] for name, each in sums.items()}))
        asked = [(j, node) for j, each in enumerate(growing) for node in each.split()]
    for each in growing:
        each.finish()


def histogram(sums: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return (3, K, B) gradients, second derivatives and counts of one node."""
    counts = sums["counts"]
    hessians = sums["hessians"] if "hessians" in sums else counts * int(UNIT)
    return np.stack([sums["gradients"], hessians, counts])


@dataclass(frozen=True)
class Split:
    """Where a node is best split: rows of ``column`` in bins up to ``bin`` go left.

    Attributes:
        gain: by how much the loss falls, to second order.
        left: (3,) sums of the rows that go left: gradients, second derivatives, rows.
    """

    gain: float
    column: int
    bin: int
    left: NDArray[np.int64]


def best_split(sums: NDArray[np.int64], growth: Growth) -> Split | None:
    """Return the best split of a node, the first of equals; None if none is allowed.

    With G and H the sums of gradients and of second derivatives, the gain is half of
    GL² / (HL + l2) + GR² / (HR + l2) - G² / (H + l2).

    Args:
        sums: (3, K, B) of the node.
        growth: what is allowed.
    """
    below = np.cumsum(sums, axis=2)[:, :, :-1]
    total = sums[:, :1, :].sum(axis=2, keepdims=True)
    above = total - below
    allowed = np.ones(below.shape[1:], dtype=bool)
    for side in (below, above):
        allowed &= (side[2] >= growth.least_rows) & (side[1] >= FLATTEST * UNIT)
    if not allowed.any():
        return None
    fall = _fall(below, growth) + _fall(above, growth) - _fall(total, growth)
    gain = np.where(allowed, fall / 2, -np.inf)
    column, place = np.unravel_index(int(np.argmax(gain)), gain.shape)
    if gain[column, place] <= LEAST_GAIN:
        return None
    return Split(float(gain[column, place]), int(column), int(place), below[:, column, place])


def _fall(sums: NDArray[np.int64], growth: Growth) -> NDArray[np.float64]:
    gradient, hessian = sums[0] / UNIT, sums[1] / UNIT + growth.l2
    return np.asarray(gradient**2 / np.maximum(hessian, FLATTEST))


def leaf_value(sums: NDArray[np.int64], growth: Growth) -> float:
    """Return the answer of a leaf: -G / (H + l2), times the learning rate."""
    gradient, hessian = float(sums[0]) / UNIT, float(sums[1]) / UNIT + growth.l2
    return -growth.learning_rate * gradient / hessian if hessian > 0 else 0.0


class _Tree:
    """A tree of one output while it grows.

    Args:
        arrays: (M,) arrays of the tree, all zeros, to be filled.
        edges: (K, B - 1) borders of the bins.
        growth: how it grows.
    """

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], edges: NDArray[np.float32], growth: Growth
    ) -> None:
        self._arrays, self._edges, self._growth = arrays, edges, growth
        self._used = 1
        self._leaves: dict[int, NDArray[np.int64]] = {}  # (3,) sums of each leaf
        self._sums: dict[int, NDArray[np.int64]] = {}  # (3, K, B) of each leaf that may be split
        self._best: dict[int, Split] = {}
        self._other: dict[int, tuple[int, NDArray[np.int64]]] = {}  # sibling, sums of the parent

    def take(self, node: int, sums: NDArray[np.int64]) -> None:
        """Take the (3, K, B) sums of a node that was asked for; its sibling has the rest."""
        if node == 0:
            self._leaves[0] = sums[:, 0, :].sum(axis=1)
        self._open(node, sums)
        if node in self._other:
            sibling, parent = self._other.pop(node)
            self._open(sibling, parent - sums)

    def _open(self, node: int, sums: NDArray[np.int64]) -> None:
        if (best := best_split(sums, self._growth)) is not None:
            self._sums[node], self._best[node] = sums, best

    def split(self) -> list[int]:
        """Split the leaves whose turn it is; return the nodes whose sums are wanted next."""
        asked: list[int] = []
        while not asked:
            room = self._growth.leaves - len(self._leaves)
            turn = sorted(self._best, key=lambda node: (-self._best[node].gain, node))[:room]
            turn = self._wave(turn)
            if not turn:
                break
            for node in turn:
                asked += self._divide(node)
        return asked if len(self._leaves) < self._growth.leaves else []

    def _wave(self, turn):
        if not turn: return turn
        top = self._best[turn[0]].gain
        return [n for n in turn if self._best[n].gain >= WAVE * top]

    def _divide(self, node: int) -> list[int]:
        """Split a leaf; return the child to ask for: the one with fewer rows."""
        best, parent = self._best.pop(node), self._sums.pop(node)
        left, right = self._used, self._used + 1
        self._used += 2
        self._arrays["left"][node] = left
        self._arrays["feature"][node] = best.column
        self._arrays["threshold"][node] = self._edges[best.column, best.bin]
        whole = self._leaves.pop(node)
        self._leaves[left], self._leaves[right] = best.left, whole - best.left
        few, many = sorted((left, right), key=lambda child: int(self._leaves[child][2]))
        if self._leaves[many][2] < 2 * self._growth.least_rows:
            return []  # neither can be split
        self._other[few] = many, parent
        return [few]

    def finish(self) -> None:
        """Give every leaf its answer."""
        for node, sums in self._leaves.items():
            self._arrays["value"][node] = leaf_value(sums, self._growth)

WAVE = 0.0

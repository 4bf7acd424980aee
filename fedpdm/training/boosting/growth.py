"""Trees from sums: bins, the best split of a node, and when which node is split.

Gain and leaf values are those of Chen and Guestrin (XGBoost, 2016), formulas 7 and 5, without a
price of a leaf. Shapes: K columns, B bins, J outputs with trees, M nodes of a tree.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, fields
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
        depth: the most splits between a tree's root and a leaf.
        learning_rate: what a tree's answer is multiplied by.
        least_rows: the fewest rows in a leaf.
        l2: added to the sum of second derivatives of a leaf.
    """

    trees_per_round: int = 5
    leaves: int = 31
    depth: int = 8
    learning_rate: float = 0.06
    least_rows: int = 20
    l2: float = 0.0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Growth:
        """Return what ``model.config`` of ``model=gbdt`` says; KeyError if it is of another."""
        return cls(**{each.name: config[each.name] for each in fields(cls)})


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


def drive(steps: Steps, answer: Callable[[Request], Sums]) -> None:
    """Let one holder of all rows answer every request."""
    try:
        request = next(steps)
        while True:
            request = steps.send(answer(request))
    except StopIteration:
        pass


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
    growing = [_Tree(trees["edges"], growth) for _ in loss.outputs]
    asked = [(j, 0) for j in range(len(growing))]
    while asked:
        sums = yield _request(tree, growing, asked)
        for place, (j, node) in enumerate(asked):
            growing[j].take(node, histogram({name: each[place] for name, each in sums.items()}))
        asked = [(j, node) for j, each in enumerate(growing) for node in each.advance()]
    for each, output in zip(growing, loss.outputs, strict=True):
        each.write({name: trees[name][tree, output] for name in TREE})


def _request(tree: int, growing: Sequence[_Tree], asked: Sequence[tuple[int, int]]) -> Request:
    size = max(len(each.left) for each in growing)
    arrays: dict[str, NDArray[Any]] = {"nodes": np.array(asked, dtype=np.int64)}
    for name, dtype in (("feature", np.int32), ("threshold", np.float32), ("left", np.int32)):
        arrays[name] = np.zeros((len(growing), size), dtype=dtype)
        for own, each in zip(arrays[name], growing, strict=True):
            own[: len(each.left)] = getattr(each, name)
    return Request("nodes", tree, arrays)


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
    """A tree of one output while it grows, best first.

    The leaf with the largest gain is split next, until there are enough leaves. To ask less
    often, the children of all leaves that would be split by what is known now are asked for at
    once; those that better ones then displace are not in the tree.

    Args:
        edges: (K, B - 1) borders of the bins.
        growth: how it grows.
    """

    def __init__(self, edges: NDArray[np.float32], growth: Growth) -> None:
        self._edges, self._growth = edges, growth
        self.left, self.feature, self.threshold = [0], [0], [np.float32(0.0)]
        self._depth = [0]
        self._total: list[NDArray[np.int64]] = [np.zeros(3, np.int64)]  # sums of each node
        self._sums: dict[int, NDArray[np.int64]] = {}  # (3, K, B) of what may be divided
        self._best: dict[int, Split] = {}
        self._other: dict[int, tuple[int, int]] = {}  # of a child asked for: sibling, parent

    def take(self, node: int, sums: NDArray[np.int64]) -> None:
        """Take the (3, K, B) sums of a node that was asked for; its sibling has the rest."""
        if node == 0:
            self._total[0] = sums[:, 0, :].sum(axis=1)
        self._judge(node, sums)
        if node in self._other:
            sibling, parent = self._other.pop(node)
            self._judge(sibling, self._sums.pop(parent) - sums)

    def _judge(self, node: int, sums: NDArray[np.int64]) -> None:
        if self._depth[node] == self._growth.depth:
            return
        if (best := best_split(sums, self._growth)) is not None:
            self._sums[node], self._best[node] = sums, best

    def advance(self) -> list[int]:
        """Return the nodes whose sums are wanted next; none if the tree is grown."""
        asked: list[int] = []
        while not asked and (new := [node for node in self._order() if self.left[node] == 0]):
            asked = [child for node in new if (child := self._divide(node))]
        return asked

    def _order(self) -> list[int]:
        """Return the nodes to be split, best first, as far as it is known now."""
        order: list[int] = []
        leaves = [(-self._best[0].gain, 0)] if 0 in self._best else []
        while leaves and len(order) < self._growth.leaves - 1:
            node = heapq.heappop(leaves)[1]
            order.append(node)
            for child in (self.left[node], self.left[node] + 1):
                if self.left[node] and child in self._best:
                    heapq.heappush(leaves, (-self._best[child].gain, child))
        return order

    def _divide(self, node: int) -> int:
        """Give a node its children; return the one to ask for, with fewer rows, or 0."""
        best, whole = self._best[node], self._total[node]
        left, right = len(self.left), len(self.left) + 1
        self.left[node], self.feature[node] = left, best.column
        self.threshold[node] = self._edges[best.column, best.bin]
        self.left += [0, 0]
        self.feature += [0, 0]
        self.threshold += [np.float32(0.0)] * 2
        self._depth += [self._depth[node] + 1] * 2
        self._total += [best.left, whole - best.left]
        few, many = sorted((left, right), key=lambda child: int(self._total[child][2]))
        deep = self._depth[left] == self._growth.depth
        if deep or self._total[many][2] < 2 * self._growth.least_rows:
            return 0  # neither can be split
        self._other[few] = many, node
        return few

    def write(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Fill (M,) arrays of zeros with the tree: nodes in the order in which they came."""
        order, number = self._order(), {0: 0}
        for place, node in enumerate(order):
            left = self.left[node]
            number[left], number[left + 1] = 2 * place + 1, 2 * place + 2
            arrays["left"][number[node]] = number[left]
            arrays["feature"][number[node]] = self.feature[node]
            arrays["threshold"][number[node]] = self.threshold[node]
        for leaf in number.keys() - set(order):
            arrays["value"][number[leaf]] = leaf_value(self._total[leaf], self._growth)

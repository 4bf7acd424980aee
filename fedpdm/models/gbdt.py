"""Gradient-boosted trees as arrays, and the one function that scores them.

A tree is three arrays over its nodes, of a fixed length, so that trees are tensors of a model
like any others: stored, sent, resumed and rolled back as those of a network. Node 0 is the root.
A node whose ``left`` is 0 is a leaf, or unused; else its children are ``left`` and ``left + 1``,
and a row goes left where its column ``feature`` is at most ``threshold``. Shapes: T trees one
after another, C outputs, M nodes of a tree, K columns, N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedpdm.data.rows import Floats, Floats32, Ints
from fedpdm.data.summaries import LARGEST, SMALLEST, column_count, tree_columns
from fedpdm.errors import ModelError
from fedpdm.models.layers import check_rows, check_windows, require_sizes
from fedpdm.models.registry import register

TINY = 1e-12
"""In place of the spread of a single step: its slope is 0."""

TreeArrays = Mapping[str, NDArray[Any]]
"""``base`` (C,), ``value`` (T, C, M), ``feature``, ``threshold``, ``left`` of the same shape, and
``edges`` (K, B - 1), the borders of the bins; all zeros until they are found."""


@register("gbdt")
class GradientBoostedTrees(nn.Module):
    """Boosted trees on summary features of each window, grown from sums and not by gradients.

    Takes rows (B, F), or windows (B, T, F) of any length, of which the trees see the columns of
    ``data.summaries``; returns (B, C). Untrained it has no tree and answers 0.

    Args:
        input_dim: features of a row or of a time step.
        num_classes: outputs C.
        sequence_length: None for rows.
        rounds: how many rounds a run may have.
        trees_per_round: trees that each output gets in a round.
        leaves: the most leaves of a tree.
        depth: the most splits between a tree's root and a leaf.
        learning_rate: what a tree's answer is multiplied by.
        bins: into how many bins a column is cut, at most 256.
        least_rows: the fewest rows in a leaf.
        l2: added to the sum of second derivatives of a leaf.

    Raises:
        ModelError: a size that is none; (forward) an input of another shape.
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        sequence_length: int | None = None,
        *,
        rounds: int = 30,
        trees_per_round: int = 5,
        leaves: int = 31,
        depth: int = 8,
        learning_rate: float = 0.06,
        bins: int = 64,
        least_rows: int = 20,
        l2: float = 0.0,
    ) -> None:
        super().__init__()
        require_sizes(
            rounds=rounds, trees_per_round=trees_per_round, depth=depth, least_rows=least_rows
        )
        if not 2 <= leaves <= 1024 or not 2 <= bins <= 256:
            raise ModelError(
                f"model.config: leaves={leaves} must be 2 to 1024 and bins={bins} 2 to 256"
            )
        if not 0 < learning_rate <= 1 or not l2 >= 0:
            raise ModelError(
                f"model.config: learning_rate={learning_rate} must be above 0 and at most 1, and "
                f"l2={l2} 0 or more"
            )
        self.input_dim, self.windows, self.depth = input_dim, sequence_length is not None, depth
        shape = (rounds * trees_per_round, num_classes, 2 * leaves - 1)
        columns = column_count(input_dim, sequence_length)
        self.base = nn.Parameter(torch.zeros(num_classes), requires_grad=False)
        self.value = nn.Parameter(torch.zeros(shape), requires_grad=False)
        self.register_buffer("feature", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(shape))
        self.register_buffer("left", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("edges", torch.zeros(columns, bins - 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C) of ``x``, (B, F) or (B, T, F)."""
        if self.windows:
            check_windows("gbdt", x, self.input_dim)
        else:
            check_rows("gbdt", x, self.input_dim)
        if torch.compiler.is_compiling():
            return self._traced(x)
        arrays = {name: tensor.numpy(force=True) for name, tensor in self.state_dict().items()}
        found = score(arrays, tree_columns(x.numpy(force=True)))
        return torch.from_numpy(found).to(x.device, x.dtype)

    def _traced(self, x: Tensor) -> Tensor:
        """Return the same from PyTorch's operations alone, for ``torch.export`` and ONNX.

        Means are added up in another order, so a column may differ in float32's last digit.
        """
        columns = _columns(x) if self.windows else x.double()
        columns = torch.where(columns.abs() < SMALLEST, 0.0, columns)
        columns = columns.clamp(-LARGEST, LARGEST).float()
        trees, outputs, nodes = self.value.shape
        root = torch.arange(trees * outputs) * nodes
        place = torch.zeros_like(columns[:, :1], dtype=torch.int64) + root  # (B, T * C)
        feature, left = self.feature.flatten().long(), self.left.flatten().long()
        threshold = self.threshold.flatten()
        for _ in range(self.depth):
            below = left[place]
            right = columns.gather(1, feature[place]) > threshold[place]
            place = torch.where(below > 0, root + below + right.long(), place)
        answers = self.value.flatten()[place].double().view(-1, trees, outputs).sum(dim=1)
        return (answers + self.base).to(x.dtype)


def _columns(x: Tensor) -> Tensor:
    """Return what ``data.summaries.summarise`` does, of PyTorch's operations."""
    wide, steps = x.double(), torch.arange(x.shape[1], dtype=torch.float64)
    steps = steps - steps.mean()
    weights = steps / steps.square().sum().clamp(min=TINY)
    mean = wide.mean(dim=1)
    std = (wide - mean[:, None]).square().mean(dim=1).sqrt()
    slope = (wide * weights[:, None]).sum(dim=1)
    blocks = [wide[:, -1], mean, std, wide.amin(dim=1), wide.amax(dim=1), slope]
    return torch.cat(blocks, dim=1)


def score(trees: TreeArrays, columns: Floats32) -> Floats:
    """Return (N, C) sums of the trees' answers to (N, K) columns, each tree added in turn."""
    return add_trees(trees, columns, start(trees, len(columns)), 0, len(trees["value"]))


def start(trees: TreeArrays, rows: int) -> Floats:
    """Return (N, C) answers before the first tree."""
    return np.repeat(trees["base"].astype(np.float64)[None], rows, axis=0)


def add_trees(
    trees: TreeArrays, columns: Floats32, answers: Floats, first: int, last: int
) -> Floats:
    """Add the answers of trees ``first`` … ``last - 1`` to (N, C) answers, in place."""
    for tree in range(first, last):
        for output, value in enumerate(trees["value"][tree]):
            if trees["left"][tree, output, 0] == 0:  # no split: one answer for all rows
                answers[:, output] += float(value[0])
            else:
                arrays = (trees[name][tree, output] for name in ("feature", "threshold", "left"))
                answers[:, output] += value[leaf_of(columns, *arrays)]
    return answers


def leaf_of(columns: Floats32, feature: Ints, threshold: Floats32, left: Ints) -> NDArray[np.int64]:
    """Return (N,) the leaf of a tree of (M,) arrays in which each of (N, K) rows ends."""
    node, rows = np.zeros(len(columns), dtype=np.int64), np.arange(len(columns))
    for _ in range(len(left)):  # no path is longer, even in arrays that are no tree
        if not len(rows):
            break
        here = node[rows]
        below = left[here]
        rows, here, below = rows[below > 0], here[below > 0], below[below > 0]
        node[rows] = below + (columns[rows, feature[here]] > threshold[here])
    return node

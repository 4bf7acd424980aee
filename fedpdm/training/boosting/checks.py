"""Whether sums that somebody sends can be what they are called."""

from __future__ import annotations

import numpy as np

from fedpdm.models.gbdt import TreeArrays
from fedpdm.training.boosting.losses import Loss
from fedpdm.training.boosting.rows import STEEPEST, UNIT, Request, Sums


def flaw_of(
    sums: Sums, request: Request, trees: TreeArrays, loss: Loss, examples: int
) -> str | None:
    """Return why sums cannot answer a request, or None.

    What passes moves a tree by no more than as many rows could.

    Args:
        sums: as received.
        request: what was asked.
        trees: tells the numbers of columns and bins.
        loss: of the task.
        examples: how many rows the sender says it has.
    """
    shapes = request.shapes(trees, loss)
    if sums.keys() != shapes.keys():
        return f"they are {', '.join(sorted(sums)) or 'none'} and not {', '.join(sorted(shapes))}"
    for name, array in sums.items():
        if array.dtype != np.int64 or array.shape != shapes[name]:
            return (
                f"{name} are {array.dtype} {array.shape} and not the int64 {shapes[name]} that "
                "were asked for"
            )
    counts = sums["counts"]
    if counts.min(initial=0) < 0 or counts.max(initial=0) > examples:
        return f"a count is not between 0 and its {examples} examples"
    if request.kind == "cells":
        rows, targets = sums["rows"], sums["targets"]
        if (counts.sum(axis=1) != examples).any():
            return f"counts of a column do not add up to its {examples} examples"
        if (rows < 0).any() or (rows > examples).any():
            return f"rows are not between 0 and its {examples} examples"
        if (targets < 0).any() or (targets > rows * UNIT).any():
            return "its targets are more than its rows can have"
        return None
    if request.kind == "parts":
        many = counts.sum(axis=(1, 2)) > examples
        return f"counts of a column are above its {examples} examples" if many.any() else None
    return _flaw_of_histograms(sums, request, examples)


def _flaw_of_histograms(sums: Sums, request: Request, examples: int) -> str | None:
    counts, nodes = sums["counts"], request.arrays["nodes"]
    rows = counts.sum(axis=2)
    if (rows != rows[:, :1]).any():
        return "columns of a node count different rows"
    for output in np.unique(nodes[:, 0]):
        total = int(rows[nodes[:, 0] == output, 0].sum())
        exact = request.at_roots and output == 0
        if total > examples or (exact and total != examples):
            return f"{total} rows are counted, and it has {examples} examples"
    limits = {"gradients": (-STEEPEST * UNIT, STEEPEST * UNIT), "hessians": (0.0, UNIT)}
    for name, (least, most) in limits.items():
        if name not in sums:
            continue
        if (sums[name] < least * counts).any() or (sums[name] > most * counts).any():
            return f"{name} are larger than its rows can have"
        whole = sums[name].sum(axis=2)
        if (whole != whole[:, :1]).any():
            return f"{name} of a node differ from column to column"
    return None

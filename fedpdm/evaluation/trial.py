"""The test of a round's weights: once, on windows that chose nothing.

A simulation tries them on all plants at once, a deployed plant on itself alone; the
order is the same: scores, a threshold from validation data, metrics, metrics at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fedpdm.data.rows import Split
from fedpdm.evaluation.outcome import (
    add_threshold_metrics,
    predict,
    score,
    thresholds,
    without_padding,
)
from fedpdm.federation import Site
from fedpdm.tasks import Task

SPLITS = (Split.VALIDATION, Split.TEST, Split.HELDOUT)


def try_model(
    module: nn.Module, sites: Sequence[Site], task: Task, device: torch.device
) -> dict[str, Any]:
    """Return ``threshold``, and ``validation``, ``test`` and ``heldout`` as ``score`` makes them.

    ``heldout`` is None where no plant holds machines out. The threshold is chosen on the
    plants' pooled validation windows: on a plant's own, if it is asked alone.
    """
    predictions = predict(module, sites, task, device, SPLITS)
    threshold = thresholds(predictions, sites)
    result: dict[str, Any] = {"threshold": threshold}
    for split in SPLITS:
        scores = score(predictions, sites, task, split)
        add_threshold_metrics(scores, predictions, sites, split, threshold)
        result[split.name.lower()] = scores
    if (full := without_padding(predictions, sites, task)) is not None:
        result["test"]["full_windows"] = full
    if not any(len(site.heldout) for site in sites):
        result["heldout"] = None
    return result

"""The best constant answer."""

from __future__ import annotations

import numpy as np

from fedpdm.baselines.inputs import BaselineInputs, predicted
from fedpdm.baselines.registry import Shown, register_baseline
from fedpdm.evaluation.scoring import Predictions


@register_baseline(
    "trivial",
    Shown(
        "Trivial",
        "the best constant answer, which knows the training data's average only",
        marker="|",
        colour="trivial",
        column="always",
    ),
)
def trivial(inputs: BaselineInputs) -> Predictions:
    """A constant: the share of failures, or the mean remaining life, in all training data."""
    pool = inputs.sites(inputs.pool)
    constant = inputs.task.trivial(np.concatenate([site.train.real().y for site in pool]))
    return predicted(
        inputs.sites(),
        lambda windows: np.broadcast_to(constant, (len(windows), *constant.shape)).copy(),
    )

"""The physical rules of a data set that knows some."""

from __future__ import annotations

import numpy as np

from fedpdm.baselines.inputs import BaselineInputs
from fedpdm.baselines.registry import Baseline, register_baseline
from fedpdm.evaluation.scoring import TESTED, Predictions


def no_rules(inputs: BaselineInputs) -> str | None:
    """Return why there are no rules, or None."""
    source = inputs.federation.source
    known = not inputs.names or source.rules(inputs.federation.rows(inputs.names[0])) is not None
    return None if known else f"data={source.name} has no known rules"


@register_baseline("rules", Baseline(
    "Rules", "the process's known physical rules, without learning",
    name="Physical rules", subject="The physical rules alone, without learning,",
    marker="s", colour="rules", missing=no_rules,
))  # fmt: skip
def rules(inputs: BaselineInputs) -> Predictions:
    """The data set's own physical rules, without any learning."""
    result: Predictions = {}
    for name in inputs.names:
        rows = inputs.federation.rows(name)
        alarms = inputs.federation.source.rules(rows)
        assert alarms is not None  # else it would have been left out
        result[name] = {split: alarms[rows.split == split].astype(np.float64) for split in TESTED}
    return result

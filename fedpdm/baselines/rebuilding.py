"""Baseline of task=reconstruction: a guess of hidden readings that needs no training."""

from __future__ import annotations

from fedpdm.baselines.inputs import BaselineInputs
from fedpdm.baselines.networks import guessed
from fedpdm.baselines.registry import Baseline, register_baseline
from fedpdm.evaluation.scoring import Predictions


@register_baseline("interpolation", Baseline(
    "Interpolation", "a straight line between the readings seen before and after", marker="d",
    task="reconstruction", subject="A straight line between neighbours",
))  # fmt: skip
def interpolation(inputs: BaselineInputs) -> Predictions:
    """The strongest of the guesses where single steps are hidden."""
    return guessed(inputs, "interpolation_error")

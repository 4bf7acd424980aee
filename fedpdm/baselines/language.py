"""The control for written programs: the same decoder without its sensors."""

from __future__ import annotations

from dataclasses import replace

from fedpdm.baselines.inputs import BaselineInputs
from fedpdm.baselines.networks import pooled
from fedpdm.baselines.registry import Baseline, register_baseline
from fedpdm.evaluation.scoring import Predictions
from fedpdm.models import ModelWrapper

BEAM = 8


def no_language(inputs: BaselineInputs) -> str | None:
    """Return why there is no language to learn, or None."""
    if inputs.task.name == "program":
        return None
    return f"task={inputs.task.name} writes no programs"


@register_baseline("language", Baseline(
    "Language", "the same decoder on pooled rows, its sensors replaced by zeros",
    name="Language control", subject="The same decoder without sensors, on pooled data,",
    marker="*", missing=no_language, task="program",
    cost=lambda inputs: 0.5 * len(inputs.pool),
))  # fmt: skip
def language(inputs: BaselineInputs) -> Predictions:
    """What a program's language alone tells: the model learns which lines are frequent.

    It writes the likeliest line that a beam search finds: token by token it would begin as most
    lines do, and miss the line that is most frequent as a whole.
    """

    def build_blind() -> ModelWrapper:
        model = inputs.build_model()
        for name, value in (("blind", True), ("beam", BEAM)):
            setattr(model.module, name, value)
        return model

    return pooled(replace(inputs, build_model=build_blind))

"""Options of a model and an objective that are without effect in a run, each with the way out.

A module or an objective knows best: its attribute ``idle`` is a list of sentences, empty or missing
where every setting counts. What follows from the two together, or from the config, is said here.
"""

from __future__ import annotations

from fedpdm.config.values import Config, select
from fedpdm.runs.experiment import Experiment
from fedpdm.runs.trees import TREES
from fedpdm.training.objective import Supervised

OF_NETWORKS = ("batch_size", "learning_rate", "weight_decay", "clip_norm", "optimizer")
"""Settings of local training whose defaults are the model's; trees take no steps."""


def idle_options(cfg: Config, experiment: Experiment) -> list[str]:
    """Return a sentence for every option of model and objective that nothing reads.

    Args:
        cfg: a composed config.
        experiment: made from it.
    """
    module, objective = experiment.build_model().module, experiment.objective.without_federation()
    said = [*getattr(module, "idle", ()), *getattr(objective, "idle", ())]
    if getattr(module, "reconstructs", False) and isinstance(objective, Supervised):
        said.append(
            "model.config.reconstructs=true: no loss asks for what is rebuilt; set "
            "objective={_target_: fedpdm.training.denoising.Denoising}, or false"
        )
    if cfg.model.model_type == TREES:
        changed = [
            f"training.{name}"
            for name in OF_NETWORKS
            if select(cfg, f"training.{name}") != select(cfg, f"model.training.{name}")
        ]
        if changed:
            said.append(
                f"{', '.join(changed)}: trees of model=gbdt take no gradient steps; "
                "model.config.learning_rate and model.config.leaves are theirs"
            )
    return [f"without effect: {sentence}" for sentence in said]

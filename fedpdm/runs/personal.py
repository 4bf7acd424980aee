"""What a run folder says of tensors that stay at the sites, and a site's model made from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fedpdm.client.state import PersonalModels
from fedpdm.config.values import Config, plain, select
from fedpdm.errors import ConfigError
from fedpdm.models import ModelWrapper
from fedpdm.runs.experiment import Experiment
from fedpdm.storage import Arrays, read_json
from fedpdm.tasks import Task
from fedpdm.training.objective import Objective, Supervised
from fedpdm.wire.flower import unpack_state


def described(experiment: Experiment, cfg: Config) -> dict[str, Any] | None:
    """Return what ``predict`` needs to know of what sites keep; None if all of them predict alike.

    Args:
        experiment: what is run.
        cfg: the resolved config of the run.
    """
    if not experiment.personal:
        return None
    return {
        "tensors": list(experiment.parts.local),
        "seed": experiment.seed,  # of the tensors of a site that never trained
        "sites": list(experiment.federation.sites),
        "objective": plain(select(cfg, "objective")),
    }


def personal_model(
    card: dict[str, Any],
    model: ModelWrapper,
    weights: Arrays,
    states: Mapping[str, bytes],
    site: str | None,
    objective: Objective | None,
    task: Task,
    folder: Path,
) -> ModelWrapper:
    """Return the model as a site of the run has it.

    Args:
        card: made by ``described``.
        model: the run's initial model.
        weights: of a round: what travelled.
        states: each site's packed state after that round.
        site: whose model; None where there is only one, or sites keep no tensors.
        objective: what was minimised; None for the loss of ``task``.
        task: the run's task.
        folder: the run folder.

    Raises:
        ConfigError: it is not said whose data this is, the site's tensors never left it, or
            the objective is missing.
    """
    site = card["sites"][0] if site is None and len(card["sites"]) == 1 else site
    if card["objective"] is not None and objective is None:
        raise ConfigError(
            f"{folder} was trained with objective={card['objective'].get('_target_')}, which says "
            "what the model's outputs mean: score from Python, with "
            "fedpdm.predict.load_predictor(…, objective=…)"
        )
    if card["tensors"] and site is None:
        raise ConfigError(
            f"{folder}: each site has {', '.join(card['tensors'][:3])} of its own: say whose data "
            f"this is with --site ({', '.join(card['sites'][:20])})"
        )
    if card["tensors"] and read_json(folder / "manifest.json")["engine"]["name"] == "flower":
        raise ConfigError(
            f"{folder} is a deployed run: {card['tensors'][0]} of {site} never left {site}"
        )
    name = str(site)
    own = {name: unpack_state(states[name])} if name in states else {}
    models = PersonalModels(
        model, weights, card["tensors"], own, objective or Supervised.of(task), torch.device("cpu")
    )
    return ModelWrapper(models(name), model.model_type, model.config)

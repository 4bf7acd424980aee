"""From a config to a site's work in a round: training settings, objective, policy, device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch

from fedpdm.baselines.inputs import BaselineSchedule
from fedpdm.config.kinds import check_arguments
from fedpdm.config.values import Config, block, make, plain, positive, select, share, whole
from fedpdm.errors import ConfigError
from fedpdm.evaluation.protocol import Costs, ThresholdPolicy
from fedpdm.federation import Federation
from fedpdm.models import ModelWrapper
from fedpdm.models.policy import POLICIES, Named, ParameterPolicy
from fedpdm.runs.initial import build_freezing
from fedpdm.tasks import Program, Task
from fedpdm.training.augmentations import Augmentations, Augmented
from fedpdm.training.loop import TrainingSettings
from fedpdm.training.objective import Objective, Supervised
from fedpdm.training.personal import Personal
from fedpdm.training.teacher_forcing import TeacherForcing


def build_settings(cfg: Config, rounds: int, *instead: str) -> TrainingSettings:
    """Make the settings of local training.

    Args:
        cfg: a composed config.
        rounds: of the whole run, which some schedules of the learning rate follow.
        instead: blocks of settings that take the place of those of ``training``, the last
            one of all.

    Raises:
        ConfigError: a value is of the wrong kind or unknown; names its key.
    """
    training = block(cfg, "training")
    for other_part in ("resample", "augment"):  # of the data and of the objective
        training.pop(other_part, None)
    names = dict.fromkeys(training, "training")
    for place in instead:
        other = block(cfg, place)
        training |= other
        names |= dict.fromkeys(other, place)
    for name in ("local_epochs", "batch_size", "step_size"):
        whole(cfg, f"{names[name]}.{name}", 1)
    positive(cfg, f"{names['learning_rate']}.learning_rate")
    share(cfg, f"{names['gamma']}.gamma")
    for name, value in training.items():
        check_arguments(TrainingSettings, {name: value}, names[name])
    epochs = rounds * training["local_epochs"]
    return TrainingSettings(**training, epochs=epochs)


def idle_warning(cfg: Config) -> list[str]:
    """Say which settings differ from their defaults though nothing reads them."""
    networks = ("training", "baselines.training", "baselines.alone.training")
    chosen = {
        "evaluate.threshold": [select(cfg, "evaluate.threshold")],
        "training.schedule": [select(cfg, f"{place}.schedule") for place in networks],
    }
    defaults: dict[str, dict[str, Any]] = {
        "evaluate.threshold=cost": {f"evaluate.costs.{k}": v for k, v in vars(Costs()).items()},
        "evaluate.threshold=false_alarms": {
            "evaluate.false_alarm_budget": ThresholdPolicy().budget
        },
        "training.schedule=step": {
            "training.step_size": TrainingSettings.step_size,
            "training.gamma": TrainingSettings.gamma,
        },
    }
    for name in block(cfg, "sites"):
        defaults["evaluate.threshold=cost"][f"sites.{name}.costs"] = None
    said = []
    for reader, keys in defaults.items():
        switch, _, value = reader.partition("=")
        idle = [key for key, usual in keys.items() if select(cfg, key) not in (None, usual)]
        if idle and chosen[switch][0] is not None and value not in chosen[switch]:
            named = f"{', '.join(idle[:5])}{', …' if len(idle) > 5 else ''}"
            said.append(
                f"without effect: {named}; only {reader} reads it, and {switch} is "
                f"{chosen[switch][0]}"
            )
    return said


def rate_warning(settings: TrainingSettings, rounds: int) -> list[str]:
    """Say if the learning rate is spent long before the last round."""
    low = [
        round
        for round in range(1, rounds + 1)
        if settings.rate((round - 1) * settings.local_epochs) < settings.learning_rate / 100
    ]
    if settings.schedule == "cosine" or not low:  # cosine falls so low at its end only
        return []
    return [
        f"from round {low[0]} of {rounds} on the learning rate is below a hundredth of its start, "
        "so little is learned there; training.schedule=cosine falls over the whole run"
    ]


def build_policy(cfg: Config, build_model: Callable[[], ModelWrapper]) -> ParameterPolicy:
    """Make what says which tensors travel; null is all of them.

    Raises:
        ConfigError: there is no such choice, or it leaves no tensor at a site.
    """
    chosen = plain(select(cfg, "travels"))
    travels = "all" if chosen is None else chosen
    if isinstance(travels, dict):
        policy = cast(ParameterPolicy, make(cfg.travels, "travels"))
    elif isinstance(travels, list):
        policy = Named(travels)
    elif travels in POLICIES:
        policy = POLICIES[travels]()
    else:
        raise ConfigError(
            f"travels={travels} is unknown; there are {', '.join(POLICIES)}, a list of patterns of "
            "names, and a _target_ of your own"
        )
    parts = policy.parts(build_model())
    if not parts.local and travels != "all":
        raise ConfigError(
            f"travels={travels} leaves no tensor of model={cfg.model.model_type} at its site, so "
            "it would be travels=all: use that, or another model"
        )
    return policy


def build_objective(
    cfg: Config, task: Task, federation: Federation, settings: TrainingSettings
) -> Objective:
    """Make what sites minimise: what ``objective`` names, or the task's own loss.

    A personal method (``personal``) is put around it.

    Args:
        cfg: a composed config.
        task: the run's.
        federation: knows a model's inputs.
        settings: of local training.

    Raises:
        ConfigError: an objective or augmentation that cannot work with this task or data.
    """
    objective: Objective = Supervised.of(task)
    if isinstance(task, Program):
        objective = TeacherForcing()
    if select(cfg, "objective._target_") is not None:
        objective = cast(Objective, make(cfg.objective, "objective")).for_task(task)
    given = block(cfg, "training.augment")
    check_arguments(Augmentations, given, "training.augment")
    augmentations = Augmentations.of(given)
    if augmentations is not None:
        length, levels = federation.input_length, federation.source.levels
        augmentations.check(length, levels, federation.features.mode == "both")
        objective = Augmented(objective, augmentations)
    if select(cfg, "personal") is None:
        return objective
    method = cast(Personal, make(cfg.personal, "personal"))
    method.check(task, settings)
    return method.around(objective)


def with_freezing(cfg: Config, model: ModelWrapper, settings: TrainingSettings) -> TrainingSettings:
    """Return settings that freeze the encoder of a model as ``init`` says."""
    return replace(settings, freezing=build_freezing(cfg, model, settings.local_epochs))


def frozen_schedule(cfg: Config, model: ModelWrapper, *blocks: str) -> BaselineSchedule:
    """Make what ``build_schedule`` makes, with the encoder frozen as ``init`` says."""
    schedule = build_schedule(cfg, *blocks)
    return replace(schedule, settings=with_freezing(cfg, model, schedule.settings))


def build_schedule(cfg: Config, *blocks: str) -> BaselineSchedule:
    """Make how networks train without a federation: each block's word goes before the last's."""
    said = [name for name in blocks if select(cfg, f"{name}.rounds") is not None]
    rounds = whole(cfg, f"{said[-1]}.rounds" if said else "rounds", 1)
    settings = build_settings(cfg, rounds, *(f"{name}.training" for name in blocks))
    return BaselineSchedule(settings, rounds)


def build_device(name: str) -> torch.device:
    """Return the torch device, or say that this machine has none such."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device={name} is unknown; use cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={name}: torch sees no CUDA device here; use device=cpu")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={name} is not supported; use cpu or cuda")
    return device

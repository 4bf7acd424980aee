"""What a stack of sites cannot do, refused before a run starts."""

from __future__ import annotations

import torch
from torch import nn

from fedpdm.engines.hardware import check_counts
from fedpdm.errors import ConfigError
from fedpdm.training.loop import TrainingSettings
from fedpdm.training.objective import Objective


def check_options(device: torch.device, chunk: int | None, cuda_graphs: bool) -> None:
    """Refuse options that cannot work.

    Raises:
        ConfigError: names the option.
    """
    check_counts(null=True, chunk=chunk)
    if cuda_graphs and device.type != "cuda":
        raise ConfigError(f"engine.cuda_graphs=true needs device=cuda, not device={device}")


def check_training(module: nn.Module, objective: Objective, settings: TrainingSettings) -> None:
    """Refuse training that no stack of sites can do.

    Raises:
        ConfigError: says what cannot be stacked.
    """
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ConfigError(
            "engine=batched trains by gradients, and this model has none: use engine=serial"
        )
    if not objective.stacks:
        raise ConfigError(
            f"engine=batched cannot train {type(objective).__name__} as a stack of sites, "
            "because it does not say `stacks = True`: use engine=serial"
        )
    if settings.amp:
        raise ConfigError("engine=batched has no training.amp: use engine=serial")

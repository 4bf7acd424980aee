"""Classes from noisy windows, and the windows without the noise: ``model=sensor_encoder``.

The loss of the source's code (reference in docs/decisions/031-programs-from-sensors.md): weighted
cross-entropy and 0.3 times the mean squared error of the rebuilt input, noise of deviation 0.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedpdm.errors import ConfigError
from fedpdm.training.objective import LocalContext, Objective

SEEN = "classes_seen"
"""What a site remembers: how many training windows of each class it went through."""


class Denoising(Objective):
    """Cross-entropy of a window's class, and the error of rebuilding it from its noisy copy.

    Noise is added in training only. Classes are weighed so that all count alike at a site, by
    how often it met them in training so far.

    Args:
        noise: deviation of the noise on scaled readings.
        weight: of the mean squared error beside the cross-entropy.
        balanced: whether classes are weighed.

    Raises:
        ConfigError: a value is out of its range; (check_model) the model does not rebuild its
            input; (losses) the targets are no classes.
    """

    def __init__(self, noise: float = 0.1, weight: float = 0.3, balanced: bool = True) -> None:
        for name, value in (("noise", noise), ("weight", weight)):
            if not 0 <= value <= 100:
                raise ConfigError(f"objective.{name}={value} must be at least 0 and at most 100")
        self.noise, self.weight, self.balanced = noise, weight, balanced

    def check_model(self, model: nn.Module) -> None:
        if not getattr(model, "reconstructs", False):
            raise ConfigError(
                "objective=Denoising needs a model that rebuilds its input: "
                "model=sensor_encoder model.config.reconstructs=true"
            )

    def losses(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        if y.ndim != 1 or y.is_floating_point():
            raise ConfigError("objective=Denoising needs classes: task=operation or task=failure")
        given = x
        if model.training:
            given = model.encoder.noisy(x, self.noise, context.generator)  # type: ignore[union-attr,operator]
        logits, rebuilt = model.denoised(given)  # type: ignore[operator]
        losses = functional.cross_entropy(logits, y.long(), reduction="none")
        if self.balanced:
            losses = losses * self._weights(y.long(), logits.shape[1], model.training, context)
        clean = model.encoder.readings(x)  # type: ignore[union-attr,operator]
        found: Tensor = losses + self.weight * (rebuilt - clean).square().mean(dim=(1, 2))
        return found

    def _weights(self, y: Tensor, classes: int, training: bool, context: LocalContext) -> Tensor:
        """Return (B,) weights, on average 1 over what was seen; count the classes in training."""
        seen = context.memory.get(SEEN, torch.zeros(classes, device=y.device))
        if training:
            seen = seen + torch.bincount(y, minlength=classes).to(seen.dtype)
            context.memory[SEEN] = seen
        known = (seen > 0).sum().clamp_min(1)
        weights = torch.where(seen > 0, seen.sum() / (known * seen.clamp_min(1)), 1.0)
        return weights[y]

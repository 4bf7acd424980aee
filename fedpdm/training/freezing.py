"""Freezing: an encoder that keeps its weights for the first epochs, then learns at its own rate."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Freezing:
    """Which tensors are frozen, and how long.

    A frozen tensor gets no gradient, and layers of frozen tensors only stay in evaluation
    mode, so that their dropout draws nothing and their running statistics stay as they are.

    Attributes:
        names: of the encoder's parameters and buffers.
        epochs: frozen before this global epoch; infinity for the whole run.
        rate: factor of the encoder's learning rate from there on.
    """

    names: frozenset[str]
    epochs: float
    rate: float = 1.0

    def holds(self, epoch: int) -> bool:
        """Return whether the encoder is frozen in a global epoch, counted from 0."""
        return epoch < self.epochs

    def quiet(self, module: nn.Module) -> None:
        """Put the layers of frozen tensors into evaluation mode."""
        for prefix, layer in module.named_modules():
            own = [f"{prefix}.{name}" for name in layer.state_dict()] if prefix else []
            if own and self.names.issuperset(own):
                layer.eval()

"""Freezing: an encoder that keeps its weights for the first epochs, then learns at its own rate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn


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

    def apply(self, module: nn.Module, encoder: Iterable[Tensor], epoch: int) -> None:
        """Freeze a model in training for an epoch, or not.

        Args:
            module: in training mode.
            encoder: those of its parameters that are frozen and that would be trained else.
            epoch: global number of the epoch.
        """
        frozen = self.holds(epoch)
        for parameter in encoder:
            parameter.requires_grad_(not frozen)
        if frozen:
            self.quiet(module)

    def quiet(self, module: nn.Module) -> None:
        """Put the layers of frozen tensors into evaluation mode."""
        for prefix, layer in module.named_modules():
            own = [f"{prefix}.{name}" for name in layer.state_dict()] if prefix else []
            if own and self.names.issuperset(own):
                layer.eval()


@contextlib.contextmanager
def released(encoder: Iterable[Tensor]) -> Iterator[None]:
    """Let parameters be trained again after the block: one model serves all sites."""
    try:
        yield
    finally:
        for parameter in encoder:
            parameter.requires_grad_(True)

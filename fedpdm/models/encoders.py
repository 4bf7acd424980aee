"""Encoders: the part of a model that can be pretrained, taken over by another run, and frozen.

A model that has one says so in its class (docs/extending.md): ``encoder_names``, patterns of
the names of its children that make the encoder, and ``encode(x)``, which gives (B, N, D) tokens
of (B, T, F) windows. A model that holds the encoder of another architecture says
``encoder_prefix`` instead. Shapes: B windows, T time steps, F features, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from fedpdm.errors import ModelError
from fedpdm.models import registry
from fedpdm.models.factory import ModelFactory


def encoder_tensors(model: type[nn.Module], names: Iterable[str]) -> dict[str, str]:
    """Return the tensors of a model's encoder; none where its class names no encoder.

    Args:
        model: the class.
        names: of all tensors of such a model.

    Returns:
        The name of each within the encoder, to its name in the model.
    """
    if prefix := getattr(model, "encoder_prefix", ""):
        return {n.removeprefix(prefix): n for n in names if n.startswith(prefix)}
    patterns = getattr(model, "encoder_names", ())
    return {n: n for n in names if _matches(n.partition(".")[0], patterns)}


def build_encoder(
    architecture: str, input_dim: int, sequence_length: int | None, settings: Mapping[str, Any]
) -> nn.Module:
    """Return a model without its head: what ``encode`` does not use has no tensors.

    Args:
        architecture: its registered name.
        input_dim: F.
        sequence_length: T.
        settings: those of the architecture that differ from its defaults.

    Raises:
        ModelError: there is no such architecture, or it has no encoder.
    """
    cls = registry.find(architecture)
    patterns = getattr(cls, "encoder_names", ())
    if not hasattr(cls, "encode") or not patterns:
        able = [n for n in registry.names() if hasattr(registry.find(n), "encode")]
        raise ModelError(
            f"model.config.encoder={architecture} has no encoder that could be used alone; "
            f"there are {', '.join(able)}"
        )
    model = ModelFactory.create_model(
        architecture, input_dim, 2, sequence_length=sequence_length, **settings
    ).module
    for name, child in list(model.named_children()):
        if child.state_dict() and not _matches(name, patterns):
            setattr(model, name, nn.Identity())
    for name in list(model._parameters):
        if not _matches(name, patterns):
            model.register_parameter(name, None)
    return model


def tokens_of(encoder: nn.Module, steps: int, input_dim: int) -> tuple[int, int]:
    """Return N and D of an encoder's tokens; draws no random numbers."""
    training = encoder.training
    with torch.no_grad():
        shape = encoder.eval().encode(torch.zeros(1, steps, input_dim)).shape  # type: ignore[operator]
    encoder.train(training)
    return int(shape[1]), int(shape[2])


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)

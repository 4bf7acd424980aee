"""Layers that several architectures use, and checks of a model's input.

The checks look at shapes only, so they cost nothing and hold under ``torch.func.vmap``
(where the stacked dimension is hidden) and ``torch.compile``.
Shapes: B cases, T time steps, F features.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from fedpdm.errors import ModelError


def dropout(rate: float) -> nn.Module:
    """Return dropout at ``rate``; at 0 the identity, which draws no random numbers.

    Raises:
        ModelError: the rate is not at least 0 and below 1.
    """
    if not 0 <= rate < 1:
        raise ModelError(f"model.config.dropout_rate={rate} must be at least 0 and below 1")
    return nn.Identity() if rate == 0 else nn.Dropout(rate)


MOST_LAYERS = 100
"""A million layers would take hours to be made, weights or not."""


def require_sizes(**sizes: int | Sequence[int]) -> None:
    """Refuse layers without a unit, and too many of them.

    Raises:
        ModelError: a size, or one of a list, is below 1, or there are more than ``MOST_LAYERS``;
            names ``model.config.NAME``.
    """
    for name, given in sizes.items():
        units = given if isinstance(given, Sequence) else [given]
        if len(units) > MOST_LAYERS or (name == "num_layers" and max(units) > MOST_LAYERS):
            raise ModelError(f"model.config.{name}: at most {MOST_LAYERS} layers are made")
        for size in units:
            if size < 1:
                raise ModelError(f"model.config.{name}={given}: a size must be at least 1")


def add_conv_blocks(model: nn.Module, channels: int, filters: Sequence[int]) -> None:
    """Give ``model`` layers conv1, bn1, conv2, bn2, … (kernel 3, padding 1), and pool."""
    model.add_module("pool", nn.MaxPool1d(kernel_size=2))
    for number, (before, after) in enumerate(itertools.pairwise([channels, *filters]), start=1):
        model.add_module(f"conv{number}", nn.Conv1d(before, after, kernel_size=3, padding=1))
        model.add_module(f"bn{number}", nn.BatchNorm1d(after))


def convolve(model: nn.Module, x: Tensor, blocks: int, drop: nn.Module) -> Tensor:
    """Return (B, C', L // 2**blocks) from (B, C, L).

    Each block is Conv1d + BatchNorm + ReLU + MaxPool2 + dropout.
    """
    for number in range(1, blocks + 1):
        x = normalised(model.get_submodule(f"conv{number}"), model.get_submodule(f"bn{number}"), x)
        x = drop(model.get_submodule("pool")(x.relu()))
    return x


def normalised(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """Return ``norm(conv(x))``; in training without the convolution's bias.

    Batch statistics take a bias away again, so its true gradient is zero. Computed, it is
    rounding noise, which Adam divides by its own size: the bias would walk at random, and
    differently on every engine. Taken times zero its gradient is exactly zero; the running
    mean, which evaluation uses, gets the bias's share, so that nothing else changes.
    """
    bias = getattr(conv, "bias", None)
    if (
        not (isinstance(conv, nn.Conv1d) and isinstance(norm, nn.BatchNorm1d) and norm.training)
        or bias is None
        or norm.running_mean is None
        or norm.momentum in (None, 1.0)
    ):
        result: Tensor = norm(conv(x))
        return result
    # Before the call, because batch norm keeps the running mean for its backward pass.
    norm.running_mean.add_(bias.detach(), alpha=norm.momentum / (1 - norm.momentum))
    result = norm(conv._conv_forward(x, conv.weight, bias * 0.0))
    return result


def add_linear_blocks(model: nn.Module, width: int, hidden: Sequence[int]) -> None:
    """Give ``model`` layers fc1, fc2, … of the sizes ``hidden`` after ``width`` inputs."""
    for number, (before, after) in enumerate(itertools.pairwise([width, *hidden]), start=1):
        model.add_module(f"fc{number}", nn.Linear(before, after))


def connect(model: nn.Module, x: Tensor, blocks: int, drop: nn.Module) -> Tensor:
    """Return (B, hidden[-1]) from (B, width). Each block is Linear + ReLU + dropout."""
    for number in range(1, blocks + 1):
        x = drop(model.get_submodule(f"fc{number}")(x).relu())
    return x


def check_rows(model: str, x: Tensor, features: int) -> None:
    """Raise ModelError unless ``x`` is (B, features)."""
    if x.ndim != 2 or x.shape[1] != features:
        raise ModelError(
            f"model={model} was built for tabular rows (B, {features}) "
            f"and was given {tuple(x.shape)}{_hint(x, features)}"
        )


def check_windows(
    model: str, x: Tensor, features: int, length: int | None = None, minimum: int = 1
) -> None:
    """Raise ModelError unless ``x`` is (B, T, features) with T as told.

    Args:
        length: The only T that the model takes, or None for any.
        minimum: The smallest T that the model takes.
    """
    if x.ndim != 3 or x.shape[2] != features or (length is not None and x.shape[1] != length):
        steps = "T" if length is None else length
        raise ModelError(
            f"model={model} was built for windows (B, {steps}, {features}) "
            f"and was given {tuple(x.shape)}{_hint(x, features)}"
        )
    if x.shape[1] < minimum:
        raise ModelError(
            f"model={model} needs windows of at least {minimum} time steps "
            f"and was given {tuple(x.shape)}: set data.window to {minimum} or more"
        )


def require_windows(model: str, sequence_length: int | None, minimum: int = 1) -> int:
    """Return the length of the windows that a model of sequences is built for.

    Raises:
        ModelError: it is built for tabular data, or for shorter windows than it takes.
    """
    if sequence_length is None:
        raise ModelError(
            f"model={model} needs sequences (B, T, F), and this data is tabular, "
            "one row a case (as with data=ai4i or features=statistics): use model=cnn or model=mlp"
        )
    if sequence_length < minimum:
        raise ModelError(
            f"model={model} needs windows of at least {minimum} time steps, "
            f"not {sequence_length}: set data.window to {minimum} or more"
        )
    return sequence_length


def _hint(x: Tensor, features: int) -> str:
    if x.ndim == 3 and x.shape[1] == features and x.shape[2] != features:
        return ": the last dimension must be the features"
    if x.ndim in (2, 3) and x.shape[-1] != features:
        return f": it has {x.shape[-1]} features, not {features}"
    return ""

"""Layers that several architectures share."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn


def dropout(rate: float) -> nn.Module:
    """Return dropout at ``rate``; at 0 the identity, which draws no random numbers."""
    return nn.Identity() if rate == 0 else nn.Dropout(rate)


def add_conv_blocks(model: nn.Module, channels: int, filters: Sequence[int]) -> None:
    """Give ``model`` layers conv1, bn1, conv2, bn2, … (kernel 3, padding 1)."""
    for number, (before, after) in enumerate(itertools.pairwise([channels, *filters]), start=1):
        model.add_module(f"conv{number}", nn.Conv1d(before, after, kernel_size=3, padding=1))
        model.add_module(f"bn{number}", nn.BatchNorm1d(after))


def convolve(model: nn.Module, x: Tensor, blocks: int, drop: nn.Module) -> Tensor:
    """Return (B, C', L // 2**blocks) from (B, C, L).

    Each block is Conv1d + BatchNorm + ReLU + MaxPool2 + dropout.
    """
    for number in range(1, blocks + 1):
        x = model.get_submodule(f"conv{number}")(x)
        x = model.get_submodule(f"bn{number}")(x).relu()
        x = drop(nn.functional.max_pool1d(x, kernel_size=2))
    return x


def add_linear_blocks(model: nn.Module, width: int, hidden: Sequence[int]) -> None:
    """Give ``model`` layers fc1, fc2, … of the sizes ``hidden`` after ``width`` inputs."""
    for number, (before, after) in enumerate(itertools.pairwise([width, *hidden]), start=1):
        model.add_module(f"fc{number}", nn.Linear(before, after))


def connect(model: nn.Module, x: Tensor, blocks: int, drop: nn.Module) -> Tensor:
    """Return (B, hidden[-1]) from (B, width). Each block is Linear + ReLU + dropout."""
    for number in range(1, blocks + 1):
        x = drop(model.get_submodule(f"fc{number}")(x).relu())
    return x

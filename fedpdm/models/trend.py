"""Levels and trends of each sensor, then fully connected layers: ours, for remaining life."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedpdm.errors import ModelError
from fedpdm.models.layers import (
    add_linear_blocks,
    check_windows,
    connect,
    dropout,
    require_sizes,
    require_windows,
)
from fedpdm.models.registry import register


@register("trend")
class TrendModel(nn.Module):
    """Few learned weightings of time, the same for every sensor, then two linear layers.

    Takes windows (B, T, F) of the length T that it was built for; returns logits (B, C).
    ``time`` (S, T) turns each sensor's window into S numbers. It starts as the means and the
    slopes of the last 1/16, 1/8, 1/4, 1/2 and all of the window, which tell a worn machine
    from noise, and is trained from there. S*F numbers, FC 128, ReLU, Dropout(.2), FC 64, ReLU,
    Dropout(.2), output. No recurrence, no normalisation: a step takes a fraction of an LSTM's
    and sites that differ share no running statistics.
    Parameters: S*T + (S*F + 1)*128 + 129*64 + 65*C, where S is 10: 21,614 at 10 features,
    2 classes and windows of 30 steps.
    Names: ``time.weight``, ``fc1``, ``fc2``, ``output``.

    Raises:
        ModelError: built for tabular data, or with a share of the window outside (0, 1];
            (forward) an input of another shape.
    """

    cheap_layers: ClassVar[bool] = True
    """Calling the layers on a CPU costs more than computing them: ``engine=auto`` stacks sites."""

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        sequence_length: int | None = 30,
        *,
        shares: Sequence[float] = (0.0625, 0.125, 0.25, 0.5, 1.0),
        hidden: Sequence[int] = (128, 64),
        dropout_rate: float = 0.2,
    ) -> None:
        super().__init__()
        require_sizes(hidden=hidden)
        length = require_windows("trend", sequence_length)
        if not shares or not all(0 < share <= 1 for share in shares):
            raise ModelError(
                f"model=trend: shares={list(shares)} must be parts of the window, each above 0 "
                "and at most 1"
            )
        self.input_dim, self.sequence_length, self.blocks = input_dim, length, len(hidden)
        start = weightings(length, shares)
        self.time = nn.Linear(length, len(start), bias=False)
        with torch.no_grad():
            self.time.weight.copy_(start)
        add_linear_blocks(self, len(start) * input_dim, hidden)
        self.drop = dropout(dropout_rate)
        self.output = nn.Linear([len(start) * input_dim, *hidden][-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, num_classes) logits of ``x``, (B, T, F)."""
        check_windows("trend", x, self.input_dim, length=self.sequence_length)
        seen = self.time(x.transpose(1, 2)).flatten(1)  # (B, F * S)
        logits: Tensor = self.output(connect(self, seen, self.blocks, self.drop))
        return logits


def weightings(length: int, shares: Sequence[float]) -> Tensor:
    """Return (2 * len(shares), length): a mean, then a slope, over each last share of time.

    A slope is the change of the least-squares line over half its share, so that it has the
    size of a level. Of a single step there is no slope: its weights start at 0 and are
    trained like the others.
    """
    means, slopes = torch.zeros(len(shares), length), torch.zeros(len(shares), length)
    for row, share in enumerate(shares):
        steps = max(1, round(share * length))
        means[row, -steps:] = 1 / steps
        centred = torch.arange(steps) - (steps - 1) / 2
        if steps > 1:
            slopes[row, -steps:] = centred / centred.square().sum() * steps / 2
    return torch.cat([means, slopes])

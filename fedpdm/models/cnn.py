"""Convolutional network of the source system (NetworkFed, OptimizedCNNModel)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from fedpdm.errors import ModelError
from fedpdm.models.layers import (
    add_conv_blocks,
    add_linear_blocks,
    check_rows,
    check_windows,
    connect,
    convolve,
    dropout,
    require_sizes,
)
from fedpdm.models.registry import register


@register("cnn")
class OptimizedCNNModel(nn.Module):
    """Three convolution blocks and three linear layers.

    Rows (B, F), F >= 8: read as one channel and convolved over the features, as in the
    source, although the order of columns means nothing. 97,666 parameters at 10 features
    and 2 classes.
    Windows (B, T, F), T >= 8: F channels, convolved over time. At 10 features and 2
    classes 98,530 parameters for T = 10, 164,066 for T = 30; in general
    96*F + 32,768*(T // 8) + 64,544 + 129*C.

    Each block is Conv1d(3, padding 1) + BatchNorm + ReLU + MaxPool2 + Dropout(.3), with
    32, 64 and 128 filters; then FC 256, 128 (ReLU, Dropout) and the output.
    Names: ``conv1 bn1 … conv3 bn3 fc1 fc2 output``. Returns logits (B, C).

    Raises:
        ModelError: too few features or steps for three poolings; (forward) another shape.
    """

    good_for: ClassVar[dict[str, str]] = {
        "spatial_dominant": "local patterns, in parallel over the window or the columns"
    }

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        sequence_length: int | None = None,
        *,
        conv_filters: Sequence[int] = (32, 64, 128),
        fc_hidden: Sequence[int] = (256, 128),
        dropout_rate: float = 0.3,
    ) -> None:
        super().__init__()
        require_sizes(conv_filters=conv_filters, fc_hidden=fc_hidden)
        tabular = sequence_length is None
        channels, length = (
            (1, input_dim) if sequence_length is None else (input_dim, sequence_length)
        )
        minimum = 2 ** len(conv_filters)
        if length < minimum:
            raise ModelError(
                f"model=cnn halves its input {len(conv_filters)} times and needs at least "
                f"{minimum} {'features' if tabular else 'time steps'}, not {length}: "
                + ("use model=mlp" if tabular else f"set data.window to {minimum} or more")
            )
        self.input_dim, self.sequence_length = input_dim, sequence_length
        self.conv_blocks, self.fc_blocks = len(conv_filters), len(fc_hidden)
        add_conv_blocks(self, channels, conv_filters)
        self.drop = dropout(dropout_rate)
        width = [channels, *conv_filters][-1] * (length // minimum)
        add_linear_blocks(self, width, fc_hidden)
        self.output = nn.Linear([width, *fc_hidden][-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, num_classes) logits of ``x``, (B, F) or (B, T, F)."""
        if self.sequence_length is None:
            check_rows("cnn", x, self.input_dim)
            x = x.unsqueeze(1)  # (B, 1, F)
        else:
            check_windows("cnn", x, self.input_dim, length=self.sequence_length)
            x = x.transpose(1, 2)  # (B, F, T)
        x = convolve(self, x, self.conv_blocks, self.drop)
        x = connect(self, x.flatten(1), self.fc_blocks, self.drop)
        logits: Tensor = self.output(x)
        return logits

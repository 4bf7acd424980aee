"""CNN-LSTM of the source system (NetworkFed, OptimizedHybridModel)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from fedpdm.models.layers import (
    add_conv_blocks,
    check_windows,
    convolve,
    dropout,
    require_sizes,
    require_windows,
)
from fedpdm.models.registry import register


@register("hybrid")
class OptimizedHybridModel(nn.Module):
    """Two convolution blocks over time, then an LSTM over what they leave.

    Takes windows (B, T, F), T >= 4, of any length; the length does not change the
    115,106 parameters (at 10 features, 2 classes). Returns logits (B, C).
    Blocks of 32 and 64 filters: Conv1d(3, padding 1) + BatchNorm + ReLU + MaxPool2 +
    Dropout(.4), which leave T // 4 steps; LSTM(64 -> 128), one layer, one direction, its
    last step; FC 64, ReLU, Dropout(.4), output.
    Names: ``conv1 bn1 conv2 bn2 lstm fc1 output``.

    Raises:
        ModelError: built for tabular data or short windows; (forward) another shape.
    """

    good_for: ClassVar[dict[str, str]] = dict.fromkeys(
        ("comprehensive_analysis", "complex_patterns"),
        "local patterns by convolution, their order by an LSTM",
    )
    encoder_names: ClassVar[tuple[str, ...]] = ("conv*", "bn*", "lstm")

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        sequence_length: int | None = 10,
        *,
        conv_filters: Sequence[int] = (32, 64),
        lstm_hidden: int = 128,
        fc_hidden: int = 64,
        dropout_rate: float = 0.4,
    ) -> None:
        super().__init__()
        require_sizes(conv_filters=conv_filters, lstm_hidden=lstm_hidden, fc_hidden=fc_hidden)
        self.minimum = 2 ** len(conv_filters)
        require_windows("hybrid", sequence_length, self.minimum)
        self.input_dim, self.conv_blocks = input_dim, len(conv_filters)
        add_conv_blocks(self, input_dim, conv_filters)
        self.drop = dropout(dropout_rate)
        self.lstm = nn.LSTM([input_dim, *conv_filters][-1], lstm_hidden, batch_first=True)
        self.fc1 = nn.Linear(lstm_hidden, fc_hidden)
        self.output = nn.Linear(fc_hidden, num_classes)

    def encode(self, x: Tensor) -> Tensor:
        """Return (B, T // 4, lstm_hidden) states of the LSTM over ``x``, (B, T, F)."""
        x = convolve(self, x.transpose(1, 2), self.conv_blocks, self.drop)  # (B, 64, T // 4)
        states: Tensor = self.lstm(x.transpose(1, 2))[0]
        return states

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, num_classes) logits of ``x``, (B, T, F)."""
        check_windows("hybrid", x, self.input_dim, minimum=self.minimum)
        x = convolve(self, x.transpose(1, 2), self.conv_blocks, self.drop)  # (B, 64, T // 4)
        _, (final, _) = self.lstm(x.transpose(1, 2))  # (1, B, H)
        hidden = self.drop(self.fc1(final[-1]).relu())
        logits: Tensor = self.output(hidden)
        return logits

"""Bidirectional LSTM of the source system (NetworkFed, OptimizedLSTMModel)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from fedpdm.models.layers import check_windows, dropout, require_sizes, require_windows
from fedpdm.models.registry import register


@register("lstm")
class OptimizedLSTMModel(nn.Module):
    """BiLSTM(F -> 64); the final states of both directions, joined, feed two linear layers.

    Takes windows (B, T, F) of any length T; the length does not change the 55,682
    parameters (at 10 features, 2 classes). Returns logits (B, C).
    (B, 128) final states, Dropout(.2), FC 128, ReLU, Dropout(.2), output.
    Names: ``lstm.weight_ih_l0`` … ``lstm.bias_hh_l0_reverse``, ``fc1``, ``output``.

    Raises:
        ModelError: built for tabular data; (forward) an input that is no window.
    """

    good_for: ClassVar[dict[str, str]] = {
        "temporal_dominant": "reads every step of a window in order, of any length"
    }
    encoder_names: ClassVar[tuple[str, ...]] = ("lstm",)

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        sequence_length: int | None = 10,
        *,
        hidden_size: int = 64,
        num_layers: int = 1,
        bidirectional: bool = True,
        fc_hidden: int = 128,
        dropout_rate: float = 0.2,
    ) -> None:
        super().__init__()
        require_sizes(hidden_size=hidden_size, num_layers=num_layers, fc_hidden=fc_hidden)
        require_windows("lstm", sequence_length)
        self.input_dim, self.bidirectional = input_dim, bidirectional
        self.lstm = nn.LSTM(
            input_dim,
            hidden_size,
            num_layers,
            batch_first=True,
            dropout=dropout_rate if num_layers > 1 else 0.0,
            bidirectional=bidirectional,
        )
        self.drop = dropout(dropout_rate)
        self.fc1 = nn.Linear(hidden_size * (2 if bidirectional else 1), fc_hidden)
        self.output = nn.Linear(fc_hidden, num_classes)

    def encode(self, x: Tensor) -> Tensor:
        """Return (B, T, 2 * hidden_size) states at each step of ``x``, (B, T, F)."""
        states: Tensor = self.lstm(x)[0]
        return states

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, num_classes) logits of ``x``, (B, T, F)."""
        check_windows("lstm", x, self.input_dim)
        _, (final, _) = self.lstm(x)  # (layers * directions, B, H)
        state = torch.cat([final[-2], final[-1]], dim=1) if self.bidirectional else final[-1]
        hidden = self.drop(self.fc1(self.drop(state)).relu())
        logits: Tensor = self.output(hidden)
        return logits

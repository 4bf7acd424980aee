"""The plain baseline: fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from fedpdm.models.layers import (
    add_linear_blocks,
    check_rows,
    check_windows,
    connect,
    dropout,
    require_sizes,
)
from fedpdm.models.registry import register


@register("mlp")
class MLP(nn.Module):
    """F-48-48-C with ReLU: 2,978 parameters at 10 features and 2 classes.

    Takes rows (B, F), or windows (B, T, F) flattened to (B, T*F); returns logits (B, C).
    Parameters: (W + 1)*48 + 49*48 + 49*C with W inputs, W = F or T*F. Windows of 10
    steps and 10 features make 7,298, of 30 steps 16,898.
    Names: ``fc1``, ``fc2``, ``output``.

    Raises:
        ModelError: (forward) an input of another shape.
    """

    good_for: ClassVar[dict[str, str]] = dict.fromkeys(
        ("fastest_training", "smallest_update"),
        "fewest parameters: 11,912 bytes an update at 10 features",
    )
    cheap_layers: ClassVar[bool] = True
    """Calling the layers on a CPU costs more than computing them: ``engine=auto`` stacks sites."""

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        sequence_length: int | None = None,
        *,
        hidden: Sequence[int] = (48, 48),
        dropout_rate: float = 0.0,
    ) -> None:
        super().__init__()
        require_sizes(hidden=hidden)
        self.input_dim, self.sequence_length, self.blocks = input_dim, sequence_length, len(hidden)
        width = input_dim * (1 if sequence_length is None else sequence_length)
        add_linear_blocks(self, width, hidden)
        self.drop = dropout(dropout_rate)
        self.output = nn.Linear([width, *hidden][-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, num_classes) logits of ``x``, (B, F) or (B, T, F)."""
        if self.sequence_length is None:
            check_rows("mlp", x, self.input_dim)
        else:
            check_windows("mlp", x, self.input_dim, length=self.sequence_length)
        logits: Tensor = self.output(connect(self, x.flatten(1), self.blocks, self.drop))
        return logits

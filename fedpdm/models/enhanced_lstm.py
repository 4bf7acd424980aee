"""BiLSTM with self-attention over its states (moola, EnhancedSimpleLSTM)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from fedpdm.errors import ModelError
from fedpdm.models.layers import check_windows, dropout, require_sizes, require_windows
from fedpdm.models.registry import register


class SelfAttention(nn.Module):
    """Multi-head attention of states on one another (Vaswani et al. 2017, section 3.2).

    The parameters of ``nn.MultiheadAttention``, 4 D² + 4 D, under its names. Its dropout of
    attention weights is a layer here, so that the stacked engine can draw it for each site.

    Args:
        width: D of a state.
        heads: divides ``width``.
        rate: of dropout on the attention weights.
    """

    def __init__(self, width: int, heads: int, rate: float) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj, self.out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj.weight)
        nn.init.zeros_(self.in_proj.bias)
        nn.init.zeros_(self.out_proj.bias)
        self.drop = dropout(rate)

    def extra_repr(self) -> str:
        return f"heads={self.heads}"

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, D) of ``x``, (B, T, D)."""
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.in_proj(x).chunk(3, dim=2)
        )
        scores = query @ key.transpose(2, 3) / query.shape[3] ** 0.5
        mixed = self.drop(functional.softmax(scores, dim=3)) @ value  # (B, heads, T, D / heads)
        result: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return result


@register("enhanced_lstm")
class EnhancedLSTM(nn.Module):
    """BiLSTM(F -> 128), attention over its states, and a head on the last state.

    Takes windows (B, T, F) of any length T: 409,186 parameters with one layer and 804,450 with
    two, at 4 features and 2 classes. Returns logits (B, C). LSTM, x + 2-head attention(x),
    LayerNorm, last step, FC 32, ReLU, Dropout(.2), output.
    Names: ``lstm.…``, ``attention.in_proj``, ``attention.out_proj``, ``norm``, ``fc1``, ``output``.

    Raises:
        ModelError: built for tabular data, or ``heads`` does not divide the states; (forward) an
            input that is no window.
    """

    encoder_names: ClassVar[tuple[str, ...]] = ("lstm",)

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        sequence_length: int | None = 105,
        *,
        hidden_size: int = 128,
        num_layers: int = 1,
        heads: int = 2,
        fc_hidden: int = 32,
        dropout_rate: float = 0.2,
        attention_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        require_sizes(
            hidden_size=hidden_size, num_layers=num_layers, heads=heads, fc_hidden=fc_hidden
        )
        require_windows("enhanced_lstm", sequence_length)
        width = 2 * hidden_size
        if width % heads:
            raise ModelError(
                f"model.config.heads={heads} must divide 2 x hidden_size = {width}, the two "
                "directions' states"
            )
        self.input_dim = input_dim
        self.lstm = nn.LSTM(
            input_dim,
            hidden_size,
            num_layers,
            batch_first=True,
            dropout=dropout_rate if num_layers > 1 else 0.0,
            bidirectional=True,
        )
        self.attention = SelfAttention(width, heads, attention_dropout)
        self.norm = nn.LayerNorm(width)
        self.drop = dropout(dropout_rate)
        self.fc1 = nn.Linear(width, fc_hidden)
        self.output = nn.Linear(fc_hidden, num_classes)

    def encode(self, x: Tensor) -> Tensor:
        """Return (B, T, 2 * hidden_size) states at each step of ``x``, (B, T, F)."""
        states: Tensor = self.lstm(x)[0]
        return states

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, num_classes) logits of ``x``, (B, T, F)."""
        check_windows("enhanced_lstm", x, self.input_dim)
        states = self.encode(x)
        last = self.norm(states + self.attention(states))[:, -1]
        logits: Tensor = self.output(self.drop(self.fc1(last).relu()))
        return logits

"""Encoder of many sensors, numbers and codes, that also learns to take noise away.

The layout is the one that the source document states (gcode-training-results, MM-DTAE-LSTM); its
code has another (reference in docs/decisions/031-programs-from-sensors.md), so no count of its
parameters is claimed. Shapes: B windows, T time steps, F features, of which C are numbers and the
others codes; M the width of the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedpdm.errors import ModelError
from fedpdm.models.layers import check_windows, dropout, require_sizes, require_windows
from fedpdm.models.registry import register

EMBEDDING = 4


class Encoder(nn.Module):
    """(B, T, F) windows to (B, T, M) memory.

    Numbers: Linear(C -> width), LayerNorm, ReLU. Codes: an embedding each, joined,
    Linear(-> width), LayerNorm, ReLU. Both are added and read by a BiLSTM; M = 2 * hidden_size.

    Args:
        input_dim: F.
        levels: (F,) how many values a code has, 0 for a number; empty: all are numbers.
        width: of the fused layer.
        hidden_size: of each direction of the LSTM.
        num_layers: of the LSTM.
        embedding_dim: of a code.
        dropout_rate: between the layers of the LSTM.

    Raises:
        ModelError: ``levels`` does not describe F features, or none of them is a number.
    """

    numbers: Tensor
    codes: Tensor

    def __init__(
        self,
        input_dim: int,
        levels: Sequence[int] = (),
        width: int = 128,
        hidden_size: int = 64,
        num_layers: int = 2,
        embedding_dim: int = EMBEDDING,
        dropout_rate: float = 0.2,
    ) -> None:
        super().__init__()
        require_sizes(
            width=width, hidden_size=hidden_size, num_layers=num_layers,
            embedding_dim=embedding_dim,
        )  # fmt: skip
        levels = [*levels] or [0] * input_dim
        if len(levels) != input_dim or min(levels) < 0 or max(levels) > 10_000:
            raise ModelError(
                f"model.config.levels={levels} must say for each of the {input_dim} features how "
                "many values its code has, 0 where it is a number"
            )
        numbers = [place for place, count in enumerate(levels) if count == 0]
        codes = [place for place, count in enumerate(levels) if count > 0]
        if not numbers:
            raise ModelError("model.config.levels: at least one feature must be a number (0)")
        self.counts = [levels[place] for place in codes]
        self.idle = (
            [f"model.config.embedding_dim={embedding_dim}: no feature of the data is a code"]
            if not codes and embedding_dim != EMBEDDING else []
        )  # fmt: skip
        self.register_buffer("numbers", torch.tensor(numbers), persistent=False)
        self.register_buffer("codes", torch.tensor(codes, dtype=torch.long), persistent=False)
        self.reading = nn.Linear(len(numbers), width)
        self.reading_norm = nn.LayerNorm(width)
        if codes:
            self.embeddings = nn.ModuleList(nn.Embedding(n, embedding_dim) for n in self.counts)
            self.state = nn.Linear(len(codes) * embedding_dim, width)
            self.state_norm = nn.LayerNorm(width)
        self.lstm = nn.LSTM(
            width, hidden_size, num_layers, batch_first=True, bidirectional=True,
            dropout=dropout_rate if num_layers > 1 else 0.0,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, M) memory of ``x``, (B, T, F)."""
        fused = self.reading_norm(self.reading(self.readings(x))).relu()
        if self.counts:
            found = []
            for number, (count, embed) in enumerate(zip(self.counts, self.embeddings, strict=True)):
                code = x.index_select(-1, self.codes[number : number + 1]).squeeze(-1)
                found.append(embed(code.detach().round().clamp(0, count - 1).long()))
            fused = fused + self.state_norm(self.state(torch.cat(found, dim=-1))).relu()
        memory: Tensor = self.lstm(fused)[0]
        return memory

    def readings(self, x: Tensor) -> Tensor:
        """Return (B, T, C): what of ``x`` are numbers."""
        return x.index_select(-1, self.numbers)

    def noisy(self, x: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
        """Return ``x`` with white noise on its numbers.

        Args:
            x: (B, T, F).
            deviation: of the noise, in the units of ``x``.
            generator: on the CPU; the only source of chance.
        """
        size = (*x.shape[:-1], len(self.numbers))
        noise = torch.randn(size, generator=generator, dtype=x.dtype).to(x.device)
        return x.index_add(-1, self.numbers, noise, alpha=deviation)


@register("sensor_encoder")
class SensorEncoder(nn.Module):
    """The encoder with a head that tells the regime (the class) of a window.

    Takes windows (B, T, F) of any length; returns logits (B, num_classes). The memory is pooled by
    a softmax over time (the source's code), then FC 128, ReLU, output. With ``reconstructs`` an
    LSTM(M -> 64) and a linear layer rebuild the numbers, for
    ``fedpdm.training.denoising.Denoising``; a plain loss would leave them untrained.
    Names: ``encoder.reading`` … ``encoder.lstm``, ``pool``, ``fc1``, ``output``, ``restore``,
    ``restored``.

    Raises:
        ModelError: built for tabular data or wrong ``levels``; (forward) an input that is no
            window.
    """

    encoder_names: ClassVar[tuple[str, ...]] = ("encoder",)
    """Where the tensors are that another model with such an encoder can start from."""

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        sequence_length: int | None = 64,
        *,
        levels: Sequence[int] = (),
        width: int = 128,
        hidden_size: int = 64,
        num_layers: int = 2,
        embedding_dim: int = EMBEDDING,
        fc_hidden: int = 128,
        dropout_rate: float = 0.2,
        reconstructs: bool = False,
    ) -> None:
        super().__init__()
        require_sizes(fc_hidden=fc_hidden)
        require_windows("sensor_encoder", sequence_length)
        self.input_dim, self.reconstructs = input_dim, reconstructs
        self.encoder = Encoder(
            input_dim, levels, width, hidden_size, num_layers, embedding_dim, dropout_rate
        )
        self.idle = self.encoder.idle
        self.pool = nn.Linear(2 * hidden_size, 1, bias=False)  # a softmax takes a bias away
        self.drop = dropout(dropout_rate)
        self.fc1 = nn.Linear(2 * hidden_size, fc_hidden)
        self.output = nn.Linear(fc_hidden, num_classes)
        if reconstructs:
            self.restore = nn.LSTM(2 * hidden_size, hidden_size, batch_first=True)
            self.restored = nn.Linear(hidden_size, len(self.encoder.numbers))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, num_classes) logits of ``x``, (B, T, F)."""
        check_windows("sensor_encoder", x, self.input_dim)
        return self.classify(self.encoder(x))

    def encode(self, x: Tensor) -> Tensor:
        """Return the (B, T, M) memory of ``x``, (B, T, F)."""
        memory: Tensor = self.encoder(x)
        return memory

    def classify(self, memory: Tensor) -> Tensor:
        """Return (B, num_classes) logits of a (B, T, M) memory."""
        pooled = (self.pool(memory).softmax(dim=1) * memory).sum(dim=1)
        logits: Tensor = self.output(self.drop(self.fc1(pooled).relu()))
        return logits

    def denoised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, num_classes) logits and the (B, T, C) numbers of ``x`` as they are rebuilt."""
        check_windows("sensor_encoder", x, self.input_dim)
        memory = self.encoder(x)
        return self.classify(memory), self.restored(self.restore(memory)[0])

"""The HVAC hybrid on a patch mixer: readings and statistics, a head for each horizon."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedpdm.errors import ModelError
from fedpdm.models.layers import check_windows, dropout, require_sizes, require_windows
from fedpdm.models.mixer import LowRank, MixerEncoder
from fedpdm.models.registry import register

PATCH = 8
"""Time steps of a patch, as in the source."""
FUSIONS = ("concat", "cross_attention", "none")
RANK, ALPHA, DROPPED = 8, 16.0, 0.1
"""Of adapters, and of dropout in the encoder, unless a config says otherwise."""


class Attention(nn.Module):
    """Multi-head attention of queries over tokens. The keys have no bias: softmax cancels it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, 1 / math.sqrt(width // heads)
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Return (B, Q, D) of ``queries``, (B, Q, D), over ``tokens``, (B, N, D)."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, queries), (self.key, tokens), (self.value, tokens))
        )
        weights = (q @ k.transpose(-1, -2) * self.scale).softmax(dim=-1)  # (B, heads, Q, N)
        found: Tensor = self.out((weights @ v).transpose(1, 2).flatten(2))
        return found


class CrossAttention(nn.Module):
    """Fusion of v2.2.2: each sensor's statistics look at the patches, in both widths.

    The source let one vector look at one other, so that its softmax was 1 and its queries and
    keys were dead. Here the tokens are the patches, of which there are two at least.
    """

    def __init__(self, width: int, statistics: int, heads: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(statistics, width), nn.Linear(width, statistics)
        self.wide, self.narrow = Attention(width, heads), Attention(statistics, heads)
        self.wide_norm, self.narrow_norm = nn.LayerNorm(width), nn.LayerNorm(statistics)

    def forward(self, summary: Tensor, tokens: Tensor, statistics: Tensor) -> Tensor:
        """Return (B, M * (D + K)) of (B, M, D), (B, N, D) and (B, M, K) of M sensors."""
        queries = summary + self.up(statistics)
        wide = self.wide_norm(queries + self.wide(queries, tokens))
        narrow = self.narrow_norm(statistics + self.narrow(statistics, self.down(tokens)))
        return torch.cat([wide, narrow], dim=2).flatten(1)


class Heads(nn.Module):
    """A head of its own for each output: Linear, ReLU, dropout, Linear to one number."""

    def __init__(self, width: int, hidden: int, count: int, rate: float) -> None:
        super().__init__()
        self.drop = dropout(rate)
        near, far = 1 / math.sqrt(width), 1 / math.sqrt(hidden)  # as nn.Linear draws its own
        self.hidden_weight = nn.Parameter(torch.empty(count, width, hidden).uniform_(-near, near))
        self.hidden_bias = nn.Parameter(torch.empty(count, 1, hidden).uniform_(-near, near))
        self.weight = nn.Parameter(torch.empty(count, hidden).uniform_(-far, far))
        self.bias = nn.Parameter(torch.empty(count).uniform_(-far, far))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, count) of (B, width)."""
        hidden: Tensor = self.drop((x.unsqueeze(0) @ self.hidden_weight + self.hidden_bias).relu())
        return (hidden * self.weight.unsqueeze(1)).sum(dim=2).transpose(0, 1) + self.bias


@register("mixer_hybrid")
class MixerHybrid(nn.Module):
    """Mixer encoder, attention over channels and patches, fusion with statistics, heads.

    Takes windows (B, T, F): ``sensors`` channels of readings, then the statistics of
    ``features=both``, which are the same at every step. Returns logits (B, C), a head each.
    Every channel is cut in patches of 8 steps and mixed by the same encoder; each gets an
    embedding of its own, and its newest patch looks at the patches of all channels (4 heads), so
    that sensors stay apart. Fusion: Linear to 128, LayerNorm, ReLU, Dropout(.3); heads 128-64-1.

    The encoder is trained here; it is no pretrained foundation model. With
    ``freeze_encoder`` it keeps the weights it starts with and stays in evaluation mode, and
    low-rank adapters are trained in its place: start it from a run that was pretrained, because
    random weights that nobody trains teach nothing.
    Names: ``encoder``, ``adapters``, ``channel``, ``attention``, ``fusion``, ``shared`` and
    ``output``.

    Args:
        input_dim: F.
        num_classes: C.
        sequence_length: T.
        sensors: how many of the F inputs are readings; None: all (a run fills it in).
        fusion: ``concat`` (v2.2), ``cross_attention`` (v2.2.2), or ``none`` (v2.3), which does
            not look at statistics.
        patch: steps of a patch; None: 8, or half of a window that is shorter than two.
        width: D of a token.
        num_layers: of the encoder.
        heads: of every attention.
        hidden_size: of the shared layer; a head's hidden layer has half of it.
        freeze_encoder: whether the encoder stays as it is.
        lora_rank: of the adapters of a frozen encoder; 0: none.
        lora_alpha: of the adapters.
        dropout_rate: after the shared layer and in the heads.
        encoder_dropout: in an encoder that is trained.

    Raises:
        ModelError: built for tabular data, for windows of fewer than two patches, or with
            settings that do not fit together; (forward) an input of another shape.
    """

    encoder_names: ClassVar[tuple[str, ...]] = ("encoder",)

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        sequence_length: int | None = 90,
        *,
        sensors: int | None = None,
        fusion: str = "concat",
        patch: int | None = None,
        width: int = 64,
        num_layers: int = 4,
        heads: int = 4,
        hidden_size: int = 128,
        freeze_encoder: bool = False,
        lora_rank: int = RANK,
        lora_alpha: float = ALPHA,
        dropout_rate: float = 0.3,
        encoder_dropout: float = DROPPED,
    ) -> None:
        super().__init__()
        steps = require_windows("mixer_hybrid", sequence_length)
        patch = max(1, min(PATCH, steps // 2)) if patch is None else patch
        require_sizes(
            patch=patch, width=width, num_layers=num_layers, heads=heads, hidden_size=hidden_size
        )
        self.input_dim, self.steps = input_dim, steps
        self.sensors = input_dim if sensors is None else sensors
        self._check(fusion, width, heads, lora_rank)
        self.statistics = 0 if fusion == "none" else input_dim - self.sensors
        self.frozen = freeze_encoder
        self.encoder = MixerEncoder(steps, patch, width, num_layers, encoder_dropout)
        self.encoder.requires_grad_(not freeze_encoder)
        self.adapters = nn.ModuleList(
            LowRank(layer, lora_rank, lora_alpha)
            for layer in self.encoder.adapted()
            if freeze_encoder and lora_rank
        )
        self.channel = nn.Parameter(torch.randn(self.sensors, 1, width) * 0.02)
        self.attention, self.norm = Attention(width, heads), nn.LayerNorm(width)
        self.fusion: CrossAttention | None = None
        joined = self.sensors * width + self.statistics
        if fusion == "cross_attention":
            each = self.statistics // self.sensors
            self.fusion = CrossAttention(width, each, heads)
            joined = self.sensors * (width + each)
        self.shared, self.shared_norm = nn.Linear(joined, hidden_size), nn.LayerNorm(hidden_size)
        self.drop = dropout(dropout_rate)
        self.output = Heads(hidden_size, max(1, hidden_size // 2), num_classes, dropout_rate)
        self.idle = self._idle(fusion, lora_rank, lora_alpha, encoder_dropout)

    def _idle(
        self, fusion: str, lora_rank: int, lora_alpha: float, encoder_dropout: float
    ) -> list[str]:
        """Return a sentence for each setting that is without effect beside the others."""
        said, unread = [], self.input_dim - self.sensors
        if fusion != "none" and not unread:
            said.append(
                f"model.config.fusion={fusion} has no statistics to join: features=both computes "
                "them, fusion=none does without"
            )
        if fusion == "none" and unread:
            said.append(
                f"model.config.fusion=none does not look at {unread} of the {self.input_dim} "
                "inputs: features=raw computes readings only, fusion=concat looks at all"
            )
        if not self.frozen and lora_rank not in (0, RANK):
            said.append(
                f"model.config.lora_rank={lora_rank}: only a frozen encoder has adapters; "
                "model.config.freeze_encoder=true freezes it"
            )
        if not self.adapters and lora_alpha != ALPHA:
            said.append(
                f"model.config.lora_alpha={lora_alpha}: there are no adapters; "
                "model.config.freeze_encoder=true adds them, with lora_rank above 0"
            )
        if self.frozen and encoder_dropout != DROPPED:
            said.append(
                f"model.config.encoder_dropout={encoder_dropout}: a frozen encoder drops nothing; "
                "freeze_encoder=false trains it"
            )
        return said

    def _check(self, fusion: str, width: int, heads: int, lora_rank: int) -> None:
        """Refuse settings that do not fit together."""
        if fusion not in FUSIONS:
            raise ModelError(
                f"model.config.fusion={fusion} is unknown; choose one of {', '.join(FUSIONS)}"
            )
        if not 1 <= self.sensors <= self.input_dim:
            raise ModelError(
                f"model.config.sensors={self.sensors} must be at least 1 and at most the "
                f"{self.input_dim} inputs"
            )
        if width % heads:
            raise ModelError(f"model.config.width={width} must be a multiple of heads={heads}")
        if lora_rank < 0:
            raise ModelError(f"model.config.lora_rank={lora_rank} must be at least 0")
        each, rest = divmod(self.input_dim - self.sensors, self.sensors)
        if fusion == "cross_attention" and (not each or rest or each % heads):
            raise ModelError(
                "model.config.fusion=cross_attention takes the same statistics of every sensor, as "
                f"many as a multiple of heads={heads}, and has {self.input_dim - self.sensors} of "
                f"{self.sensors} sensors: use features=both without limits, or fusion=concat"
            )

    def train(self, mode: bool = True) -> MixerHybrid:
        """Set the mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    @property
    def apart(self) -> tuple[int, int]:
        """Patches of a channel, and steps of each: channel by channel, a token for every patch."""
        return self.encoder.patches, self.encoder.patch

    def encode(self, x: Tensor) -> Tensor:
        """Return (B, sensors * patches, width) tokens of ``x``, (B, T, F)."""
        changes = [adapter() for adapter in self.adapters] if self.adapters else None
        apart: Tensor = self.encoder(x[:, :, : self.sensors], changes)
        return apart.flatten(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, num_classes) logits of ``x``, (B, T, F)."""
        check_windows("mixer_hybrid", x, self.input_dim, length=self.steps)
        # Not by len(x): torch.export would take it for a constant.
        shape = (-1, self.sensors, self.encoder.patches, self.channel.shape[2])
        apart = self.encode(x).reshape(shape) + self.channel
        tokens, newest = apart.flatten(1, 2), apart[:, :, -1]
        summary = self.norm(newest + self.attention(newest, tokens))  # (B, sensors, width)
        joined = summary.flatten(1)
        if self.statistics:
            statistics = x[:, -1, self.sensors :]
            if self.fusion is None:
                joined = torch.cat([joined, statistics], dim=1)
            else:
                each = statistics.reshape(-1, self.sensors, self.statistics // self.sensors)
                joined = self.fusion(summary, tokens, each)
        logits: Tensor = self.output(self.drop(self.shared_norm(self.shared(joined)).relu()))
        return logits

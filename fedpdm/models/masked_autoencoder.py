"""Masked autoencoder: any encoder, pretrained by rebuilding readings that it did not see."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedpdm.errors import ModelError
from fedpdm.models.encoders import build_encoder, tokens_of
from fedpdm.models.layers import check_windows, require_sizes, require_windows
from fedpdm.models.registry import register

MASKINGS = ("random", "block", "patch", "last")
PATCH = 7
BITS = 16
"""Coins of which a random number is made."""
ERRORS = 4
"""Columns of the output: the model's error and three others, as ``tasks.reconstruction`` names."""


@register("masked_autoencoder")
class MaskedAutoencoder(nn.Module):
    """An encoder, and a small decoder that rebuilds hidden time steps from its tokens.

    Takes windows (B, T, F) and returns (B, C) mean squared errors of each window, over its
    hidden readings: that of the model, and for comparison of three guesses that need no
    training, the first C of them. The training mean is 0, because readings are scaled; the last
    reading seen before; and the straight line between the readings seen before and after. Where
    there is none before or after, the guess is the one on the other side.

    In training a share of the steps is drawn and replaced by a learned token: single steps
    (``random``), one ``block``, patches of ``patch`` steps, or the ``last`` steps, which is a
    forecast. In evaluation the steps are hidden in turn, so that each counts once and nothing
    is drawn; ``last`` always hides the same.

    The layout is that of the source document (moola-decision-log): 566,408 parameters for a
    BiLSTM of 2 x 128 at 4 inputs. Decoder: LayerNorm, Linear(D -> 128), GELU, Linear(128 -> F);
    where there are N tokens for T other steps, a Linear(N -> T) over the tokens comes first.
    Where the encoder keeps channels apart (``apart``), each token rebuilds its own patch of its
    own channel, Linear(128 -> steps of a patch); what comes before the first patch is the mean.
    Names: ``encoder.…`` as in the encoder's own model, ``mask_token``, ``norm``, ``fc1``,
    ``output``, ``spread``.

    Args:
        input_dim: F.
        num_classes: C, at most 4.
        sequence_length: T.
        encoder: name of a model that has an encoder.
        settings: of that model, which must be those of the model that is to take it over.
        masking: what is hidden.
        share: how much of a window is hidden, at least one step of it.
        patch: steps of a patch.
        decoder_hidden: width of the decoder.
        spread_weight: weight of relu(1 - deviation of a window's tokens), which the source adds to
            the training loss against an encoder that says the same of everything. The source
            takes the deviation over the batch; here no window's loss depends on another.

    Raises:
        ModelError: no such encoder, tabular data, or a setting out of its range; (forward) an
            input of another shape.
    """

    good_for: ClassVar[None] = None
    encoder_prefix: ClassVar[str] = "encoder."
    folds: Tensor

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        sequence_length: int | None = 30,
        *,
        encoder: str = "lstm",
        settings: Mapping[str, Any] = {},
        masking: str = "random",
        share: float = 0.15,
        patch: int = PATCH,
        decoder_hidden: int = 128,
        spread_weight: float = 0.0,
    ) -> None:
        super().__init__()
        require_sizes(patch=patch, decoder_hidden=decoder_hidden)
        self.steps = require_windows("masked_autoencoder", sequence_length, minimum=2)
        if masking not in MASKINGS:
            raise ModelError(
                f"model.config.masking={masking} is unknown; choose one of {', '.join(MASKINGS)}"
            )
        if not 0 < share < 1:
            raise ModelError(f"model.config.share={share} must be above 0 and below 1")
        if not 1 <= num_classes <= ERRORS:
            raise ModelError(
                "model=masked_autoencoder gives errors of reconstruction, not "
                f"{num_classes} outputs: use task=reconstruction"
            )
        self.input_dim, self.errors, self.spread_weight = input_dim, num_classes, spread_weight
        self.masking, self.patch = masking, patch if masking == "patch" else 1
        self.units = math.ceil(self.steps / self.patch)  # what is hidden or seen as a whole
        self.hidden = min(max(1, round(share * self.units)), self.units - 1)
        if self.hidden < 1:
            raise ModelError(
                f"model.config.patch={patch} leaves nothing to see of a window of {self.steps}"
            )
        self.encoder = build_encoder(encoder, input_dim, sequence_length, settings)
        tokens, width = tokens_of(self.encoder, self.steps, input_dim)
        self.mask_token = nn.Parameter(torch.randn(input_dim) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.apart: tuple[int, int] | None = getattr(self.encoder, "apart", None)
        in_place = self.apart is not None or tokens == self.steps
        self.spread = nn.Identity() if in_place else nn.Linear(tokens, self.steps)
        self.fc1 = nn.Linear(width, decoder_hidden)
        self.output = nn.Linear(decoder_hidden, self.apart[1] if self.apart else input_dim)
        self.coin = nn.Dropout(0.5)  # the one layer that draws alike on every engine
        self.register_buffer("folds", self._folds(), persistent=False)
        self.idle = (
            [f"model.config.patch={patch}: model.config.masking=patch hides patches"]
            if masking != "patch" and patch != PATCH else []
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C) errors of ``x``, (B, T, F)."""
        check_windows("masked_autoencoder", x, self.input_dim, length=self.steps)
        if self.training:
            mask = self._drawn(x)
            rebuilt, tokens = self.rebuild(x, mask)
            error, *others = self._errors(x, rebuilt, mask)
            if self.spread_weight:
                deviation = tokens.flatten(1).std(dim=1)
                error = error + self.spread_weight * (1 - deviation).relu()
            return torch.stack([error, *others][: self.errors], dim=1)
        total = x.new_zeros(x.shape[0], self.errors)
        for fold in self.folds:
            mask = fold.expand(x.shape[0], -1)
            found = self._errors(x, self.rebuild(x, mask)[0], mask)
            total = total + torch.stack(found[: self.errors], dim=1) * fold.sum()
        return total / self.folds.sum()

    def rebuild(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, T, F) rebuilt windows and (B, N, D) tokens; nothing hidden is looked at.

        Args:
            x: (B, T, F).
            mask: (B, T) bool, which steps are hidden.
        """
        tokens: Tensor = self.encoder.encode(  # type: ignore[operator]
            torch.where(mask.unsqueeze(-1), self.mask_token, x)
        )
        steps = self.spread(self.norm(tokens).transpose(1, 2)).transpose(1, 2)
        rebuilt: Tensor = self.output(functional.gelu(self.fc1(steps)))
        if self.apart is not None:
            patches, size = self.apart
            rebuilt = rebuilt.reshape(-1, self.input_dim, patches * size).transpose(1, 2)
            rebuilt = functional.pad(rebuilt, (0, 0, self.steps - patches * size, 0))
        return rebuilt, tokens

    def _errors(self, x: Tensor, rebuilt: Tensor, mask: Tensor) -> list[Tensor]:
        """Return (B,) mean squared errors over hidden readings: the model's, and the guesses'."""
        weight = mask.to(x.dtype) / mask.sum(dim=1, keepdim=True)
        own = ((rebuilt - x).square().mean(dim=2) * weight).sum(dim=1)
        if self.errors == 1:
            return [own]
        place = torch.arange(self.steps, device=x.device)
        before = torch.where(mask, -1, place).cummax(dim=1).values
        after = torch.where(mask, self.steps, place).flip(1).cummin(dim=1).values.flip(1)
        none_before, none_after = before < 0, after >= self.steps
        before = torch.where(none_before, after, before)
        after = torch.where(none_after, before, after)
        left, right = (x.gather(1, at.unsqueeze(-1).expand_as(x)) for at in (before, after))
        way = ((place - before) / (after - before).clamp_min(1)).unsqueeze(-1).to(x.dtype)
        guesses = (torch.zeros_like(x), left, left + way * (right - left))
        return [
            own, *(((guess - x).square().mean(dim=2) * weight).sum(dim=1) for guess in guesses)
        ]  # fmt: skip

    def _drawn(self, x: Tensor) -> Tensor:
        """Return (B, T) bool: steps that are hidden in training."""
        place = torch.arange(self.steps, device=x.device)
        if self.masking == "last":
            return (place >= self.steps - self.hidden).expand(x.shape[0], -1)
        if self.masking == "block":
            free = self.steps - self.hidden + 1
            begin = (self._uniform(x, 1) * free).floor()
            return (place >= begin) & (place < begin + self.hidden)
        chosen = self._uniform(x, self.units).topk(self.hidden, dim=1).indices
        unit = torch.arange(self.units, device=x.device)
        mask = (unit.unsqueeze(0).unsqueeze(0) == chosen.unsqueeze(-1)).any(dim=1)
        return mask.repeat_interleave(self.patch, dim=1)[:, : self.steps]

    def _uniform(self, x: Tensor, count: int) -> Tensor:
        """Return (B, count) numbers from [0, 1), drawn for each site and step on its own."""
        coins = self.coin(x.new_ones(x.shape[0], count, BITS)) > 0
        worth = 0.5 ** torch.arange(1, BITS + 1, device=x.device, dtype=x.dtype)
        numbers: Tensor = (coins * worth).sum(dim=-1)
        return numbers

    def _folds(self) -> Tensor:
        """Return (K, T) bool: what evaluation hides in each of its passes."""
        if self.masking == "last":
            return (torch.arange(self.steps) >= self.steps - self.hidden).unsqueeze(0)
        passes = math.ceil(self.units / self.hidden)
        unit = torch.arange(self.units)
        number = unit // self.hidden if self.masking == "block" else unit % passes
        if self.masking == "random":  # neighbours may be hidden together, as in training
            number = number[torch.randperm(self.units, generator=torch.Generator().manual_seed(0))]
        number = number.repeat_interleave(self.patch)[: self.steps]
        return number.unsqueeze(0) == torch.arange(passes).unsqueeze(1)

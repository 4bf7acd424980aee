"""A patch mixer in the layout of TinyTimeMixer, and low-rank adapters for its layers.

Our own implementation of the encoder of the HVAC hybrid system (tk-yasuno/
tsfm_attention_multitask, 307d6c1; Ekambaram et al. 2024, "Tiny Time Mixers"). It is trained
here: it holds no weights of a pretrained foundation model. Shapes: B windows, C channels,
T time steps, P patches, S steps of a patch, D width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedpdm.errors import ModelError
from fedpdm.models.layers import dropout

Changes = Iterator[Tensor | None]
"""What adapters add to the weights of the encoder's linear layers, in their order."""


def linear(layer: nn.Linear, x: Tensor, change: Tensor | None) -> Tensor:
    """Return what a linear layer makes of ``x`` with ``change`` added to its weight."""
    if change is None:
        unchanged: Tensor = layer(x)
        return unchanged
    changed: Tensor = functional.linear(x, layer.weight + change, layer.bias)
    return changed


class GatedMixer(nn.Module):
    """x + g(MLP(norm(x))), mixed over patches or over width, with g(h) = n * h * softmax(W h).

    The source has no factor n, the number of gates: all gates are 1 / n at first there, so that
    a layer of width 64 adds a 64th of what it computes, and gets as little of the gradient.
    Parameters: 2*D of the norm, and 5*n² + 4*n of the layers for n values that are mixed.
    """

    def __init__(self, width: int, mixed: int, rate: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(mixed, 2 * mixed), nn.Linear(2 * mixed, mixed)
        self.gate = nn.Linear(mixed, mixed)
        self.drop = dropout(rate)

    def forward(self, x: Tensor, changes: Changes, over_patches: bool) -> Tensor:
        """Return (B, C, P, D) of the same; takes three of ``changes``."""
        h: Tensor = self.norm(x)
        h = h.transpose(-1, -2) if over_patches else h
        h = self.drop(functional.gelu(linear(self.fc1, h, next(changes))))
        h = self.drop(linear(self.fc2, h, next(changes)))
        h = h * linear(self.gate, h, next(changes)).softmax(dim=-1) * h.shape[-1]
        return x + (h.transpose(-1, -2) if over_patches else h)


class MixerEncoder(nn.Module):
    """Patches of every channel, embedded and mixed: the same weights for all channels.

    Parameters: (S + 1)*D + layers * (4*D + 5*P² + 4*P + 5*D² + 4*D): 87,140 in the source's
    layout of 11 patches of 8 steps, width 64, 4 layers. Unlike the source's, it does not divide a
    window by its own deviation: level and scale, which tell a worn machine, survive.

    Args:
        steps: T; what is left over at a window's start, T % S, is not seen.
        patch: S.
        width: D.
        layers: how often patches and width are mixed.
        rate: of dropout.

    Raises:
        ModelError: a window has fewer than two patches.
    """

    def __init__(self, steps: int, patch: int, width: int, layers: int, rate: float) -> None:
        super().__init__()
        self.patch, self.patches = patch, steps // patch
        if self.patches < 2:
            smaller = f", or model.config.patch to {steps // 2} or less" if steps > 1 else ""
            raise ModelError(
                f"model=mixer_hybrid mixes patches of model.config.patch={patch} time steps, and a "
                f"window of {steps} has fewer than two: set data.window to {2 * patch} or "
                f"more{smaller}"
            )
        self.patcher = nn.Linear(patch, width)
        self.layers = nn.ModuleList(
            nn.ModuleList([GatedMixer(width, self.patches, rate), GatedMixer(width, width, rate)])
            for _ in range(layers)
        )

    def forward(self, x: Tensor, changes: Iterable[Tensor] | None = None) -> Tensor:
        """Return (B, C, P, D) of ``x``, (B, T, C).

        Args:
            x: windows.
            changes: what adapters add to the weights of ``adapted``, in their order.
        """
        given: Changes = itertools.repeat(None) if changes is None else iter(changes)
        seen = x[:, x.shape[1] - self.patches * self.patch :].transpose(1, 2)
        cut = seen.reshape(*seen.shape[:2], self.patches, self.patch)
        tokens = linear(self.patcher, cut, next(given))
        for pair in self.layers:
            over_patches, over_width = pair.children()
            tokens = over_width(over_patches(tokens, given, True), given, False)
        return tokens

    def adapted(self) -> list[nn.Linear]:
        """Return the linear layers in the order in which they are used: those with adapters."""
        return [module for module in self.modules() if isinstance(module, nn.Linear)]


class LowRank(nn.Module):
    """LoRA (Hu et al. 2021): adds (alpha / r) * up @ down to a weight, nothing at first.

    ``down`` (r, I) gets no gradient in the first step, because ``up`` (O, r) starts at zero.
    The source's dropout before ``down`` is left out, so that one product serves base and adapter.

    Args:
        layer: whose (O, I) weight is changed.
        rank: r.
        alpha: scale.
    """

    def __init__(self, layer: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, layer.in_features))
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self) -> Tensor:
        """Return the (O, I) change."""
        change: Tensor = self.up @ self.down * self.scale
        return change

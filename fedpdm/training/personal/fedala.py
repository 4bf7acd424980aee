"""FedALA: a site mixes its last model with the received one, each weight in its own share.

Zhang, Hua, Wang, Song, Xue, Ma, Guan 2023, FedALA: Adaptive Local Aggregation for Personalized
Federated Learning (AAAI), algorithm 1. Before a site trains, the layers near the
output start from

    Θ̂_k = Θ_k + (Θ_t − Θ_k) ⊙ W_k
    W_k ← W_k − η·∇F_k(Θ̂_k) ⊙ (Θ_t − Θ_k)          within 0 and 1

and the layers below from the received Θ_t itself. Θ_k is what the site came to when it last took
part. W_k starts as ones, is learnt on a share of the site's windows until the loss stays the same
the first time, and in one pass from then on. Then the site trains Θ̂_k, sends it, and keeps it: it
is its personal model until it takes part again. In a site's first round this is FedAvg.

A site remembers a whole model and W_k of the upper layers; messages are those of FedAvg. Use it
where what is common lies in the lower layers, and sites' answers differ.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fedpdm.seeding import torch_generator, torch_seeded
from fedpdm.training.loop import batches
from fedpdm.training.objective import LocalContext
from fedpdm.training.personal.base import (
    MODEL,
    Personal,
    aside,
    check_option,
    keep,
    personal,
    recalled,
    trained,
    work_of,
)

WEIGHTS = "weights"
STILL, LOOKS = 1e-3, 5
"""The first time, learning ends when the mean losses of so many passes differ by less than this
share, which replaces the paper's threshold: that depends on the scale of the loss."""


@personal("fedala")
class FedALA(Personal):
    """Changes what a site's training starts from.

    Args:
        layers: how many of the last layers with parameters have weights of their own.
        rate: η, of the weights.
        share: of the training windows that they are learnt on, in percent of 1.
        first_passes: at most so many passes the first time.
    """

    def __init__(
        self, layers: int = 1, rate: float = 1.0, share: float = 0.8, first_passes: int = 20
    ) -> None:
        check_option("layers", layers, 1, 1000)
        check_option("rate", rate, 0, 1e6)
        check_option("share", share, 0, 1, open=True)
        check_option("first_passes", first_passes, 1, 1000)
        self.layers, self.rate = layers, float(rate)
        self.share, self.first_passes = float(share), first_passes

    def begin(self, model: nn.Module, context: LocalContext) -> None:
        super().begin(model, context)
        self._weights: dict[str, Tensor] = {}
        last = recalled(context, MODEL)
        if last:
            self._weights = self._learnt(model, last, context)

    def end(self, model: nn.Module, context: LocalContext) -> None:
        super().end(model, context)
        keep(context, MODEL, model.state_dict())
        keep(context, WEIGHTS, self._weights)

    def _learnt(
        self, model: nn.Module, last: dict[str, Tensor], context: LocalContext
    ) -> dict[str, Tensor]:
        """Return W, and leave the mixture in the model."""
        work, names = work_of(context), upper(model, self.layers)
        named = {name: p for name, p in trained(model).items() if name in names}
        common = {name: p.detach().clone() for name, p in named.items()}
        gaps = {name: common[name] - last[name] for name in named}
        known = recalled(context, WEIGHTS)
        weights = {
            n: known[n].clone() if n in known else torch.ones_like(g) for n, g in gaps.items()
        }
        buffers = {name: b.clone() for name, b in model.named_buffers()}

        def mix() -> None:
            with torch.no_grad():
                for name, parameter in named.items():
                    parameter.copy_(last[name] + gaps[name] * weights[name])

        mix()
        if any(bool(gap.any()) for gap in gaps.values()):
            drawn = torch_generator(work.seed, "personal", *work.key)
            size = max(1, round(self.share * len(work.x)))
            rows = torch.randperm(len(work.x), generator=drawn)[:size]
            losses: list[float] = []
            model.train()
            with torch_seeded(work.seed, "personal", *work.key):
                for _ in range(1 if known else self.first_passes):
                    total = 0.0
                    for index in batches(size, work.settings.batch_size, drawn):
                        chosen = rows[index]
                        x, y = work.x[chosen], work.y[chosen]
                        loss = self.base.loss(model, x, y, aside(context))
                        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
                        for name, gradient in zip(named, found, strict=True):
                            if gradient is not None:
                                weights[name] -= self.rate * gradient * gaps[name]
                                weights[name].clamp_(0, 1)
                        mix()
                        total += float(loss.detach()) * len(chosen)
                    losses.append(total / size)
                    recent = losses[-LOOKS:]
                    if len(recent) == LOOKS and np.ptp(recent) <= STILL * abs(np.mean(recent)):
                        break
        for name, buffer in model.named_buffers():  # of the received model
            buffer.copy_(buffers[name])
        return weights


def upper(model: nn.Module, layers: int) -> set[str]:
    """Return the names of the parameters of the last layers that have any."""
    found = [prefix for prefix, layer in model.named_modules() if layer._parameters]
    chosen = set(found[-layers:])
    return {n for n, _ in model.named_parameters() if n.rpartition(".")[0] in chosen}

"""MOON: a site's features stay near the received model's and move away from its own last model's.

Li, He and Song 2021, Model-Contrastive Federated Learning (CVPR), eq. 3 and algorithm 1. With z,
z_t and z_p the features of a window by the model in training, the received one and the one that
this site came to last,

    ℓ_con = −log( e^{sim(z, z_t)/τ} / (e^{sim(z, z_t)/τ} + e^{sim(z, z_p)/τ}) )
    loss  = base + μ·ℓ_con

with sim the cosine. Features are what the last layer (``output``) gets; the paper has a projection
head of two layers there, ours adds none, so the model and its messages stay the same. Both other
models are in eval mode. A site that trains for the first time has no last model (in the paper it is
the received one, where ℓ_con has no gradient): it trains by the base. μ = 0 is the base, bit for
bit.

Use it where sites' inputs differ. It costs two more forward passes a step, and each site remembers
a whole model, which the history keeps; nothing more travels. Networks alone and pooled train by the
base.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedpdm.training.objective import LocalContext, Objective
from fedpdm.training.objectives.wrapping import (
    OfOtherModels,
    check_share,
    features,
    head_of,
    outputs_and_features,
    still,
)

__all__ = ["Moon"]

KEPT = "moon."
"""How the names begin of what a site remembers: a personal model may lie beside it."""


class Moon(OfOtherModels):
    """A supervised loss and the model-contrastive term.

    Args:
        mu: μ, weight of the term; 0: none.
        temperature: τ, the smaller the more the nearest features count.
        base: the supervised loss; None: the task's own.

    Raises:
        ConfigError: a value out of its range; (check_model) a model without features.
    """

    def __init__(
        self, mu: float = 1.0, temperature: float = 0.5, base: Objective | None = None
    ) -> None:
        check_share("mu", mu)
        check_share("temperature", temperature, zero=False)
        super().__init__(base)
        self.mu, self.temperature = float(mu), float(temperature)
        self.received: nn.Module | None = None
        self.previous: nn.Module | None = None

    def check_model(self, model: nn.Module) -> None:
        head_of(model)

    def begin(self, model: nn.Module, context: LocalContext) -> None:
        self.received = self.previous = None
        last = {n.removeprefix(KEPT): t for n, t in context.memory.items() if n.startswith(KEPT)}
        if last and self.mu:
            self.received = still(model, context.received)
            self.previous = still(model, last)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        if self.received is None or self.previous is None:
            return self.base.loss(model, x, y, context)
        output, z = outputs_and_features(model, x)
        contrast = contrastive(
            z, features(self.received, x), features(self.previous, x), self.temperature
        )
        return self.base.loss_function(output, y) + self.mu * contrast

    def end(self, model: nn.Module, context: LocalContext) -> None:
        self.received = self.previous = None  # a stored engine does not carry models along
        if self.mu:
            own = {f"{KEPT}{n}": t.detach().clone() for n, t in model.state_dict().items()}
            context.memory.update(own)


def contrastive(z: Tensor, near: Tensor, far: Tensor, temperature: float) -> Tensor:
    """Return the mean of ℓ_con over (B, D) features."""
    with_received = functional.cosine_similarity(z, near, dim=1)
    with_previous = functional.cosine_similarity(z, far, dim=1)
    logits = torch.stack([with_received, with_previous], dim=1) / temperature
    return functional.cross_entropy(logits, torch.zeros(len(z), dtype=torch.long, device=z.device))

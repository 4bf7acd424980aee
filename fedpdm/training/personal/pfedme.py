"""pFedMe: every site's personal model is the best one near its copy of the shared model.

Dinh, Tran, Nguyen 2020, Personalized Federated Learning with Moreau Envelopes (NeurIPS),
algorithm 1. Sites minimise F_k(w) = min_θ f_k(θ) + (λ/2)·‖θ − w‖² together. On each batch a site
makes K plain steps of length δ on the inner problem, then one on the envelope:

    θ_k ← θ_k − δ·(∇f_k(θ_k) + λ·(θ_k − w_k))      K times
    w_k ← w_k − η·λ·(w_k − θ_k)
    w   ← (1 − β)·w_t + β·mean_S w_k               at the server

In a round θ_k starts as the received model, and goes on from batch to batch. The personal model is
θ_k after the last one. η is training.learning_rate, δ and K are ``inner_rate`` and ``inner_steps``;
η·λ well below 1 and δ·(λ + curvature) below 2 are stable.

A site remembers θ_k and works out K gradients for each batch; messages are those of FedAvg. The
formulas are of plain steps, so the yaml sets training.optimizer=sgd. Ours deviates: the server's
mean is weighted by examples as FedAvg's; what training.clip_norm clips is the step of w_k.

Use it where its three rates can be tuned for the model at hand. Ditto has the same aim with less to
tune, and was ahead of it where both were measured (docs/personalisation.md).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fedpdm.errors import ConfigError
from fedpdm.tasks.base import Task
from fedpdm.training.loop import TrainingSettings
from fedpdm.training.objective import LocalContext
from fedpdm.training.personal.base import (
    MODEL,
    Personal,
    check_option,
    keep,
    personal,
    trained,
)


@personal("pfedme")
class PFedMe(Personal):
    """The sites' half; the server's is FedAvg, with β as its learning rate.

    Args:
        weight: λ: the larger, the nearer personal models stay to the shared one.
        inner_steps: K.
        inner_rate: δ.
    """

    optimizers = ("sgd",)

    def __init__(
        self, weight: float = 15.0, inner_steps: int = 5, inner_rate: float = 0.05
    ) -> None:
        check_option("weight", weight, 0, 1e6, open=True)
        check_option("inner_steps", inner_steps, 1, 1000)
        check_option("inner_rate", inner_rate, 0, 1000, open=True)
        self.weight, self.inner_steps, self.inner_rate = weight, inner_steps, inner_rate

    def check(self, task: Task, settings: TrainingSettings) -> None:
        super().check(task, settings)
        if settings.learning_rate * self.weight >= 2:
            raise ConfigError(
                f"personal.weight={self.weight:g} times training.learning_rate="
                f"{settings.learning_rate:g} must be below 2: w would move away from θ; lower one"
            )

    def begin(self, model: nn.Module, context: LocalContext) -> None:
        super().begin(model, context)
        self._own = copy.deepcopy(model)

    def backward(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        self._own.train()
        named, shared = trained(self._own), trained(model)
        for _ in range(self.inner_steps):
            loss = self.base.loss(self._own, x, y, context)
            gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            with torch.no_grad():
                for (name, own), gradient in zip(named.items(), gradients, strict=True):
                    if gradient is not None:
                        step = gradient + self.weight * (own - shared[name])
                        own.sub_(step, alpha=self.inner_rate)
        with torch.no_grad():
            for name, parameter in shared.items():
                parameter.grad = self.weight * (parameter - named[name])
        return loss.detach()

    def end(self, model: nn.Module, context: LocalContext) -> None:
        super().end(model, context)
        # Running statistics are those of the windows that θ saw: w itself sees none.
        for mine, common in zip(self._own.buffers(), model.buffers(), strict=True):
            common.copy_(mine)
        keep(context, MODEL, self._own.state_dict())

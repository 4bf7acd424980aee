"""APFL: every site mixes a model of its own with the shared one, in a share that it learns.

Deng, Kamani, Mahdavi 2020, Adaptive Personalized Federated Learning (arXiv:2003.13461),
algorithm 1 with the adaptive share. Beside its copy w_k of the shared model, which FedAvg
combines, a site keeps v_k and a share α_k. With v̄_k = α_k·v_k + (1 − α_k)·w_k, each step on a
batch is

    w_k ← w_k − η·∇F_k(w_k)
    v_k ← v_k − η·α_k·∇F_k(v̄_k)                    the gradient of F_k(v̄_k) in v_k
    α_k ← α_k − η_α·⟨v_k − w_k, ∇F_k(v̄_k)⟩         within 0 and 1, if ``adaptive``

all from the values before the step. The personal model is v̄_k, with the shared model of the round
in the place of w_k. α = 0 is FedAvg, α = 1 a site by itself. v_k starts as the shared model.

A site remembers v_k and α_k, and works out two gradients a step; messages are those of FedAvg.
Ours deviates: v_k moves by the run's optimizer (the paper's is plain SGD: training.optimizer=sgd),
its gradient is clipped as that of w_k, and α has a rate of its own, since Adam's rates are small.

Use it where some sites are like the others and some are not, and nobody knows which: each learns
its own share.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fedpdm.seeding import torch_seeded
from fedpdm.training.objective import LocalContext
from fedpdm.training.optimizers import OPTIMIZERS, Rule
from fedpdm.training.personal.base import (
    MODEL,
    Personal,
    Steps,
    aside,
    check_option,
    keep,
    personal,
    recalled,
    trained,
    with_tensors,
    work_of,
)

SHARE = "share"


@personal("apfl")
class APFL(Personal):
    """Trains v_k and α_k while the shared model is trained.

    Args:
        alpha: the share of the site's own model, at first.
        adaptive: let each site learn its share.
        alpha_rate: η_α; None for the learning rate of the step.
    """

    def __init__(
        self, alpha: float = 0.5, adaptive: bool = True, alpha_rate: float | None = None
    ) -> None:
        check_option("alpha", alpha, 0, 1)
        check_option("alpha_rate", 1.0 if alpha_rate is None else alpha_rate, 0, 1e6)
        self.alpha, self.adaptive, self.alpha_rate = float(alpha), bool(adaptive), alpha_rate

    def begin(self, model: nn.Module, context: LocalContext) -> None:
        super().begin(model, context)
        work = work_of(context)
        kept, share = recalled(context, MODEL), recalled(context, SHARE)
        self._own = with_tensors(model, kept) if kept else copy.deepcopy(model)
        self._mixed = copy.deepcopy(self._own)
        self._share = float(share["alpha"]) if share else self.alpha
        own = list(trained(self._own).values())
        self._rule: Rule = OPTIMIZERS[work.settings.optimizer](own, work.settings.weight_decay)
        self._steps = Steps(work)

    def backward(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        loss = super().backward(model, x, y, context)
        work, step = work_of(context), self._steps.done
        rate = work.settings.rate(work.first_epoch + self._steps.next())
        mix(self._mixed, self._own, model, self._share)
        self._mixed.train()
        # Draws of its own: the shared model's are those of FedAvg.
        with torch_seeded(work.seed, "personal", *work.key, step):
            self.base.losses(self._mixed, x, y, aside(context)).mean().backward()  # type: ignore[no-untyped-call]
        slope, own, shared = 0.0, trained(self._own), trained(model)
        for name, parameter in trained(self._mixed).items():
            gradient, parameter.grad = parameter.grad, None
            if gradient is None:
                continue
            slope += float(torch.sum((own[name] - shared[name]).detach() * gradient))
            own[name].grad = self._share * gradient
        if work.settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(list(own.values()), work.settings.clip_norm)
        self._rule.step(rate)
        for parameter in own.values():
            parameter.grad = None
        if self.adaptive:
            step_size = rate if self.alpha_rate is None else self.alpha_rate
            self._share = min(max(self._share - step_size * slope, 0.0), 1.0)
        return loss

    def end(self, model: nn.Module, context: LocalContext) -> None:
        super().end(model, context)
        keep(context, MODEL, {**self._mixed.state_dict(), **trained(self._own)})
        keep(context, SHARE, {"alpha": torch.tensor([self._share], dtype=torch.float64)})

    def module(self, model: nn.Module, context: LocalContext) -> nn.Module:
        own = recalled(context, MODEL)
        if not own:
            return model
        kept, mixed = with_tensors(model, own), with_tensors(model, own)
        mix(mixed, kept, model, float(recalled(context, SHARE)["alpha"]))
        return mixed


def mix(target: nn.Module, own: nn.Module, shared: nn.Module, share: float) -> None:
    """Set a model's parameters to share·own + (1 − share)·shared."""
    parts = (target.parameters(), own.parameters(), shared.parameters())
    with torch.no_grad():
        for parameter, mine, common in zip(*parts, strict=True):
            parameter.copy_(share * mine + (1.0 - share) * common)

"""MAPPER: a site answers with the mean of the shared model's answer and that of one of its own.

Mansour, Mohri, Ro, Suresh 2020, Three Approaches for Personalization with Applications to Federated
Learning (arXiv:2002.10619), section 5, model interpolation: site k answers

    h_k(x) = λ·h_l(x) + (1 − λ)·h_c(x)

where h_c is the shared model and h_l one that only the site trains. h_c is FedAvg's, h_l is trained
on from where it was, each time that the site takes part. Use it where a site alone is about as good
as the shared model: two models that err in different ways err less together. λ = 0 is FedAvg, λ = 1
a site by itself.

A site remembers a whole model, trains twice and predicts twice; messages are those of FedAvg, bit
for bit. Ours deviates: λ is a setting, the same at each site; the paper fits one for each, and both
models to the mean. Answers are what enters the loss: logits, or a remaining life.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedpdm.training.objective import LocalContext
from fedpdm.training.personal.base import (
    MODEL,
    check_option,
    keep,
    personal,
    recalled,
    with_tensors,
)
from fedpdm.training.personal.ditto import Ditto

SHARE = "share"


@personal("mapper")
class MAPPER(Ditto):
    """Ditto without a pull, and a mean of two answers.

    Args:
        share: λ, of the site's own model.
    """

    def __init__(self, share: float = 0.5) -> None:
        check_option("share", share, 0, 1)
        super().__init__(weight=0.0)
        self.share = float(share)

    def personalise(self, model: nn.Module, context: LocalContext) -> None:
        super().personalise(model, context)
        keep(context, SHARE, {"lambda": torch.tensor([self.share], dtype=torch.float64)})

    def module(self, model: nn.Module, context: LocalContext) -> nn.Module:
        own = recalled(context, MODEL)
        if not own:
            return model
        return Mean(model, with_tensors(model, own), float(recalled(context, SHARE)["lambda"]))


class Mean(nn.Module):
    """(B, …) inputs to (B, C) outputs: share·own + (1 − share)·shared.

    Args:
        shared: the shared model.
        own: the site's.
        share: of the site's.
    """

    def __init__(self, shared: nn.Module, own: nn.Module, share: float) -> None:
        super().__init__()
        self.shared, self.own, self.share = shared, own, share

    def forward(self, x: Tensor) -> Tensor:
        mean: Tensor = self.share * self.own(x) + (1 - self.share) * self.shared(x)
        return mean

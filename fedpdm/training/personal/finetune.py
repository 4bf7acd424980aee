"""Local fine-tuning: every site trains the shared model further on its own rows, and keeps it.

The baseline of all personal methods (Wang et al. 2019, Federated Evaluation of On-device
Personalization; Cheng, Chadha, Duchi 2021, Fine-tuning is Fine). The shared model is FedAvg's. Each
time that a new one is evaluated, a site makes E epochs on its own training windows from there:

    v_k ← w_t,   then   v_k ← v_k − η·∇F_k(v_k)   for E epochs

With ``stop=best`` it keeps the epoch, 0 among them, whose loss on its validation windows is lowest,
so that a site that fine-tuning would hurt keeps the shared model; with ``stop=last`` the last one.

A site remembers the fine-tuned model of the round, so that the final test and ``predict --site``
have it. Nothing is sent beside what FedAvg sends; a round takes E more epochs. Use it first of all
personal methods: another one must beat it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from fedpdm.errors import ConfigError
from fedpdm.training.loop import fit
from fedpdm.training.objective import LocalContext
from fedpdm.training.personal.base import (
    MODEL,
    Personal,
    aside,
    check_option,
    keep,
    personal,
    with_tensors,
    work_of,
)


@personal("finetune")
class FineTune(Personal):
    """Trains a received model further before it is evaluated.

    Args:
        epochs: E; None for as many as a round has.
        stop: ``best`` keeps the epoch with the lowest validation loss, ``last`` the last one.
        learning_rate: factor of the round's learning rate.
    """

    personalises = "evaluate"
    together = True

    def __init__(
        self,
        epochs: int | None = None,
        stop: Literal["best", "last"] = "best",
        learning_rate: float = 1.0,
    ) -> None:
        check_option("epochs", 1 if epochs is None else epochs, 1, 10_000)
        check_option("learning_rate", learning_rate, 0, 1000, open=True)
        if stop not in ("best", "last"):
            raise ConfigError(f"personal.stop={stop} is unknown; choose best or last")
        self.epochs, self.stop, self.factor = epochs, stop, float(learning_rate)

    def personalise(self, model: nn.Module, context: LocalContext) -> None:
        work = work_of(context)
        own = with_tensors(model, model.state_dict())
        best = (math.inf, {n: t.clone() for n, t in own.state_dict().items()})

        def look(epoch: int) -> None:
            nonlocal best
            assert work.validation is not None
            x, y = work.validation
            loss = self.base.mean_loss(own, x, y, aside(context))
            if loss < best[0]:
                best = (loss, {n: t.clone() for n, t in own.state_dict().items()})
            own.train()

        rate = work.settings.learning_rate * self.factor
        settings = replace(work.settings, learning_rate=rate)
        choose = self.stop == "best" and work.validation is not None and len(work.validation[0]) > 0
        if choose:
            look(0)
        fit(
            own, work.x, work.y, self.base, settings, seed=work.seed,
            key=("personal", *work.key), epochs=self.epochs or work.epochs,
            first_epoch=work.first_epoch, received=context.received,
            memory=aside(context).memory, after_epoch=look if choose else None,
        )  # fmt: skip
        found = best[1] if choose else own.state_dict()
        if all(bool(torch.isfinite(t).all()) for t in found.values()):
            keep(context, MODEL, found)

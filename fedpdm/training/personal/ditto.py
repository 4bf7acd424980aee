"""Ditto: every site trains a personal model beside the shared one, pulled towards it.

Li, Hu, Beirami, Smith 2021, Ditto: Fair and Robust Federated Learning Through Personalization
(ICML), algorithm 1. The shared model w is FedAvg's. Site k keeps v_k and, each time that it
takes part, makes steps on F_k(v_k) + (λ/2)·‖v_k − w_t‖² from where v_k was:

    v_k ← v_k − η·(∇F_k(v_k) + λ·(v_k − w_t))

w_t is the model that it received. With λ = 0 a site learns by itself; the larger λ is, the nearer
it stays to the shared model. Before it took part for the first time, v_k is the shared model.

A site remembers v_k, a whole model, and trains twice; messages are those of FedAvg, bit for bit.
The personal steps use the run's optimizer (the paper's are plain ones: training.optimizer=sgd).
Use it where sites differ and each has enough rows to train on.
"""

from __future__ import annotations

from torch import nn

from fedpdm.training.loop import fit
from fedpdm.training.objective import LocalContext
from fedpdm.training.personal.base import (
    MODEL,
    Personal,
    aside,
    check_option,
    keep,
    personal,
    pull,
    recalled,
    with_tensors,
    work_of,
)


@personal("ditto")
class Ditto(Personal):
    """The personal half; the shared model needs none.

    Args:
        weight: λ, how strongly the personal model is pulled towards the shared one.
        epochs: of the personal model in a round; None for as many as the shared one has.
    """

    personalises = "train"
    together = True

    def __init__(self, weight: float = 0.1, epochs: int | None = None) -> None:
        check_option("weight", weight, 0, 1e6)
        check_option("epochs", 1 if epochs is None else epochs, 1, 10_000)
        self.weight, self.epochs = float(weight), epochs

    def personalise(self, model: nn.Module, context: LocalContext) -> None:
        work = work_of(context)
        own = with_tensors(model, recalled(context, MODEL))
        term = pull(self.weight, {**model.state_dict(), **context.received}, own)
        fit(
            own, work.x, work.y, self.base, work.settings, seed=work.seed,
            key=("personal", *work.key), epochs=self.epochs or work.epochs,
            first_epoch=work.first_epoch, terms=[] if term is None else [term],
            received=context.received, memory=aside(context).memory,
        )  # fmt: skip
        keep(context, MODEL, own.state_dict())

"""Optimizers by name: torch's own update rules, without torch's Optimizer class.

Creating the first ``torch.optim.Optimizer`` imports ``torch._dynamo``, which takes longer
(about two seconds) than a whole default federation trains. The functions behind the
classes need no such import and give the same bits; ``tests/training/test_optimizers.py`` holds
them against the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd


class Optimizer(Protocol):
    """Updates parameters from their ``grad``."""

    def step(self, rate: float) -> None:
        """Make one step at a learning rate."""


class Adam:
    """Adam (Kingma & Ba 2015) with L2 decay, fused: a sixth faster on a CPU at these sizes."""

    def __init__(self, parameters: Sequence[Tensor], weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._decay = weight_decay
        self._means = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters]
        self._steps = [torch.zeros((), device=p.device) for p in self._parameters]

    def step(self, rate: float) -> None:
        live = [i for i, p in enumerate(self._parameters) if p.grad is not None]
        with torch.no_grad():
            adam(
                [self._parameters[i] for i in live],
                [g for i in live if (g := self._parameters[i].grad) is not None],
                [self._means[i] for i in live],
                [self._squares[i] for i in live],
                [],
                [self._steps[i] for i in live],
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=rate,
                weight_decay=self._decay,
                eps=1e-8,
                maximize=False,
            )


class SGD:
    """Plain stochastic gradient descent with L2 decay, as some strategies' theory needs."""

    def __init__(self, parameters: Sequence[Tensor], weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._decay = weight_decay

    def step(self, rate: float) -> None:
        live = [p for p in self._parameters if p.grad is not None]
        with torch.no_grad():
            sgd(
                live,
                [g for p in live if (g := p.grad) is not None],
                [None] * len(live),
                foreach=True,
                weight_decay=self._decay,
                momentum=0.0,
                lr=rate,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )


OPTIMIZERS: dict[str, type[Adam] | type[SGD]] = {"adam": Adam, "sgd": SGD}

"""Optimizers by name: torch's own update functions, without torch's Optimizer class.

Creating the first ``torch.optim.Optimizer`` imports ``torch._dynamo``, which takes longer
(about two seconds) than a whole default federation trains. The functions behind the
classes need no such import and give the same bits; ``tests/training/test_optimizers.py`` holds
them against the classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd


class Rule(ABC):
    """An update rule.

    Args:
        parameters: what it updates, from their ``grad``.
        weight_decay: L2 decay.
    """

    def __init__(self, parameters: Sequence[Tensor], weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._decay = weight_decay

    @abstractmethod
    def step(self, rate: float) -> None:
        """Make one step at a learning rate."""


class Adam(Rule):
    """Adam (Kingma & Ba 2015) with L2 decay, fused: a sixth faster on a CPU at these sizes."""

    def __init__(self, parameters: Sequence[Tensor], weight_decay: float) -> None:
        super().__init__(parameters, weight_decay)
        self._means = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters]
        self._steps = [torch.zeros((), device=p.device) for p in self._parameters]

    def step(self, rate: float) -> None:
        live = [i for i, p in enumerate(self._parameters) if p.grad is not None]
        parameters, means, squares, steps = (
            [values[i] for i in live]
            for values in (self._parameters, self._means, self._squares, self._steps)
        )
        gradients = [p.grad for p in parameters if p.grad is not None]
        with torch.no_grad():
            adam(
                parameters,
                gradients,
                means,
                squares,
                [],
                steps,
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=rate,
                weight_decay=self._decay,
                eps=1e-8,
                maximize=False,
            )


class SGD(Rule):
    """Plain stochastic gradient descent with L2 decay, as some strategies' theory needs."""

    def step(self, rate: float) -> None:
        live = [p for p in self._parameters if p.grad is not None]
        gradients = [p.grad for p in live if p.grad is not None]
        with torch.no_grad():
            sgd(
                live,
                gradients,
                [None] * len(live),
                foreach=True,
                weight_decay=self._decay,
                momentum=0.0,
                lr=rate,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )


OPTIMIZERS: dict[str, type[Rule]] = {"adam": Adam, "sgd": SGD}

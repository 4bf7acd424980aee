"""kNN-Per: a site asks its own memory of windows, and mixes the answer with the shared model's.

Marfoq, Neglia, Kameni, Vidal 2022, Personalized Federated Learning through Local Memorization
(ICML). The shared model is FedAvg's; φ(x) is what enters its last layer. A site
keeps φ and the class of its training windows. Of the k that are nearest to φ(x) it makes

    h_knn(y|x) ∝ Σ_i 1{y = y_i}·exp(−‖φ(x) − φ(x_i)‖)
    p(y|x)     = λ_k·h_knn(y|x) + (1 − λ_k)·h_w(y|x)

λ_k is the one of 0, 0.1, …, 1 with the lowest loss on the site's validation windows; 0 is the
shared model. Nothing is trained: the memory is made again from each model that is evaluated, so it
answers for machines that the site has never seen, too.

A site keeps at most ``capacity`` windows, each as long as φ: with model=lstm 512 bytes, in the
history of every round: the run folder of a simulation then holds features of the sites' rows. At
a deployed site they stay there. Messages are those of FedAvg. For tasks of one class per window.

Use it where training a model for each site is too much, or sites change: the memory is renewed by
a pass over the windows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fedpdm.errors import ConfigError
from fedpdm.models.policy import Body
from fedpdm.tasks.base import Task
from fedpdm.tasks.cross_entropy import CrossEntropy
from fedpdm.training.loop import TrainingSettings
from fedpdm.training.objective import LocalContext
from fedpdm.training.personal.base import (
    Personal,
    aside,
    check_option,
    keep,
    personal,
    recalled,
    work_of,
)

MEMORY = "memory"
GRID = tuple(round(0.1 * step, 1) for step in range(11))
LEAST = 1e-12
"""Probabilities are not smaller, so that their logarithm is finite."""


@personal("knnper")
class KNNPer(Personal):
    """Fills a memory before a model is evaluated.

    Args:
        neighbours: k.
        capacity: the most windows that a site keeps, drawn if it has more.
    """

    personalises = "evaluate"
    together = True

    def __init__(self, neighbours: int = 10, capacity: int = 2000) -> None:
        check_option("neighbours", neighbours, 1, 10_000)
        check_option("capacity", capacity, 1, 1_000_000)
        self.neighbours, self.capacity = neighbours, capacity

    def check(self, task: Task, settings: TrainingSettings) -> None:
        super().check(task, settings)
        if not isinstance(task, CrossEntropy):
            raise ConfigError(
                f"strategy=knnper mixes probabilities of classes, and task={task.name} has none "
                "per window; choose task=failure, or another strategy"
            )

    def personalise(self, model: nn.Module, context: LocalContext) -> None:
        work = work_of(context)
        order = torch.randperm(len(work.x), generator=context.generator)[: self.capacity]
        chosen = order.sort().values.to(work.x.device)
        found = [features(model, part) for part in torch.split(work.x[chosen], 1024)]
        memory = {
            "features": torch.cat(found), "classes": work.y[chosen],
            "neighbours": torch.tensor([self.neighbours]), "share": torch.zeros(1),
        }  # fmt: skip
        if work.validation is not None and len(work.validation[0]):
            x, y = work.validation
            model.eval()
            with torch.no_grad():
                parts = [answers(model, memory, part) for part in torch.split(x, 1024)]
            remembered, known = (torch.cat(each) for each in zip(*parts, strict=True))
            losses = [
                self.base.mean_loss(model, x, y, aside(context), mixed(remembered, known, share))
                for share in GRID
            ]
            memory["share"] = torch.tensor([GRID[int(np.argmin(losses))]])
        keep(context, MEMORY, memory)

    def module(self, model: nn.Module, context: LocalContext) -> nn.Module:
        memory = recalled(context, MEMORY)
        return Remembering(model, memory) if memory else model


class Remembering(nn.Module):
    """A model mixed with a memory: (B, …) inputs to (B, C) logarithms of probabilities.

    Args:
        model: gives (B, C) logits.
        memory: ``features`` (M, H), ``classes`` (M,), ``neighbours`` (1,), ``share`` (1,).
    """

    def __init__(self, model: nn.Module, memory: dict[str, Tensor]) -> None:
        super().__init__()
        self.model, self.memory = model, memory

    def forward(self, x: Tensor) -> Tensor:
        return mixed(*answers(self.model, self.memory, x), float(self.memory["share"]))


def answers(model: nn.Module, memory: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, C) probabilities that a memory gives, and those that its model gives."""
    asked, logits = looked_into(model, x)
    kept, known = memory["features"], logits.softmax(dim=1)
    many = min(int(memory["neighbours"]), len(kept))
    near = torch.cdist(asked, kept.to(asked.dtype)).topk(many, dim=1, largest=False)
    classes = memory["classes"][near.indices]
    weights = (-near.values).softmax(dim=1)
    return torch.zeros_like(known).scatter_add_(1, classes, weights), known


def mixed(remembered: Tensor, known: Tensor, share: float) -> Tensor:
    """Return (B, C) logarithms of the mixture's probabilities."""
    return (share * remembered + (1 - share) * known).clamp_min(LEAST).log()


def features(model: nn.Module, x: Tensor) -> Tensor:
    """Return (B, H) of what enters the last layer, in eval mode."""
    model.eval()
    with torch.no_grad():
        return looked_into(model, x)[0]


def looked_into(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, H) of what enters a model's last layer, and the model's outputs."""
    names = Body().local(model)
    output = any(name.partition(".")[0] == "output" for name in names)
    head = model.get_submodule("output" if output else next(iter(names)).rpartition(".")[0])
    entered: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda layer, given: entered.append(given[0].flatten(1)))
    try:
        result: Tensor = model(x)
    finally:
        hook.remove()
    return entered[0], result

"""The local training loop, as functions of (model, data, seed, settings). No Flower, no Hydra.

One loop serves a site's local epochs, a site alone and the pooled baseline, so that they
differ in nothing but data and initial weights.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedpdm.errors import ConfigError
from fedpdm.seeding import torch_generator, torch_seeded
from fedpdm.training.freezing import Freezing, released
from fedpdm.training.objective import LocalContext, LocalWork, Objective
from fedpdm.training.optimizers import OPTIMIZERS, Rule

GradientTerm = Callable[[Sequence[Tensor], Sequence[Tensor]], None]
"""Adds a strategy's local term to ``parameter.grad``, given parameters and received ones."""

Memory = Mapping[str, Sequence[Tensor]]
"""What a site remembers for a strategy: groups by name, in each a tensor per parameter."""


@runtime_checkable
class SiteTerm(Protocol):
    """A term that differs from site to site, because each remembers something else."""

    @property
    def key(self) -> str:
        """Under which the site's memory for it is kept."""

    def term(self, received: Sequence[Tensor], memory: Memory) -> GradientTerm | None:
        """Return the term of a site, or of K sites at once.

        Args:
            received: the received parameters.
            memory: tensors of the parameters' shapes; for K sites with a first dimension K.
        """


@dataclass(frozen=True)
class TrainingSettings:
    """How a site trains in a round. Defaults come from the model's yaml.

    The learning rate of an epoch is ``learning_rate`` times a factor; ``epoch`` counts over
    rounds, (round - 1) * local_epochs + local epoch:

    - ``step``: gamma ** (epoch // step_size), torch's StepLR;
    - ``cosine``: (1 + cos(pi * epoch / epochs)) / 2 (Loshchilov & Hutter 2017, eq. 5, one cycle);
    - ``constant``: 1.

    Attributes:
        local_epochs: passes over a site's data in a round.
        batch_size: examples in a step.
        learning_rate: of the first epoch.
        weight_decay: factor of the L2 term.
        clip_norm: the longest gradient; None for no clipping.
        optimizer: a name in ``OPTIMIZERS``.
        step_size: epochs between two falls of the rate.
        gamma: what the rate is multiplied by at each.
        schedule: how the rate falls, a name in ``SCHEDULES``.
        epochs: of the whole run; ``cosine`` needs it.
        amp: compute the loss in mixed precision (bfloat16); weights and steps stay float32.
        freezing: of the encoder; None trains all tensors alike.

    Raises:
        ConfigError: a value is out of its range or unknown.
    """

    local_epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.0
    clip_norm: float | None = None
    optimizer: str = "adam"
    step_size: int = 10
    gamma: float = 0.5
    schedule: str = "step"
    epochs: int | None = None
    amp: bool = False
    freezing: Freezing | None = None

    def __post_init__(self) -> None:
        for name in ("local_epochs", "batch_size", "step_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"training.{name}={getattr(self, name)} must be at least 1")
        if not self.learning_rate > 0:
            raise ConfigError(f"training.learning_rate={self.learning_rate} must be above 0")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ConfigError(
                f"training.clip_norm={self.clip_norm} must be above 0, or null for no clipping"
            )
        if self.weight_decay < 0:
            raise ConfigError(f"training.weight_decay={self.weight_decay} must not be negative")
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(
                f"training.optimizer={self.optimizer} is unknown; there are {', '.join(OPTIMIZERS)}"
            )
        if self.schedule not in SCHEDULES:
            raise ConfigError(
                f"training.schedule={self.schedule} is unknown; choose one of {list(SCHEDULES)}"
            )

    def rate(self, epoch: int) -> float:
        """Return the learning rate of a global epoch, counted from 0."""
        return float(self.learning_rate * SCHEDULES[self.schedule](self, epoch))

    def rates(self, count: int, epochs: int, first_epoch: int = 0) -> list[float]:
        """Return the learning rate of every step that ``fit`` makes on ``count`` examples."""
        steps = len(batch_sizes(count, self.batch_size))
        return [self.rate(first_epoch + epoch) for epoch in range(epochs) for _ in range(steps)]


def _cosine(settings: TrainingSettings, epoch: int) -> float:
    if settings.epochs is None:
        raise ConfigError("training.schedule=cosine needs the number of epochs of the whole run")
    return (1 + math.cos(math.pi * min(epoch / settings.epochs, 1.0))) / 2


SCHEDULES: dict[str, Callable[[TrainingSettings, int], float]] = {
    "step": lambda settings, epoch: settings.gamma ** (epoch // settings.step_size),
    "cosine": _cosine,
    "constant": lambda settings, epoch: 1.0,
}
"""The factor of the learning rate in a global epoch, by name."""


def batch_sizes(count: int, size: int) -> list[int]:
    """Return the sizes of the batches that ``batches`` makes of ``count`` examples."""
    full, rest = divmod(count, size)
    if rest == 1 and full:
        return [size] * (full - 1) + [size + 1]
    return [size] * full + ([rest] if rest else [])


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield shuffled index batches over ``count`` examples.

    A last batch of one example joins the one before it: BatchNorm cannot train on one.
    """
    order = torch.randperm(count, generator=generator)
    yield from torch.split(order, batch_sizes(count, size))


def fit(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    objective: Objective,
    settings: TrainingSettings,
    *,
    seed: int,
    key: tuple[str | int, ...],
    epochs: int,
    first_epoch: int = 0,
    terms: Sequence[GradientTerm] = (),
    shared: Collection[str] | None = None,
    received: Mapping[str, Tensor] | None = None,
    memory: dict[str, Tensor] | None = None,
    after_epoch: Callable[[int], None] | None = None,
) -> float:
    """Train ``module`` in place with a fresh optimizer.

    Args:
        module: the model; trained in place.
        x: (N, T, F) or (N, F) inputs on the module's device.
        y: (N, …) targets on the same device.
        objective: what is minimised.
        settings: optimizer, batches, learning rate.
        seed: the run's seed.
        key: what the shuffling and the dropout are drawn for, e.g. ("train", site, round, 0).
        epochs: passes over the data.
        first_epoch: global number of the first pass, for the learning rate.
        terms: strategy terms, added to the gradient before clipping. What is clipped is the
            step: where the sum of gradient and term is zero, clipping leaves it zero, so a
            term that corrects a site's drift stops where it should. Had the gradient been
            clipped before the term is added, sites whose own gradient is long at the common
            optimum would be pulled less than their share, and all would stop elsewhere.
        shared: names of the parameters that terms see, if not all: those that travel.
        received: what the server sent, for the objective; None for the weights as they are.
        memory: what the site keeps for the objective; changed in place.
        after_epoch: called with the number of finished passes.

    Returns:
        Mean training loss over the last pass, without the strategy's terms.
    """
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    parameters = list(named.values())
    termed = [p for name, p in named.items() if shared is None or name in shared]
    reference = [p.detach().clone() for p in termed] if terms else []
    if received is None:
        received = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    context = LocalContext(
        received, {} if memory is None else memory, torch_generator(seed, "objective", *key),
        LocalWork(x, y, settings, seed, key, epochs, first_epoch),
    )  # fmt: skip
    encoder, optimizers = _optimizers(named, settings)
    generator = torch_generator(seed, "batches", *key)
    sample = objective.batches or batches
    total = torch.zeros((), device=x.device)
    with torch_seeded(seed, "dropout", *key), released(encoder):
        objective.begin(module, context)
        for epoch in range(epochs):
            rate = settings.rate(first_epoch + epoch)
            module.train()
            if settings.freezing is not None:
                settings.freezing.apply(module, encoder, first_epoch + epoch)
            total.zero_()
            for index in sample(len(x), settings.batch_size, generator):
                for parameter in parameters:
                    parameter.grad = None
                with autocast(x.device) if settings.amp else contextlib.nullcontext():
                    loss = objective.backward(module, x[index], y[index], context)
                for term in terms:
                    term(termed, reference)
                if settings.clip_norm is not None:
                    torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm, foreach=True)
                for optimizer, factor in optimizers:
                    optimizer.step(rate * factor)
                total += loss * len(index)
            if after_epoch is not None:
                after_epoch(epoch + 1)
        objective.end(module, context)
    return float(total) / max(len(x), 1)


def autocast(device: torch.device) -> torch.autocast:
    """Return the context of mixed precision: bfloat16, which needs no scaling of the loss."""
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _optimizers(
    named: Mapping[str, Tensor], settings: TrainingSettings
) -> tuple[list[Tensor], list[tuple[Rule, float]]]:
    """Return the encoder's parameters, if it is told apart; optimizers, and factors of rates."""
    make, decay, freezing = OPTIMIZERS[settings.optimizer], settings.weight_decay, settings.freezing
    if freezing is None:
        return [], [(make(list(named.values()), decay), 1.0)]
    encoder = [p for name, p in named.items() if name in freezing.names]
    others = [p for name, p in named.items() if name not in freezing.names]
    return encoder, [(make(others, decay), 1.0), (make(encoder, decay), freezing.rate)]


def tensors(
    x: NDArray[np.float32], y: NDArray[np.generic], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return inputs and targets as tensors on ``device`` (no copy on the CPU)."""
    return torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)

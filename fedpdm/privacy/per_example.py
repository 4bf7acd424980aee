"""DP-SGD at the sites: every window's gradient is clipped, and the sum gets noise in each step.

Abadi et al. 2016, Deep Learning with Differential Privacy (CCS), algorithm 1, with Poisson
batches: in each step, a site's window is in by itself with probability q, and

    g_i ← ∇ℓ_i(w),  g_i ← g_i · min(1, C/‖g_i‖)
    g   ← (Σ_{i in batch} g_i + N(0, z²C²·1)) / (q·n)

n windows of the site. The optimizer takes g as any gradient; an empty batch is noise alone. Steps
of a round: ⌈1/q⌉ for each local epoch, whatever n is; ``training.batch_size`` plays no part.
Gradients come from ``torch.func`` (``vmap`` of ``grad``): all windows of a batch in one call.

What is hidden is one training window, from everybody, the server too: what a site sends is made of
noisy steps. That is less than a machine, whose windows are many, and less than a row, which may
lie in several windows. Batch norm mixes the windows of a batch and is refused.

When to use: neither the server nor the other sites are trusted, and a site has many windows. It
costs a gradient in memory for each window of a batch, and time (recurrent layers are computed
window by window); bytes are those of the strategy.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from fedpdm.aggregation.update import Update
from fedpdm.data.rows import Floats
from fedpdm.errors import ConfigError
from fedpdm.privacy.accounting import Mechanism
from fedpdm.privacy.base import NOISED, Facts, Privacy, Protection
from fedpdm.privacy.clipping import withheld
from fedpdm.tasks.base import Metrics, Task
from fedpdm.training.objective import LocalContext, Objective
from fedpdm.transforms.base import Stage, Transform
from fedpdm.wire.records import Arrays

VALUES = 1 << 25
"""Values of gradients that are held at once; longer batches are taken in parts."""


class Withhold(Transform):
    """Leaves a site's numbers and metrics at the site."""

    stage = Stage.NOISE

    def encode(
        self, update: Update, state: dict[str, Arrays], generator: np.random.Generator
    ) -> Update:
        return withheld(update)


class _Called:
    """A module that computes with other weights than its own."""

    def __init__(self, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
        self._module, self._weights = module, weights

    def __call__(self, *inputs: Any) -> Any:
        return functional_call(self._module, dict(self._weights), inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def per_example_gradients(
    objective: Objective, module: nn.Module, x: Tensor, y: Tensor, context: LocalContext
) -> tuple[dict[str, Tensor], Tensor]:
    """Return (B, …) gradients of each parameter by name, and (B,) losses.

    Args:
        objective: one that can be stacked: its loss is a mean over windows.
        module: the model.
        x: (B, …) inputs, B > 0.
        y: (B, …) targets.
        context: of the site.
    """
    weights = {n: p.detach() for n, p in module.named_parameters() if p.requires_grad}

    def loss(weights: Mapping[str, Tensor], one_x: Tensor, one_y: Tensor) -> Tensor:
        called: Any = _Called(module, weights)
        return objective.loss(called, one_x.unsqueeze(0), one_y.unsqueeze(0), context)

    size = sum(p.numel() for p in weights.values())
    each = vmap(
        grad_and_value(loss), in_dims=(None, 0, 0), randomness="different",
        chunk_size=max(1, VALUES // max(size, 1)),
    )  # fmt: skip
    with warnings.catch_warnings():  # recurrent layers go window by window, and torch says so
        warnings.filterwarnings("ignore", "There is a performance drop")
        gradients, losses = each(weights, x, y)
    return gradients, losses


class PerExample(Objective):
    """Trains with clipped gradients of single windows, and noise.

    Args:
        inner: what is minimised.
        clip: C; None for none.
        noise: z.
        rate: q.
    """

    stacks = False

    def __init__(self, inner: Objective, clip: float | None, noise: float, rate: float) -> None:
        self.inner, self.clip, self.noise, self.rate = inner, clip, noise, rate
        self.batches = self._batches
        # A personal model is trained as without privacy: it stays at its site.
        self.personalises = inner.personalises  # type: ignore[misc]
        self.expected = 1.0

    def _batches(self, count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield the windows of each step of an epoch: none of them, or all, are possible."""
        self.expected = self.rate * count
        for _ in range(steps_of(self.rate)):
            drawn = torch.rand(count, generator=generator) < self.rate
            yield drawn.nonzero().squeeze(1)

    def backward(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if len(x):
            gradients, losses = per_example_gradients(self.inner, model, x, y, context)
            sums = clipped_sums(gradients, self.clip)
            loss = losses.mean().detach()
        else:
            sums, loss = {n: torch.zeros_like(p) for n, p in named.items()}, x.new_zeros(())
        for name, parameter in named.items():
            total = sums[name]
            if deviation := self.noise * (self.clip or 0.0):
                drawn = torch.randn(parameter.shape, generator=context.generator)
                total = total + deviation * drawn.to(parameter)
            parameter.grad = total / self.expected
        return loss

    # As without privacy -------------------------------------------------------------------

    def check_model(self, model: nn.Module) -> None:
        self.inner.check_model(model)

    def personalise(self, model: nn.Module, context: LocalContext) -> None:
        self.inner.personalise(model, context)

    def begin(self, model: nn.Module, context: LocalContext) -> None:
        self.inner.begin(model, context)

    def losses(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        return self.inner.losses(model, x, y, context)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        return self.inner.loss(model, x, y, context)

    def end(self, model: nn.Module, context: LocalContext) -> None:
        self.inner.end(model, context)

    def predictor(self, model: nn.Module, context: LocalContext) -> nn.Module:
        return self.inner.predictor(model, context)

    def mean_loss(
        self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext,
        output: Tensor | None = None,
    ) -> float:  # fmt: skip
        return self.inner.mean_loss(model, x, y, context, output)

    def evaluate(
        self, model: nn.Module, x: Tensor, y: Tensor, truth: Floats, task: Task,
        context: LocalContext,
    ) -> Metrics:  # fmt: skip
        return self.inner.evaluate(model, x, y, truth, task, context)


def clipped_sums(gradients: Mapping[str, Tensor], clip: float | None) -> dict[str, Tensor]:
    """Return the sums of (B, …) gradients over B, each window's clipped to ``clip`` first.

    A window whose gradient is not finite counts as none.
    """
    if clip is None:
        return {name: g.sum(0) for name, g in gradients.items()}
    squares = torch.stack([g.flatten(1).square().sum(1) for g in gradients.values()])
    lengths = squares.sum(0).sqrt()
    factors = torch.where(lengths.isfinite(), (clip / lengths.clamp_min(clip)), 0.0)
    known = {n: g.nan_to_num(0.0, 0.0, 0.0) for n, g in gradients.items()}
    return {name: torch.tensordot(factors, g, 1) for name, g in known.items()}


def steps_of(rate: float) -> int:
    """Return the steps of an epoch: as many as show a window once on average."""
    return math.ceil(1 / rate - 1e-9)


class DPSGD(Privacy):
    """DP-SGD at the sites.

    Args:
        epsilon: see ``Privacy``, also for the others.
        delta: of the guarantee.
        noise_multiplier: z.
        clip: C, of a window's gradient.
        sampling_rate: q, the probability with which a window is in a step.
        validation: whether sites evaluate during training.
    """

    name = "dpsgd"

    def __init__(
        self,
        epsilon: float | None = None,
        delta: float = 1e-5,
        noise_multiplier: float | None = None,
        clip: float | None = 1.0,
        sampling_rate: float = 0.05,
        validation: Literal["withheld", "reported"] = "withheld",
    ) -> None:
        super().__init__(epsilon, delta, noise_multiplier, clip, validation)
        if not 1e-6 <= sampling_rate <= 1:
            raise ConfigError(
                f"privacy.sampling_rate={sampling_rate} must be between 1e-6 and 1: the "
                "probability with which a window is in a step"
            )
        self.rate = sampling_rate

    def protect(self, facts: Facts) -> Protection:
        check_single_windows(facts)
        per_round = facts.settings.local_epochs * steps_of(self.rate)
        planned = facts.rounds * per_round
        mechanism = self.settled(Mechanism(0.0, "poisson", drawn=self.rate), planned, None)
        uncovered = self.uncovered(facts)
        if not facts.scaling:
            uncovered.insert(0, "each site's own scaling is made of its rows as they are")
        rows = 1 if facts.window is None else math.ceil(facts.window / max(facts.stride, 1))
        overlap = (
            "neighbouring windows share rows" if rows > 1 else "windows share no rows"
        )  # of readings; a failure is in the labels of many
        uncovered.insert(
            0, f"one window is protected, not a machine, whose windows are many, nor a row: a row "
               f"lies in up to {rows} windows ({overlap}), and a failure in the labels of more",
        )  # fmt: skip
        return Protection(
            name=self.name,
            protects="one training window of a site",
            against="everybody, the server too",
            neighbours="sites that differ in whether they hold one window",
            mechanism=mechanism,
            per_round=per_round,
            planned=planned,
            delta=self.delta,
            target=self.target,
            clip=self.clip,
            by_site=True,
            leaves=self.leaves(facts, weights=NOISED),
            open=uncovered,
            transforms={"privacy": Withhold()},
            objective=partial(self.train, clip=self.clip, noise=mechanism.noise, rate=self.rate),
            withholds_validation=self.withholds,
            notes=[
                f"privacy=dpsgd makes {per_round} steps a round, whatever training.batch_size is"
            ],
        )

    @staticmethod
    def train(inner: Objective, clip: float | None, noise: float, rate: float) -> Objective:
        """Return how sites train.

        Raises:
            ConfigError: the objective does not say that windows go by themselves.
        """
        if not inner.stacks:
            raise ConfigError(
                f"privacy=dpsgd needs the gradient of single windows, and {type(inner).__name__} "
                "does not say `stacks = True`, that is that it looks at model and batch only; "
                "choose another objective, or privacy=central"
            )
        return PerExample(inner, clip, noise, rate)


def check_single_windows(facts: Facts) -> None:
    """Refuse what mixes windows, so that none has a gradient of its own.

    Raises:
        ConfigError: names the layer or the setting.
    """
    norm: tuple[type[nn.Module], ...] = (nn.modules.batchnorm._BatchNorm,)
    for name, layer in facts.module.named_modules():
        if isinstance(layer, norm):
            raise ConfigError(
                f"privacy=dpsgd: {name} is batch norm, which mixes the windows of a batch, so no "
                "window has a gradient of its own; choose a model without it (model=mlp, "
                "model=lstm), or privacy=central travels=no_norm"
            )
    if facts.mixes:
        raise ConfigError(
            f"privacy=dpsgd: {facts.mixes[0]} makes training windows of several others, so one "
            "window's share is not bounded; set it to null"
        )
    if facts.settings.amp:
        raise ConfigError("privacy=dpsgd has no training.amp: set it to false")
    if not any(p.requires_grad for p in facts.module.parameters()):
        raise ConfigError(
            "privacy=dpsgd trains by gradients, and this model has none; choose another model"
        )

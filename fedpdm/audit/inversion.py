"""Gradient inversion: which windows was this gradient made of?

Three attacks by whoever sees a site's update and knows the model, the loss and the targets:

- Closed form. A linear layer y = Wx + b that reads the window itself has, for a batch of one,
  dL/dW_i = (dL/db_i) x, so x = dL/dW_i / dL/db_i for every unit i whose dL/db_i is not 0 (Phong et
  al. 2018, Privacy-Preserving Deep Learning via Additively Homomorphic Encryption, IEEE TIFS,
  section III). Of all units the least-squares answer is taken: sum_i b_i W_i / sum_i b_i², with b_i
  and W_i the two gradients. Of a batch it gives a mixture of the windows.
- Matching by length: min over x of ||grad L(x, y) - g||², with L-BFGS (Zhu, Liu and Han 2019, Deep
  Leakage from Gradients, NeurIPS, algorithm 1).
- Matching by direction: min over x of 1 - cos(grad L(x, y), g), with signed Adam steps (Geiping et
  al. 2020, Inverting Gradients, NeurIPS, equation 4, without the prior on images). A whole update
  is attacked like a gradient: -(w' - w) points where the gradients of its steps do.

The model is in eval mode: no dropout, and batch norm with its running statistics. The attacker is
told the targets, and Zhu's starts from noise several times. All that favours the attacker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from fedpdm.training.objective import LocalContext, Objective

Floats = NDArray[np.float64]
Gradients = Mapping[str, Tensor]

STEPS, RATE = 600, 0.1
"""Signed Adam steps of matching by direction, and their first size; it falls three times."""
BOX = 5.0
"""Guesses stay within so many deviations, as Geiping's do within the range of pixels."""
TRIES, CLOSURES = 3, 200
"""Starts of matching by length, and evaluations of each."""


@dataclass(frozen=True)
class Step:
    """What an attacker knows of the step that a gradient comes from.

    Attributes:
        module: the model that the site was sent.
        objective: what is minimised.
        y: (B, …) targets of the batch.
        shape: of the batch of windows, (B, T, F) or (B, F).
    """

    module: nn.Module
    objective: Objective
    y: Tensor
    shape: tuple[int, ...]

    def gradients(self, x: Tensor, graph: bool = False) -> dict[str, Tensor]:
        """Return the gradient of each parameter at windows ``x``.

        Args:
            x: of ``shape``.
            graph: whether it is to be differentiated again.
        """
        named = {n: p for n, p in self.module.named_parameters() if p.requires_grad}
        loss = self.objective.loss(self.module, x, self.y, LocalContext())
        found = torch.autograd.grad(
            loss, list(named.values()), create_graph=graph, allow_unused=True
        )
        return {
            name: torch.zeros_like(p) if g is None else g
            for (name, p), g in zip(named.items(), found, strict=True)
        }


def flat(gradients: Gradients, names: Sequence[str]) -> Tensor:
    """Return the gradients of these parameters as one vector."""
    return torch.cat([gradients[name].reshape(-1) for name in names])


def reading_layer(step: Step) -> str | None:
    """Return the name of the linear layer that reads the window itself; None if there is none.

    Args:
        step: with a model, which is tried on windows of noise.
    """
    x = torch.randn(step.shape, generator=torch.Generator().manual_seed(0))
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            given = inputs[0]
            if given.numel() == x.numel() and torch.equal(given.reshape(-1), x.reshape(-1)):
                found.append(name)

        return look

    layers = [
        (name, layer)
        for name, layer in step.module.named_modules()
        if isinstance(layer, nn.Linear) and layer.bias is not None
    ]
    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers]
    try:
        with torch.no_grad():
            step.objective.losses(step.module, x, step.y, LocalContext())
    finally:
        for hook in hooks:
            hook.remove()
    widths = {name: layer.in_features for name, layer in layers}
    size = int(np.prod(step.shape[1:]))
    return next((name for name in found if widths[name] == size), None)


def closed_form(gradients: Gradients, layer: str, shape: tuple[int, ...]) -> Tensor | None:
    """Return the window that a batch of one was; None where no unit had a gradient.

    Args:
        gradients: of the parameters, by name.
        layer: that reads the window, with a bias.
        shape: of the window as a batch of one.
    """
    weight, bias = gradients[f"{layer}.weight"].double(), gradients[f"{layer}.bias"].double()
    size = bias @ bias
    return ((bias @ weight) / size).reshape(shape).float() if size > 0 else None


def by_direction(step: Step, seen: Gradients, generator: torch.Generator) -> Tensor:
    """Return windows whose gradient points where the one that was seen does.

    Args:
        step: what is known of it.
        seen: the gradient.
        generator: draws the start.
    """
    names = [name for name, g in seen.items() if bool(g.any())]
    if not names:
        return torch.zeros(step.shape)
    wanted = flat(seen, names).detach()
    guess = torch.randn(step.shape, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([guess], lr=RATE)
    falls = [STEPS * part // 8 for part in (3, 5, 7)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, falls, gamma=0.1)
    best, least = guess.detach().clone(), float("inf")
    for _ in range(STEPS):
        made = flat(step.gradients(guess, graph=True), names)
        cost = 1 - torch.nn.functional.cosine_similarity(made, wanted, dim=0)
        if cost.item() < least:
            best, least = guess.detach().clone(), cost.item()
        (slope,) = torch.autograd.grad(cost, guess)
        guess.grad = slope.sign()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            guess.clamp_(-BOX, BOX)
    return best


def by_length(step: Step, seen: Gradients, generator: torch.Generator) -> Tensor:
    """Return windows whose gradient is as near as can be to the one that was seen.

    Args:
        step: what is known of it.
        seen: the gradient.
        generator: draws the starts.
    """
    names = list(seen)
    wanted = flat(seen, names).detach()
    scale = float(wanted.square().sum()) or 1.0
    best, least = torch.zeros(step.shape), float("inf")
    for _ in range(TRIES):
        guess = torch.randn(step.shape, generator=generator).requires_grad_()
        optimizer = torch.optim.LBFGS(
            [guess], max_iter=CLOSURES, max_eval=CLOSURES, history_size=20,
            line_search_fn="strong_wolfe", tolerance_grad=1e-9, tolerance_change=1e-12,
        )  # fmt: skip

        def closure(optimizer: torch.optim.LBFGS = optimizer, guess: Tensor = guess) -> float:
            made = flat(step.gradients(guess, graph=True), names)
            cost = (made - wanted).square().sum() / scale
            (guess.grad,) = torch.autograd.grad(cost, guess)
            return cost.item()

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        cost = closure()
        if np.isfinite(cost) and cost < least:
            best, least = guess.detach().clone(), cost
    return best


def noised(
    gradients: Sequence[Gradients], clip: float, noise: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return the mean of windows' gradients as a step of DP-SGD sends it (Abadi et al. 2016).

    Args:
        gradients: of each window by itself.
        clip: the longest that one may be.
        noise: deviation of the noise of the sum, over ``clip``.
        generator: draws the noise.
    """
    names, count = list(gradients[0]), len(gradients)
    total = {name: torch.zeros_like(gradients[0][name]) for name in names}
    for own in gradients:
        length = float(flat(own, names).norm())
        for name in names:
            total[name] += own[name] * min(1.0, clip / max(length, 1e-12))
    return {
        name: (value + torch.randn(value.shape, generator=generator) * clip * noise) / count
        for name, value in total.items()
    }


def errors(found: NDArray[np.float32], true: NDArray[np.float32]) -> Floats:
    """Return (B,) root mean squared errors of windows, paired so that the sum is least.

    The order of a batch leaves no trace in its gradient.

    Args:
        found: (B, …) windows.
        true: (B, …) windows.
    """
    distances = distance(found, true)
    rows, columns = linear_sum_assignment(distances)
    return np.asarray(distances[rows, columns], np.float64)


def distance(first: NDArray[np.float32], second: NDArray[np.float32]) -> Floats:
    """Return (A, B) root mean squared differences of windows, over all their readings."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (first, second))
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squares, 0.0) / a.shape[1]), np.float64)

"""Convolution, batch norm and pooling over time for a stack of sites.

A convolution is an unfolding and one batched product. Memory is in the order (K, B, L, C),
channels last, and stays so from layer to layer; modules see the views (B, C, L) they expect.
Shapes: K sites, B rows, L steps, C channels in, O out, W width of the kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fedpdm.engines.stacked.products import affine, outer, product, sums


class _Convolution(torch.autograd.Function):
    """(K, B, L, C), (K, O, C, W) and (K, O) to (K, B, L', O)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
        (sites, rows, length, channels), width = x.shape, weight.shape[-1]
        results = length + 2 * padding - width + 1
        unfolded = x.new_zeros(sites, rows, results, width, channels)
        for place, (there, here) in enumerate(_shifts(length, results, width, padding)):
            unfolded[:, :, there, place] = x[:, :, here]
        unfolded = unfolded.view(sites, rows * results, width * channels)
        flat = weight.transpose(2, 3).flatten(2)
        ctx.save_for_backward(unfolded, flat)
        ctx.padding, ctx.shapes = padding, (x.shape, weight.shape)
        return affine(unfolded, flat, bias).view(sites, rows, results, -1)

    @staticmethod
    def backward(ctx: Any, *wanted: Tensor) -> tuple[Tensor | None, ...]:
        (unfolded, flat), (grad,) = ctx.saved_tensors, wanted
        (sites, rows, length, channels), (_, outputs, _, width) = ctx.shapes
        results = grad.shape[2]
        grad = grad.flatten(1, 2)
        inward = None
        if ctx.needs_input_grad[0]:
            spread = product(grad, flat).view(sites, rows, results, width, channels)
            inward = grad.new_zeros(sites, rows, length, channels)
            for place, (there, here) in enumerate(_shifts(length, results, width, ctx.padding)):
                inward[:, :, here] += spread[:, :, there, place]
        weights = outer(grad, unfolded).view(sites, outputs, width, channels).transpose(2, 3)
        return inward, weights, sums(grad).squeeze(1), None


def _shifts(length: int, results: int, width: int, padding: int) -> list[tuple[slice, slice]]:
    """Return for each place of the kernel the results that it has an input for, and that input."""
    found = []
    for place in range(width):
        first, last = max(0, padding - place), min(results, length + padding - place)
        found.append((slice(first, last), slice(first + place - padding, last + place - padding)))
    return found


def convolution(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """Return (K, B, O, L') of (K, B, C, L), (K, O, C, W) and (K, O); stride and dilation are 1."""
    found: Tensor = _Convolution.apply(x.transpose(-1, -2), weight, bias, padding)  # type: ignore[no-untyped-call]
    return found.transpose(-1, -2)


class _Normalisation(torch.autograd.Function):
    """(K, N, C) values, (K, N, 1) which of them are real (1 or 0) or None, (K, 1, 1) how many.

    Returns (K, N, C) values of mean 0 and variance 1 times weight plus bias, (K, C) means and
    (K, C) variances. A value that is not real comes out as the bias and takes no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, real: Tensor | None, count: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        mean = sums(x if real is None else x * real) / count
        centred = x - mean
        if real is not None:
            centred *= real
        variance = sums(centred * centred) / count
        slope = (variance + eps).rsqrt()
        ctx.save_for_backward(centred, slope, weight, real, count)
        return (
            torch.addcmul(bias.unsqueeze(1), centred, slope * weight.unsqueeze(1)),
            mean.squeeze(1),
            variance.squeeze(1),
        )

    @staticmethod
    def backward(ctx: Any, *wanted: Tensor) -> tuple[Tensor | None, ...]:
        centred, slope, weight, real, count = ctx.saved_tensors
        grad = wanted[0]
        total = sums(grad)
        along = sums(grad * centred) * slope
        scale = slope * weight.unsqueeze(1)
        inward = torch.addcmul(-scale * total / count, centred, -scale * slope * along / count)
        inward.addcmul_(grad, scale)
        if real is not None:
            inward *= real
        return inward, along.squeeze(1), total.squeeze(1), None, None, None


def normalisation(
    x: Tensor, weight: Tensor, bias: Tensor, rows: Tensor | None, count: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise each site's channels over its rows and places.

    Args:
        x: (K, B, C, …) values.
        weight: (K, C) scales.
        bias: (K, C) shifts.
        rows: (K, B) bool, which rows are not padding; None if all.
        count: (K,) values of a channel, padding aside.
        eps: added to the variance.

    Returns:
        (K, B, C, …) values, (K, C) means, (K, C) variances, divided by ``count``.
    """
    last = x.movedim(2, -1)
    flat = last.flatten(1, -2)
    real = None
    if rows is not None:
        places = flat.shape[1] // rows.shape[1]
        real = rows.to(x.dtype).repeat_interleave(places, 1).unsqueeze(-1)
    found, mean, variance = _Normalisation.apply(  # type: ignore[no-untyped-call]
        flat, weight, bias, real, count.to(x.dtype).view(-1, 1, 1), eps
    )
    return found.view(last.shape).movedim(-1, 2), mean, variance


class _Larger(torch.autograd.Function):
    """The larger of two neighbours in (K, B, L, C), the first of equal ones: (K, B, L // 2, C)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        first, second = _pairs(x)
        ctx.save_for_backward(second > first)
        ctx.shape = x.shape
        return torch.maximum(first, second)

    @staticmethod
    def backward(ctx: Any, *wanted: Tensor) -> Tensor:
        (is_second,), (grad,) = ctx.saved_tensors, wanted
        inward = grad.new_empty(ctx.shape)
        inward[:, :, 2 * grad.shape[2] :] = 0.0
        first, second = _pairs(inward)
        torch.mul(grad, is_second, out=second)
        torch.sub(grad, second, out=first)
        return inward


def _pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    even = x.shape[2] // 2 * 2
    return x[:, :, 0:even:2], x[:, :, 1:even:2]


def halved(x: Tensor) -> Tensor:
    """Return (K, B, C, L // 2) of (K, B, C, L): the larger of two neighbours."""
    found: Tensor = _Larger.apply(x.transpose(-1, -2))  # type: ignore[no-untyped-call]
    return found.transpose(-1, -2)

"""Matrix products of a stack: one for each site, all in one call.

Shapes: K sites, N rows, I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LANES = 64


def lanes(count: int) -> int:
    """Return the smallest multiple of ``LANES`` that holds so many values.

    The last few of an odd number would be computed by other instructions, which round
    differently, and a site's last digits would depend on its place in the stack.
    """
    return -(-count // LANES) * LANES


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return (K, N, O) of (K, N, I) and (K, I, O); a site's bits depend on no neighbour.

    A single column would go another way through torch with one site than with several.
    """
    if right.shape[-1] == 1:
        return (left * right.mT).sum(-1, keepdim=True)
    return torch.bmm(left, right)


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return (K, N, O) of (K, N, I), (K, O, I) and (K, O)."""
    if weight.shape[1] == 1:
        return product(x, weight.mT) + bias.unsqueeze(1)
    return torch.baddbmm(bias.unsqueeze(1), x, weight.mT)


def outer(grad: Tensor, x: Tensor) -> Tensor:
    """Return (K, O, I) gradients of weights of (K, N, O) gradients of outputs and (K, N, I).

    They are laid out as the weights are; autograd's are transposed, and the optimizer would
    have to copy them.
    """
    if x.shape[-1] < 16:  # few columns are slow, and copying them is not
        return product(x.mT, grad).mT.contiguous()
    return product(grad.mT, x)


def sums(x: Tensor) -> Tensor:
    """Return (K, 1, C) sums of (K, N, C) over N. Those of torch depend on K where C is small."""
    return product(x.new_ones(len(x), 1, x.shape[1]), x)


class Linear(torch.autograd.Function):
    """``affine`` with its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return affine(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *wanted: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (grad,) = ctx.saved_tensors, wanted
        inward = product(grad, weight) if ctx.needs_input_grad[0] else None
        return inward, outer(grad, x), sums(grad).squeeze(1)

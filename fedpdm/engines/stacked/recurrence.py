"""The LSTM of a stack of sites, with all sites in each matrix product.

Inputs are multiplied by their weights for all time steps at once, both directions run side
by side, and the gradients of the weights are one product over all steps, as in cuDNN.
Shapes: K sites, D directions, M = D * K recurrences, B rows, T steps, F inputs, H units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _Recurrence(torch.autograd.Function):
    """(M, T, B, F) inputs to (M, T, B, H) hidden states, (M, B, H) last hidden and cell."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_ih: Tensor, w_hh: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        many, steps, rows, _ = x.shape
        units = w_hh.shape[-1]
        gates = torch.baddbmm(bias.unsqueeze(1), x.flatten(1, 2), w_ih.mT)
        gates = gates.view(many, steps, rows, 4 * units)
        hidden, cells, squashed = (x.new_empty(many, steps, rows, units) for _ in range(3))
        recur = w_hh.mT
        for t in range(steps):
            z = gates[:, t]
            if t:
                z.baddbmm_(hidden[:, t - 1], recur)
            z[..., : 2 * units].sigmoid_()
            z[..., 2 * units : 3 * units].tanh_()
            z[..., 3 * units :].sigmoid_()
            enters, forgets, new, leaves = z.chunk(4, dim=-1)
            torch.mul(enters, new, out=cells[:, t])
            if t:
                cells[:, t].addcmul_(forgets, cells[:, t - 1])
            torch.tanh(cells[:, t], out=squashed[:, t])
            torch.mul(leaves, squashed[:, t], out=hidden[:, t])
        ctx.save_for_backward(x, w_ih, w_hh, gates, hidden, cells, squashed)
        ctx.set_materialize_grads(False)
        return hidden, hidden[:, -1].clone(), cells[:, -1].clone()

    @staticmethod
    def backward(ctx: Any, *wanted: Tensor | None) -> tuple[Tensor | None, ...]:
        x, w_ih, w_hh, gates, hidden, cells, squashed = ctx.saved_tensors
        from_all, from_hidden, from_cell = wanted
        many, steps, rows, units = hidden.shape
        # Slopes of everything that one step does, for all steps at once.
        enters, forgets, new, leaves = gates.chunk(4, dim=-1)
        to_cell = leaves * (1 - squashed.square())
        to_leave = squashed * leaves * (1 - leaves)
        slopes = torch.zeros(many, steps, rows, 3, units, dtype=x.dtype, device=x.device)
        torch.mul(new, enters * (1 - enters), out=slopes[:, :, :, 0])
        slopes[:, 1:, :, 1] = cells[:, :-1] * (forgets * (1 - forgets))[:, 1:]
        torch.mul(enters, 1 - new.square(), out=slopes[:, :, :, 2])
        inner = torch.empty_like(gates)
        parts = inner.view(many, steps, rows, 4, units)
        cell = from_cell
        state = from_hidden
        for t in reversed(range(steps)):
            if from_all is not None:
                state = from_all[:, t] if state is None else state + from_all[:, t]
            if state is None:
                state = torch.zeros_like(hidden[:, t])
            cell = (
                state * to_cell[:, t] if cell is None else torch.addcmul(cell, state, to_cell[:, t])
            )
            torch.mul(cell.unsqueeze(2), slopes[:, t], out=parts[:, t, :, :3])
            torch.mul(state, to_leave[:, t], out=parts[:, t, :, 3])
            cell = cell * forgets[:, t]
            state = torch.bmm(inner[:, t], w_hh) if t else None
        flat = inner.flatten(1, 2)
        return (
            torch.bmm(flat, w_ih).view_as(x) if ctx.needs_input_grad[0] else None,
            torch.bmm(flat.mT, x.flatten(1, 2)),
            torch.bmm(inner[:, 1:].flatten(1, 2).mT, hidden[:, :-1].flatten(1, 2)),
            flat.sum(1),
        )


def bidirectional_lstm(
    x: Tensor, weights: Sequence[Tensor], *, directions: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer of an LSTM for every site.

    Args:
        x: (K, B, T, F) inputs.
        weights: for each direction (K, 4H, F), (K, 4H, H) and (K, 4H), gates in torch's order.
        directions: 1, or 2 for one more that runs backwards.

    Returns:
        (K, B, T, D * H) hidden states, (K, D, B, H) last hidden states, (K, D, B, H) cells.
    """
    sites = len(x)
    x = x.transpose(1, 2)
    if directions == 2:
        x = torch.cat([x, x.flip(1)])
        w_ih, w_hh, bias = (torch.cat([weights[i], weights[i + 3]]) for i in range(3))
    else:
        x = x.contiguous()
        w_ih, w_hh, bias = weights
    hidden, last, cell = _Recurrence.apply(x, w_ih, w_hh, bias)  # type: ignore[no-untyped-call]
    if directions == 2:
        outputs = torch.cat([hidden[:sites], hidden[sites:].flip(1)], dim=-1)
    else:
        outputs = hidden
    finals = (tensor.unflatten(0, (directions, sites)).transpose(0, 1) for tensor in (last, cell))
    return outputs.transpose(1, 2), *finals

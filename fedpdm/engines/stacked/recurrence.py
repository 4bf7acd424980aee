"""The LSTM of a stack of sites, with all sites in each matrix product.

Both directions run side by side. A step is one product of [state, input, 1] by the joined
weights, so that inputs, bias and their gradients cost no products and no passes of their own.
Every squashing is a sigmoid, because tanh(a) = 2 sigmoid(2a) - 1 and torch's tanh takes ten
times as long on a CPU: one call squashes the four gates, and one has their slopes.
Shapes: K sites, D directions, M = D * K recurrences, B rows, T steps, F inputs, H units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_LANES = 64
"""Values squashed at a time come in multiples of this: the last few of an odd number would
be computed by other instructions, and a site's last digits would depend on its place."""


def _whole(like: Tensor, *shape: int) -> tuple[Tensor, Tensor]:
    """Return memory of a multiple of ``_LANES`` values, and a view of it in this shape."""
    count = torch.Size(shape).numel()
    size = -(-count // _LANES) * _LANES
    memory = like.new_empty(size)
    memory[count:] = 0.0
    return memory, memory[:count].view(shape)


class _Recurrence(torch.autograd.Function):
    """(K, B, T, F) inputs, and three weights for each direction, to (K, B, T, D * H) hidden
    states, (M, B, H) last hidden states and (M, B, H) last cells; M runs over directions first.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        sites, rows, steps, features = x.shape
        units = parameters[1].shape[-1]
        many = sites * len(parameters) // 3
        weights = x.new_empty(many, 4 * units, units + features + 1)
        told = x.new_empty(steps + 1, many, rows, units + features + 1)
        told[0, ..., :units] = 0.0
        told[:-1, ..., -1] = 1.0
        for number in range(len(parameters) // 3):
            part = slice(number * sites, (number + 1) * sites)
            w_ih, w_hh, bias = parameters[3 * number : 3 * number + 3]
            torch.cat([w_hh, w_ih, bias.unsqueeze(-1)], dim=-1, out=weights[part])
            in_time = x.permute(2, 0, 1, 3)
            told[:-1, part, :, units:-1] = in_time.flip(0) if number else in_time
        weights[:, 2 * units : 3 * units] *= 2.0  # the gate of new values is a tanh
        cells, squashed = (x.new_empty(steps, many, rows, units) for _ in range(2))
        memory, curve = _whole(x, many, rows, units)
        gates = []
        for t in range(steps):
            whole, gate = _whole(x, many, rows, 4 * units)
            torch.bmm(told[t], weights.mT, out=gate)
            whole.sigmoid_()
            enters, forgets, half, leaves = gate.chunk(4, dim=-1)
            torch.mul(enters, half, out=cells[t]).mul_(2.0).sub_(enters)
            if t:
                cells[t].addcmul_(forgets, cells[t - 1])
            torch.mul(cells[t], 2.0, out=curve)
            memory.sigmoid_()
            torch.mul(curve, 2.0, out=squashed[t]).sub_(1.0)
            torch.mul(leaves, squashed[t], out=told[t + 1, ..., :units])
            gates.append(gate)
        ctx.save_for_backward(weights, told, cells, squashed, *gates)
        ctx.set_materialize_grads(False)
        ctx.sites = sites
        hidden = told[1:, ..., :units]
        ways = [hidden[:, :sites], hidden[:, sites:].flip(0)][: many // sites]
        return (
            torch.cat(ways, dim=-1).permute(1, 2, 0, 3),
            hidden[-1].clone(),
            cells[-1].clone(),
        )

    @staticmethod
    def backward(ctx: Any, *wanted: Tensor | None) -> tuple[Tensor | None, ...]:
        weights, told, cells, squashed, *gates = ctx.saved_tensors
        from_all, state, cell = wanted
        steps, many, rows, units = cells.shape
        sites, directions = ctx.sites, many // ctx.sites
        if from_all is not None:
            ways = from_all.permute(2, 0, 1, 3).chunk(directions, dim=-1)
            from_all = torch.cat([ways[0], *(way.flip(0) for way in ways[1:])], dim=1)
        outer = told.new_zeros(many, told.shape[-1], 4 * units)
        slopes = told.new_empty(many, rows, 4 * units)
        to_enter, to_forget, to_new, to_leave = slopes.chunk(4, dim=-1)
        state = torch.zeros_like(cells[0]) if state is None else state
        cell = torch.zeros_like(state) if cell is None else cell.clone()
        wanted_x = ctx.needs_input_grad[0]
        inward = told.new_empty(steps, many, rows, told.shape[-1] - 1) if wanted_x else None
        for t in reversed(range(steps)):
            enters, forgets, half, leaves = gates[t].chunk(4, dim=-1)
            if from_all is not None:
                state = state + from_all[t]
            torch.mul(state, squashed[t], out=to_leave)
            cell += torch.ops.aten.tanh_backward(state * leaves, squashed[t])
            torch.mul(cell, half, out=to_enter).mul_(2.0).sub_(cell)
            torch.mul(cell, enters, out=to_new).mul_(2.0)
            if t:
                torch.mul(cell, cells[t - 1], out=to_forget)
            else:
                to_forget.zero_()
            cell *= forgets
            # In the place of the gates, which are needed no more and still in the cache.
            torch.ops.aten.sigmoid_backward.grad_input(slopes, gates[t], grad_input=gates[t])
            outer.baddbmm_(told[t].mT, gates[t])
            if inward is not None:
                torch.bmm(gates[t], weights[..., :-1], out=inward[t])
                state = inward[t, ..., :units]
            elif t:
                state = torch.bmm(gates[t], weights[..., :units])
        outer[..., 2 * units : 3 * units] *= 2.0
        found: list[Tensor | None] = [None]
        if inward is not None:
            ways = inward[..., units:].split(sites, dim=1)
            both = ways[0] if directions == 1 else ways[0] + ways[1].flip(0)
            found = [both.permute(1, 2, 0, 3)]
        for part in outer.mT.split(sites):
            found += [part[..., units:-1], part[..., :units], part[..., -1]]
        return tuple(found)


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
    outputs, *last = _Recurrence.apply(x, *weights)  # type: ignore[no-untyped-call]
    hidden, cell = (t.unflatten(0, (directions, len(x))).transpose(0, 1) for t in last)
    return outputs, hidden, cell

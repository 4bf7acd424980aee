"""The LSTM of a stack of sites, with all sites in each matrix product.

Both directions run side by side. A step is one product of [state, input, 1] by the joined
weights, so that inputs, bias and their gradients cost no products and no passes of their own.
Every tanh is written as a sigmoid, because tanh(a) = 2 sigmoid(2a) - 1 and torch's tanh takes ten
times as long on a CPU: one call computes the four gates, and one their slopes.
Shapes: K sites, D directions, M = D * K recurrences, B rows, T steps, F inputs, H units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fedpdm.engines.stacked.products import lanes


def _whole(like: Tensor, *shape: int) -> tuple[Tensor, Tensor]:
    """Return memory of whole ``lanes``, and a view of it in this shape."""
    count = torch.Size(shape).numel()
    memory = like.new_empty(lanes(count))
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
        joined = x.new_empty(steps + 1, many, rows, units + features + 1)
        joined[0, ..., :units] = 0.0
        joined[:-1, ..., -1] = 1.0
        for number in range(len(parameters) // 3):
            part = slice(number * sites, (number + 1) * sites)
            w_ih, w_hh, bias = parameters[3 * number : 3 * number + 3]
            torch.cat([w_hh, w_ih, bias.unsqueeze(-1)], dim=-1, out=weights[part])
            in_time = x.permute(2, 0, 1, 3)
            joined[:-1, part, :, units:-1] = in_time.flip(0) if number else in_time
        weights[:, 2 * units : 3 * units] *= 2.0  # the gate of new values is a tanh
        cells, cell_tanh = (x.new_empty(steps, many, rows, units) for _ in range(2))
        memory, curve = _whole(x, many, rows, units)
        gates = []
        for t in range(steps):
            whole, gate = _whole(x, many, rows, 4 * units)
            torch.bmm(joined[t], weights.mT, out=gate)
            whole.sigmoid_()
            input_gate, forget_gate, new, output_gate = gate.chunk(4, dim=-1)
            torch.mul(input_gate, new, out=cells[t]).mul_(2.0).sub_(input_gate)
            if t:
                cells[t].addcmul_(forget_gate, cells[t - 1])
            torch.mul(cells[t], 2.0, out=curve)
            memory.sigmoid_()
            torch.mul(curve, 2.0, out=cell_tanh[t]).sub_(1.0)
            torch.mul(output_gate, cell_tanh[t], out=joined[t + 1, ..., :units])
            gates.append(gate)
        ctx.save_for_backward(weights, joined, cells, cell_tanh, *gates)
        ctx.set_materialize_grads(False)
        ctx.sites = sites
        hidden = joined[1:, ..., :units]
        directed = [hidden[:, :sites], hidden[:, sites:].flip(0)][: many // sites]
        return (
            torch.cat(directed, dim=-1).permute(1, 2, 0, 3),
            hidden[-1].clone(),
            cells[-1].clone(),
        )

    @staticmethod
    def backward(ctx: Any, *wanted: Tensor | None) -> tuple[Tensor | None, ...]:
        weights, joined, cells, cell_tanh, *gates = ctx.saved_tensors
        from_all, state, cell = wanted
        steps, many, rows, units = cells.shape
        sites, directions = ctx.sites, many // ctx.sites
        if from_all is not None:
            directed = from_all.permute(2, 0, 1, 3).chunk(directions, dim=-1)
            from_all = torch.cat([directed[0], *(way.flip(0) for way in directed[1:])], dim=1)
        outer = joined.new_zeros(many, joined.shape[-1], 4 * units)
        slopes = joined.new_empty(many, rows, 4 * units)
        d_input, d_forget, d_new, d_output = slopes.chunk(4, dim=-1)
        state = torch.zeros_like(cells[0]) if state is None else state
        cell = torch.zeros_like(state) if cell is None else cell.clone()
        wanted_x = ctx.needs_input_grad[0]
        inward = joined.new_empty(steps, many, rows, joined.shape[-1] - 1) if wanted_x else None
        for t in reversed(range(steps)):
            input_gate, forget_gate, new, output_gate = gates[t].chunk(4, dim=-1)
            if from_all is not None:
                state = state + from_all[t]
            torch.mul(state, cell_tanh[t], out=d_output)
            cell += torch.ops.aten.tanh_backward(state * output_gate, cell_tanh[t])
            torch.mul(cell, new, out=d_input).mul_(2.0).sub_(cell)
            torch.mul(cell, input_gate, out=d_new).mul_(2.0)
            if t:
                torch.mul(cell, cells[t - 1], out=d_forget)
            else:
                d_forget.zero_()
            cell *= forget_gate
            # In the place of the gates, which are needed no more and still in the cache.
            torch.ops.aten.sigmoid_backward.grad_input(slopes, gates[t], grad_input=gates[t])
            outer.baddbmm_(joined[t].mT, gates[t])
            if inward is not None:
                torch.bmm(gates[t], weights[..., :-1], out=inward[t])
                state = inward[t, ..., :units]
            elif t:
                state = torch.bmm(gates[t], weights[..., :units])
        outer[..., 2 * units : 3 * units] *= 2.0
        found: list[Tensor | None] = [None]
        if inward is not None:
            directed = inward[..., units:].split(sites, dim=1)
            both = directed[0] if directions == 1 else directed[0] + directed[1].flip(0)
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

"""Replacements for layers that ``torch.func.vmap`` cannot stack, by the class they replace.

Under ``torch.func.vmap`` a module sees one site. Most of torch works there as it is; the
layers below do not: dropout would draw masks that depend on a site's place in the stack,
batch norm would count padded rows, and ``nn.LSTM`` has no batching rule. A library's own
layer is added by ``@stacks(ItsClass)``. Shapes: K sites, B rows, T time steps, H units.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _functorch as functorch
from torch._functorch.pyfunctorch import temporarily_pop_interpreter_stack
from torch.nn import functional

from fedpdm.engines.stacked.recurrence import bidirectional_lstm
from fedpdm.errors import ConfigError

_STEP, _LAYER = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03
_MIX64 = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_MIX32 = (0x7FEB352D, 0x846CA68B)
_COORDINATE = 0x9E3779B1


def _signed(value: int, bits: int) -> int:
    """Return what ``value`` is in two's complement: torch has no unsigned arithmetic."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _shifted(x: Tensor, by: int, bits: int) -> Tensor:
    """Return x >> by without copies of the sign."""
    return (x >> by) & ((1 << (bits - by)) - 1)


def _mix64(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30, 64)) * _signed(_MIX64[0], 64)
    x = (x ^ _shifted(x, 27, 64)) * _signed(_MIX64[1], 64)
    return x ^ _shifted(x, 31, 64)


def kept(shape: torch.Size, keys: Tensor, steps: Tensor, layer: int, rate: float) -> Tensor:
    """Return which values stay.

    Args:
        shape: (K, B, …) of the values.
        keys: (K,) int64, one for each site and round.
        steps: (K,) int64, steps made before.
        layer: number of the dropout call in the forward pass.
        rate: probability that a value is dropped.

    Returns:
        Bools of that shape.
    """
    seeds = _mix64(_mix64(keys + steps * _signed(_STEP, 64)) + _signed(layer * _LAYER, 64))
    first = ((seeds << 32) >> 32).to(torch.int32)
    second = (seeds >> 32).to(torch.int32)
    x, final = first, len(shape) - 1
    # Coordinate by coordinate, so that a mask does not depend on how far rows are padded.
    for dim in range(1, len(shape)):
        places = torch.arange(shape[dim], dtype=torch.int32, device=keys.device)
        x = x.unsqueeze(-1) ^ (places + 1).mul_(_signed(_COORDINATE, 32))
        x ^= _shifted(x, 16, 32)
        x *= _signed(_MIX32[0], 32)
        x ^= second.view(-1, *[1] * dim)
        x ^= _shifted(x, 15, 32)
        x *= _signed(_MIX32[1], 32)
        if dim < final:
            x ^= _shifted(x, 16, 32)
    limit = round((1.0 - rate) * 2**32) - 2**31
    return x < limit if limit < 2**31 else torch.ones_like(x, dtype=torch.bool)


def drop(x: Tensor, keys: Tensor, steps: Tensor, layer: int, rate: float) -> Tensor:
    """Return (K, B, …) values, those not ``kept`` as 0 and the others times 1 / (1 - rate)."""
    if rate >= 1.0:
        return x * 0.0
    factor = kept(x.shape, keys, steps, layer, rate).to(x.dtype)
    return x * factor.mul_(1.0 / (1.0 - rate))


@dataclass
class Now:
    """What the layers of a stack know about the step, as one site sees it.

    Attributes:
        key: () int64, what the site's dropout is drawn for in this round.
        step: () int64, how many steps the site made before.
        rows: (B,) bool, which rows are not padding; None where there is no padding.
        count: () how many rows are not padding.
        drawn: dropout calls so far in this forward pass.
    """

    key: Tensor | None = None
    step: Tensor | None = None
    rows: Tensor | None = None
    count: Tensor | None = None
    drawn: int = 0

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        """Return ``x`` with a share ``rate`` of its values dropped and the rest scaled up."""
        assert self.key is not None and self.step is not None
        layer, self.drawn = self.drawn, self.drawn + 1
        result: Tensor = lifted(
            lambda x, keys, steps: drop(x, keys, steps, layer, rate), x, self.key, self.step
        )
        return result


MakeStacked = Callable[[Any, Now], nn.Module]

STACKED: dict[type[nn.Module], MakeStacked] = {}
"""What replaces a layer of exactly this class: (layer, what is known of the step) to layer."""


def stacks(layer: type[nn.Module]) -> Callable[[Any], Any]:
    """Register what replaces ``layer`` in a stack: called with the layer and a ``Now``."""

    def register(make: Any) -> Any:
        STACKED[layer] = make
        return make

    return register


def stacked_copy(module: nn.Module, now: Now) -> nn.Module:
    """Return a copy of ``module`` whose layers are those of a stack; same parameter names."""
    return _replaced(copy.deepcopy(module), now, {})


def _replaced(module: nn.Module, now: Now, done: dict[int, nn.Module]) -> nn.Module:
    if id(module) not in done:
        make = STACKED.get(type(module))
        done[id(module)] = module if make is None else make(module, now).train(module.training)
        for name, child in list(module.named_children()) if make is None else []:
            setattr(module, name, _replaced(child, now, done))
    return done[id(module)]


def lifted(work: Callable[..., Any], *tensors: Tensor) -> Any:
    """Return ``work`` of the whole stacks of which each site holds one of ``tensors``.

    To be called under ``vmap``. ``work`` gets tensors with a first dimension K and returns
    one or several such tensors. It is differentiated as it stands. What a custom
    ``autograd.Function`` with a vmap rule does, without its detour, which costs more than
    the arithmetic of a small layer.
    """
    level = functorch.current_level()
    size = next(
        functorch.get_unwrapped(tensor).shape[functorch.maybe_get_bdim(tensor)]
        for tensor in tensors
        if functorch.is_batchedtensor(tensor)
    )
    whole = [
        functorch.get_unwrapped(tensor).movedim(functorch.maybe_get_bdim(tensor), 0)
        if functorch.is_batchedtensor(tensor)
        else tensor.expand(size, *tensor.shape)
        for tensor in tensors
    ]
    with temporarily_pop_interpreter_stack():
        result = work(*whole)
    if isinstance(result, tuple):
        return tuple(functorch._add_batch_dim(part, 0, level) for part in result)
    return functorch._add_batch_dim(result, 0, level)


@stacks(nn.Dropout)
class StackedDropout(nn.Module):
    """Dropout whose mask depends on the site, the step and the call, and on no neighbour."""

    def __init__(self, layer: nn.Dropout, now: Now) -> None:
        super().__init__()
        self.rate, self.now = layer.p, now

    def forward(self, x: Tensor) -> Tensor:
        return self.now.dropout(x, self.rate) if self.training and self.rate > 0 else x


@stacks(nn.Linear)
class StackedLinear(nn.Linear):
    """One batched product for all sites; vmap's own rule multiplies and adds in turn."""

    def __init__(self, layer: nn.Linear, now: Now) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(layer.__dict__)

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None or x.ndim < 2:
            return functional.linear(x, self.weight, self.bias)
        result: Tensor = lifted(_linear, x, self.weight, self.bias)
        return result


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    rows = _Products.apply(x.flatten(1, -2), weight, bias)  # type: ignore[no-untyped-call]
    result: Tensor = rows.unflatten(1, x.shape[1:-1])
    return result


class _Products(torch.autograd.Function):
    """(K, B, I), (K, O, I), (K, O) to (K, B, O). Its gradients are laid out as the weights
    are; autograd's are transposed, and the optimizer would have to copy them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.baddbmm(bias.unsqueeze(1), x, weight.mT)

    @staticmethod
    def backward(ctx: Any, *wanted: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (grad,) = ctx.saved_tensors, wanted
        inward = torch.bmm(grad, weight) if ctx.needs_input_grad[0] else None
        if x.shape[-1] < grad.shape[-1]:  # few columns are slow, and copying them is not
            outer = torch.bmm(x.mT, grad).mT.contiguous()
        else:
            outer = torch.bmm(grad.mT, x)
        return inward, outer, grad.sum(1)


class _StackedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the rows that are not padding; without padding, torch's own."""

    def __init__(self, layer: nn.BatchNorm1d, now: Now) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(layer.__dict__)
        self.now = now

    def forward(self, x: Tensor) -> Tensor:
        rows, count = self.now.rows, self.now.count
        if rows is None or count is None or not self.training:
            return super().forward(x)
        if x.shape[0] != len(rows):
            raise ConfigError(
                f"engine=batched cannot tell padding from rows in {type(self).__name__[7:]}, "
                f"whose input has {x.shape[0]} rows for a batch of {len(rows)}: use engine=serial"
            )
        others = [0, *range(2, x.ndim)]
        real = rows.view(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        per_channel = (1, -1, *[1] * (x.ndim - 2))
        total = count.to(x.dtype) * (x[0, 0].numel())
        mean = (x * real).sum(others) / total
        centred = (x - mean.view(per_channel)) * real
        variance = centred.square().sum(others) / total
        if self.track_running_stats and self.running_mean is not None:
            assert self.running_var is not None and self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            share = 1.0 / self.num_batches_tracked if self.momentum is None else self.momentum
            unbiased = variance.detach() * (total / (total - 1))
            self.running_mean.add_((mean.detach() - self.running_mean) * share)
            self.running_var.add_((unbiased - self.running_var) * share)
        # Padded rows come out as the bias: finite, and without weight in loss and gradient.
        scaled = centred * (variance + self.eps).rsqrt().view(per_channel)
        if self.affine:
            scaled = scaled * self.weight.view(per_channel) + self.bias.view(per_channel)
        return scaled


@stacks(nn.BatchNorm1d)
class StackedBatchNorm1d(_StackedBatchNorm, nn.BatchNorm1d):
    """Over (B, C) or (B, C, L)."""


@stacks(nn.BatchNorm2d)
class StackedBatchNorm2d(_StackedBatchNorm, nn.BatchNorm2d):
    """Over (B, C, H, W)."""


@stacks(nn.LSTM)
class StackedLSTM(nn.Module):
    """``nn.LSTM`` of any depth and direction; from zero states, without projections."""

    def __init__(self, layer: nn.LSTM, now: Now) -> None:
        super().__init__()
        self.layer_count, self.rate, self.now = layer.num_layers, layer.dropout, now
        self.batch_first, self.hidden_size = layer.batch_first, layer.hidden_size
        self.endings = ("", "_reverse") if layer.bidirectional else ("",)
        if layer.proj_size:
            raise ConfigError(
                f"engine=batched has no nn.LSTM with proj_size={layer.proj_size}: "
                "use engine=serial, or proj_size=0"
            )
        for name, parameter in layer.named_parameters():
            self.register_parameter(name, parameter)

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if state is not None or not isinstance(x, Tensor) or x.ndim != 3:
            raise ConfigError(
                "engine=batched runs nn.LSTM over (B, T, F) tensors from zero states only, "
                "and this model gives it something else: use engine=serial"
            )
        x = x if self.batch_first else x.transpose(0, 1)
        hidden, cells = [], []
        for number in range(self.layer_count):
            if number and self.training and self.rate > 0:
                x = self.now.dropout(x, self.rate)
            x, h, c = lifted(self._run, x, *self._weights(number))
            hidden.append(h)
            cells.append(c)
        outputs = x if self.batch_first else x.transpose(0, 1)
        return outputs, (torch.cat(hidden), torch.cat(cells))

    def _run(self, x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return bidirectional_lstm(x, weights, directions=len(self.endings))

    def _weights(self, number: int) -> list[Tensor]:
        """Return w_ih, w_hh, and the sum of both biases, for each direction in turn."""
        found: list[Tensor] = []
        for ending in self.endings:
            w_ih, w_hh = (getattr(self, f"weight_{k}_l{number}{ending}") for k in ("ih", "hh"))
            names = [f"bias_{k}_l{number}{ending}" for k in ("ih", "hh")]
            biases = [getattr(self, name) for name in names if hasattr(self, name)]
            zero = w_ih.new_zeros(4 * self.hidden_size)
            found += [w_ih, w_hh, biases[0] + biases[1] if biases else zero]
        return found

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

from fedpdm.engines.stacked.convolution import convolution, halved, normalisation
from fedpdm.engines.stacked.dropout import drop
from fedpdm.engines.stacked.products import Linear
from fedpdm.engines.stacked.recurrence import bidirectional_lstm
from fedpdm.errors import ConfigError


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


class _Taken(nn.Module):
    """A layer with everything that another one has, its parameters too."""

    def __init__(self, layer: nn.Module, now: Now) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(layer.__dict__)
        self.now = now


@stacks(nn.Linear)
class StackedLinear(_Taken, nn.Linear):
    """One batched product for all sites; vmap's own rule multiplies and adds in turn."""

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2:
            return functional.linear(x, self.weight, self.bias)
        bias = self.weight.new_zeros(self.out_features) if self.bias is None else self.bias
        result: Tensor = lifted(_linear, x, self.weight, bias)
        return result


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    rows = Linear.apply(x.flatten(1, -2), weight, bias)  # type: ignore[no-untyped-call]
    result: Tensor = rows.unflatten(1, x.shape[1:-1])
    return result


@stacks(nn.Conv1d)
class StackedConv1d(_Taken, nn.Conv1d):
    """Of stride and dilation 1, padded with zeros or not; another one goes vmap's way."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        plain = self.stride == self.dilation == (1,) and self.groups == 1
        if not plain or isinstance(self.padding, str) or self.padding_mode != "zeros" or x.ndim < 3:
            other: Tensor = super()._conv_forward(x, weight, bias)
            return other
        bias = weight.new_zeros(self.out_channels) if bias is None else bias
        padding = self.padding[0]
        result: Tensor = lifted(
            lambda x, weight, bias: convolution(x, weight, bias, padding), x, weight, bias
        )
        return result


@stacks(nn.MaxPool1d)
class StackedMaxPool1d(_Taken, nn.MaxPool1d):
    """Of two neighbours; another one goes vmap's way."""

    def forward(self, x: Tensor) -> Tensor:
        two = self.kernel_size in (2, (2,)) and self.stride in (2, (2,))
        plain = not (self.padding or self.ceil_mode or self.return_indices)
        if not two or not plain or self.dilation != 1 or x.ndim < 3:
            other: Tensor = super().forward(x)
            return other
        result: Tensor = lifted(halved, x)
        return result


class _StackedBatchNorm(_Taken, nn.modules.batchnorm._BatchNorm):
    """Batch norm over the rows that are not padding."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        rows, count = self.now.rows, self.now.count
        if rows is not None and x.shape[0] != len(rows):
            raise ConfigError(
                f"engine=batched cannot tell padding from rows in {type(self).__name__[7:]}, "
                f"whose input has {x.shape[0]} rows for a batch of {len(rows)}: use engine=serial"
            )
        places = x[0, 0].numel()
        total = x.new_full((), len(x) * places) if count is None else count.to(x.dtype) * places
        weight = self.weight if self.affine else x.new_ones(self.num_features)
        bias = self.bias if self.affine else x.new_zeros(self.num_features)
        padding = () if rows is None else (rows,)
        mean: Tensor
        result: Tensor
        variance: Tensor
        result, mean, variance = lifted(
            lambda x, weight, bias, total, *rows: normalisation(
                x, weight, bias, rows[0] if rows else None, total, self.eps
            ),
            x, weight, bias, total, *padding,
        )  # fmt: skip
        if self.track_running_stats and self.running_mean is not None:
            assert self.running_var is not None and self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            share = 1.0 / self.num_batches_tracked if self.momentum is None else self.momentum
            unbiased = variance.detach() * (total / (total - 1))
            self.running_mean.add_((mean.detach() - self.running_mean) * share)
            self.running_var.add_((unbiased - self.running_var) * share)
        return result


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

"""Dropout masks of a stack, a function of the site, the step, the call and the value's place.

A generator per site would draw as many masks in as many calls, and a generator for the stack
would make a site's mask depend on its neighbours. Shapes: K sites, B rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

_STEP, _LAYER = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03
_MIX64 = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_MIX32 = (0x7FEB352D, 0x846CA68B)
_COORDINATE = 0x9E3779B1
_HALF = 2**16


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
        rate: probability that a value is dropped, in steps of 2**-16.

    Returns:
        Bools of that shape.
    """
    seeds = _mix64(_mix64(keys + steps * _signed(_STEP, 64)) + _signed(layer * _LAYER, 64))
    first = ((seeds << 32) >> 32).to(torch.int32)
    second = (seeds >> 32).to(torch.int32)
    # Each word of 32 bits decides on two neighbours in the last dimension.
    words = [*shape[1:-1], -(-shape[-1] // 2)]
    x = first
    # Coordinate by coordinate, so that a mask does not depend on how far rows are padded.
    for dim, size in enumerate(words, start=1):
        places = torch.arange(size, dtype=torch.int32, device=keys.device)
        x = x.unsqueeze(-1) ^ (places + 1).mul_(_signed(_COORDINATE, 32))
        x ^= _shifted(x, 16, 32)
        x *= _signed(_MIX32[0], 32)
        x ^= second.view(-1, *[1] * dim)
        x ^= _shifted(x, 15, 32)
        x *= _signed(_MIX32[1], 32)
        x ^= _shifted(x, 16, 32)
    limit = dropped(rate) - _HALF // 2
    return (x.view(torch.int16) >= limit)[..., : shape[-1]]


def dropped(rate: float) -> int:
    """Return of how many of 65,536 halves of a word a value is dropped."""
    return round(rate * _HALF)


def drop(x: Tensor, keys: Tensor, steps: Tensor, layer: int, rate: float) -> Tensor:
    """Return (K, B, …) values, those not ``kept`` as 0 and the others scaled up to the same mean.

    The arguments are those of ``kept``.
    """
    share = 1.0 - dropped(rate) / _HALF
    if not share:
        return x * 0.0
    factor = kept(x.shape, keys, steps, layer, rate).to(x.dtype)
    return x * factor.mul_(1.0 / share)

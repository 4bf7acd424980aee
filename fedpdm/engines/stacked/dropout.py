"""Dropout by a hash of who, when and where, in place of a stream of random numbers.

A value's fate is a hash of (site's key, step, dropout call, its coordinates). There is no
state, so masks are the same for any stack, chunk, cohort or device, and inside a CUDA
graph. The mixers are SplitMix64 (Steele et al. 2014) and "lowbias32" (Wellons 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor

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

"""The borders of bins from counts alone: quantiles that no row is needed for.

A float32 whose bits are read as a whole number, the sign turned round, keeps its order. Its 12
leading bits (sign, exponent, 3 bits of the fraction) are a cell that needs no knowledge of the
data. Holders of rows count their rows in each; cells with more than a bin's share of all rows are
asked for once more, 6 bits finer. A border is the upper end of a cell, never a reading. Counts are
whole numbers, so the borders are the same however rows are spread over sites. Shapes: N rows, K
columns, R cells of a column that are asked for again, B bins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.rows import Floats32, Ints

COARSE, FINE = 12, 6
"""Bits of a cell, and of its parts."""
CELLS, PARTS = 1 << COARSE, 1 << FINE
_SHIFT = 32 - COARSE
_REST = _SHIFT - FINE
FARTHEST = np.finfo(np.float32).max
"""A border that no row lies above: of bins that are not used."""

Numbers = NDArray[np.uint32]


def keys(columns: Floats32) -> Numbers:
    """Return whole numbers in the order of the values; 0.0 and -0.0 are one."""
    bits = np.ascontiguousarray(columns + np.float32(0.0)).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def values(found: Numbers) -> Floats32:
    """Return the values behind ``keys``."""
    bits = np.where(found >> 31, found ^ np.uint32(1 << 31), ~found)
    return bits.astype(np.uint32).view(np.float32)


def cell_counts(columns: Floats32) -> Ints:
    """Return (K, CELLS) how many of (N, K) values lie in each cell."""
    count = columns.shape[1]
    place = (keys(columns) >> _SHIFT).astype(np.int64) + np.arange(count) * CELLS
    return np.bincount(place.ravel(), minlength=count * CELLS).reshape(count, CELLS)


def heavy_cells(counts: Ints, bins: int) -> Ints:
    """Return (K, R) cells with more than a bin's share of the rows, in order; -1 where none is.

    Args:
        counts: (K, CELLS) of all rows.
        bins: B.
    """
    heavy = counts * bins > counts.sum(axis=1, keepdims=True)
    found = np.full((len(counts), max(1, int(heavy.sum(axis=1).max()))), -1, dtype=np.int64)
    for own, cells in zip(found, heavy, strict=True):
        own[: cells.sum()] = np.flatnonzero(cells)
    return found


def part_counts(columns: Floats32, cells: Ints) -> Ints:
    """Return (K, R, PARTS) how many of (N, K) values lie in each part of (K, R) cells."""
    count, asked = cells.shape
    place = np.full((count, CELLS), -1, dtype=np.int64)
    for own, wanted in zip(place, cells, strict=True):
        own[wanted[wanted >= 0]] = np.flatnonzero(wanted >= 0)
    found = keys(columns)
    column = np.broadcast_to(np.arange(count), found.shape)
    slot = place[column, found >> _SHIFT]
    inside = slot >= 0
    part = (found >> _REST).astype(np.int64) % PARTS
    index = ((column * asked + slot) * PARTS + part)[inside]
    return np.bincount(index, minlength=count * asked * PARTS).reshape(count, asked, PARTS)


def edges_of(counts: Ints, cells: Ints, parts: Ints, bins: int) -> Floats32:
    """Return (K, B - 1) borders, each the largest value of its bin, in order.

    A column with at most B cells that are not empty has them as its bins; else a bin ends with
    the first cell that fills its share of the rows.

    Args:
        counts: (K, CELLS) of all rows.
        cells: (K, R) those that were asked for again.
        parts: (K, R, PARTS) their counts.
        bins: B.
    """
    edges = np.full((len(counts), bins - 1), FARTHEST, dtype=np.float32)
    for own, coarse, again, fine in zip(edges, counts, cells, parts, strict=True):
        rest = np.setdiff1d(np.flatnonzero(coarse), again)
        ends = [((rest + 1) << _SHIFT) - 1]
        sizes = [coarse[rest]]
        for cell, found in zip(again[again >= 0], fine, strict=False):
            ends.append((cell << _SHIFT) + ((np.arange(PARTS) + 1) << _REST) - 1)
            sizes.append(found)
        end, size = np.concatenate(ends), np.concatenate(sizes)
        order = np.argsort(end[size > 0])
        end, size = end[size > 0][order], size[size > 0][order]
        last = np.ones(len(end), dtype=bool)
        if len(end) > bins:
            share = np.cumsum(size) * bins // size.sum()
            last = share > np.concatenate([[0], share[:-1]])
        last[-1:] = False  # no row lies above the last
        borders = values(end[last].astype(np.uint32))
        own[: len(borders)] = borders
    return edges


def bin_of(columns: Floats32, edges: Floats32) -> NDArray[np.uint8]:
    """Return (N, K) the bin of each value: how many borders lie below it."""
    found = np.empty(columns.shape, dtype=np.uint8)
    for column, (own, borders) in enumerate(zip(columns.T, edges, strict=True)):
        found[:, column] = np.searchsorted(borders, own, side="left")
    return found

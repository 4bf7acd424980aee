"""PowerSGD: of each matrix of differences two thin factors travel; the rest comes later.

Vogels, Karimireddy and Jaggi 2019, *PowerSGD: Practical Low-Rank Gradient Compression for
Distributed Optimization* (NeurIPS), algorithms 1 and 2. A tensor is taken as a matrix M of n rows
(its first axis) and m columns; with the factor Q of the round before (drawn at first)

    P ← orthogonalise(M·Q),   Q ← Mᵀ·P,   C(M) = P·Qᵀ

one step of subspace iteration, which from round to round comes near the best approximation of its
rank. Vectors, and matrices whose factors would be no shorter, travel as they are; so with the
full rank nothing is lost.

*Use it* for models of large matrices. *It costs* 4·rank·(n + m) bytes a matrix, and memory of one
model and the factors Q at each site. Deviates from the paper in that every site has factors of
its own: the paper averages P between the two steps, which would take two messages a round. A
tensor of more axes is not split into groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.transforms.compression import Compression, check, kind_of, read
from fedpdm.wire.records import Arrays


class PowerSGD(Compression):
    """Sends low-rank factors of differences.

    Args:
        rank: of the factors, 1 to 1024.
        direction: ``up``, ``down`` or ``both``.
        error_feedback: what the factors do not hold is remembered and added to the next
            difference.

    Raises:
        ConfigError: a setting is out of its range.
    """

    def __init__(self, rank: int = 2, direction: str = "both", error_feedback: bool = True) -> None:
        super().__init__(direction, error_feedback)
        check(self, {"rank": (rank, 1, 1024)})
        self.rank = rank

    def pack(self, change: Arrays, own: Arrays, generator: np.random.Generator) -> Arrays:
        parts = [np.zeros(0)]
        for name, array, pair in self._tensors(change):
            if pair is None:
                parts.append(np.reshape(array, -1))
                continue
            columns, matrix = pair[1], np.reshape(array, (len(array), -1))
            old = own.get(name)
            if old is None:
                old = generator.standard_normal((columns, self.rank)).astype(array.dtype)
            left = product(matrix, old)
            left = np.linalg.qr(left)[0] if np.isfinite(left).all() else left
            own[name] = product(matrix.T, left)
            parts += [np.reshape(left, -1), np.reshape(own[name], -1)]
        return {"factors": np.concatenate(parts).astype(kind_of(change))}

    def unpack(self, packed: Arrays, like: Arrays) -> Arrays:
        length = sum(
            array.size if pair is None else self.rank * sum(pair)
            for _, array, pair in self._tensors(like)
        )
        (vector,) = read(packed, factors=(length, kind_of(like)))
        found, begin = {}, 0
        for name, array, pair in self._tensors(like):
            if pair is None:
                values = vector[begin : begin + array.size]
                begin += array.size
            else:
                rows, columns = pair
                middle, end = begin + rows * self.rank, begin + (rows + columns) * self.rank
                left = np.reshape(vector[begin:middle], (rows, self.rank))
                right = np.reshape(vector[middle:end], (columns, self.rank))
                values, begin = product(left, right.T), end
            found[name] = np.reshape(values, array.shape).astype(array.dtype)
        return found

    def _tensors(
        self, arrays: Arrays
    ) -> Iterator[tuple[str, NDArray[Any], tuple[int, int] | None]]:
        """Yield each tensor with rows and columns of its matrix; None if it travels as it is."""
        for name, array in arrays.items():
            pair = None
            if array.ndim > 1 and array.size:
                rows, columns = len(array), array.size // len(array)
                if self.rank * (rows + columns) < array.size:
                    pair = rows, columns
            yield name, array, pair


def product(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Return a matrix product whose sums have one order, however many threads there are."""
    found: NDArray[Any] = np.einsum("ij,jk->ik", first, second)
    return found

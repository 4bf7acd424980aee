"""What the server computes with received arrays. Nothing here changes its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Message
from flwr.serverapp.strategy import FedAvg, Strategy
from numpy.typing import NDArray

from fedpdm.messages import EXAMPLES, Arrays


@dataclass(frozen=True)
class Update:
    """One plant's accepted reply of a round.

    Attributes:
        site: who sent it.
        metrics: what the plant reported, ``num-examples`` among it.
        norm: Euclidean distance of the new weights from the sent ones.
        message: the reply, for strategies that combine whole replies; else None.
    """

    site: str
    metrics: Mapping[str, float]
    norm: float
    message: Message | None = None

    @property
    def examples(self) -> float:
        return self.metrics[EXAMPLES]


def distance(arrays: Arrays, expected: Arrays) -> float:
    """Return the Euclidean distance between arrays of the same names and shapes.

    NaN or infinite if, and only if, some value of ``arrays`` is, for float32 and narrower.
    """
    total = 0.0
    for name, array in arrays.items():
        change = np.subtract(array, expected[name], dtype=np.float64).ravel()
        total += float(np.dot(change, change))
    return float(np.sqrt(total))


def mismatch(arrays: Arrays, expected: Arrays) -> str | None:
    """Return how the names or shapes of received arrays differ from the model's, or None."""
    if arrays.keys() != expected.keys():
        odd = sorted(set(arrays) ^ set(expected))
        return f"its tensors are not the model's: {', '.join(odd[:3])}"
    for name, array in arrays.items():
        if array.shape != expected[name].shape:
            return f"{name} has shape {array.shape} and not {expected[name].shape}"
    return None


def not_finite(arrays: Arrays) -> str | None:
    """Return where arrays hold NaN or infinity, or None."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            return f"{count} of {array.size} values of {name} are NaN or infinite"
    return None


class WeightedMean:
    """The mean of arrays weighted by examples, added up one plant after another.

    Sums are float64 and made in the order of ``add``; integer arrays take the maximum. The
    memory is that of one model, however many plants there are. For float32 arrays and
    whole weights every product is exact, so equal updates give back just themselves.
    """

    def __init__(self) -> None:
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._largest: Arrays = {}
        self._weight = 0.0
        self._dtypes: dict[str, np.dtype[np.generic]] = {}

    def add(self, arrays: Arrays, weight: float) -> None:
        """Add one plant's arrays."""
        self._weight += weight
        for name, array in arrays.items():
            self._dtypes[name] = array.dtype
            if array.dtype.kind in "iu":
                largest = self._largest.get(name)
                self._largest[name] = array if largest is None else np.maximum(largest, array)
            elif name in self._sums:
                self._sums[name] += np.multiply(array, weight, dtype=np.float64)
            else:
                self._sums[name] = np.multiply(array, weight, dtype=np.float64)

    def mean(self) -> Arrays | None:
        """Return the mean in the arrays' own types, or None if nothing has weight."""
        if self._weight <= 0:
            return None
        means = {name: total / self._weight for name, total in self._sums.items()}
        return {
            name: np.asarray(self._largest[name] if name in self._largest else means[name], dtype)
            for name, dtype in self._dtypes.items()
        }


def is_weighted_mean(strategy: Strategy) -> bool:
    """Return whether the strategy combines updates by Flower's mean weighted by examples.

    Then they can be added up as they come, instead of being kept until the last is there.
    """
    return (
        isinstance(strategy, FedAvg)
        and type(strategy).aggregate_train is FedAvg.aggregate_train
        and strategy.weighted_by_key == EXAMPLES
    )

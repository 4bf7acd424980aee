"""What the server computes with received arrays. Nothing here changes its input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
from numpy.typing import NDArray

from fedpdm.storage import cut
from fedpdm.wire.records import EXAMPLES, Arrays


class VectorSum:
    """A weighted sum of arrays as one vector, added up one site after another.

    Sums are float64 and made in the order of ``add``; the memory is that of one model,
    however many sites there are. For float32 and whole weights every product is exact, so
    the mean of equal updates is just themselves.

    Args:
        like: names and shapes of the arrays.
    """

    def __init__(self, like: Arrays) -> None:
        self._shapes = {name: array.shape for name, array in like.items()}
        size = sum(array.size for array in like.values())
        self._sum = np.full(size, -0.0)  # 0.0 would take the sign off a -0.0
        self._scratch = np.empty(size)

    def add(self, vector: NDArray[Any], weight: float) -> None:
        """Add one site's (P,) values."""
        self._sum += np.multiply(vector, weight, out=self._scratch, dtype=np.float64)

    def values(self) -> Arrays:
        """Return the sum as arrays, which share its memory."""
        return cut(self._sum, self._shapes)


class BufferSum:
    """Buffers added up, weighted by examples.

    Arrays of whole numbers, which count something, take the maximum.

    Attributes:
        sums: the weighted sums in float64.
        largest: the maxima of arrays of whole numbers.
        weight: the sum of the weights.
    """

    def __init__(self) -> None:
        self.sums: Arrays = {}
        self.largest: Arrays = {}
        self.weight = 0.0

    def add(self, arrays: Arrays, factor: float, weight: float) -> None:
        """Add one site's arrays, multiplied by ``factor``; they count ``weight``."""
        self.weight += weight
        for name, array in arrays.items():
            if array.dtype.kind in "iu":
                largest = self.largest.get(name)
                self.largest[name] = array if largest is None else np.maximum(largest, array)
            elif name in self.sums:
                self.sums[name] += np.multiply(array, factor, dtype=np.float64)
            else:
                self.sums[name] = np.multiply(array, factor, dtype=np.float64)


@dataclass(frozen=True)
class Sums:
    """A round's updates after they were added up one by one.

    Attributes:
        sites: what each of them reported, in site order.
        weight: the sum of their weights.
        mean: the weighted mean of their parameters, in float64.
        means: the same of each further record that they sent.
    """

    sites: Sequence[Mapping[str, float]]
    weight: float
    mean: Arrays
    means: Mapping[str, Arrays]


@runtime_checkable
class AddsUp(Protocol):
    """A strategy that needs of a round's updates only weighted sums, so that none is kept."""

    @property
    def replies(self) -> Sequence[str]:
        """Records that sites send beside their parameters, with the same names and shapes."""

    def weight(self, metrics: Mapping[str, float]) -> float:
        """Return the weight of a site from what it reported; may raise what it likes."""

    def combine(self, server_round: int, sent: Arrays, sums: Sums) -> Arrays:
        """Return the new parameters from those that were sent and the sums of the replies."""


class MeanByExamples:
    """Flower's FedAvg: the mean weighted by examples."""

    replies: Sequence[str] = ()

    def weight(self, metrics: Mapping[str, float]) -> float:
        return metrics[EXAMPLES]

    def combine(self, server_round: int, sent: Arrays, sums: Sums) -> Arrays:
        return sums.mean


def adds_up(strategy: Strategy) -> AddsUp | None:
    """Return how a strategy's updates are added up as they come; None if it needs them all."""
    if is_weighted_mean(strategy):
        return MeanByExamples()
    # Asked of the class too: a wrapper may pass on attributes of the strategy that it holds.
    own = hasattr(type(strategy), "combine")
    return strategy if own and isinstance(strategy, AddsUp) else None


def weighs_by_examples(adding: AddsUp) -> bool:
    """Return whether a site counts as many times as it has examples."""
    try:
        return adding.weight({EXAMPLES: 3.0}) == 3.0
    except Exception:  # it needs more than that
        return False


def is_weighted_mean(strategy: Strategy) -> bool:
    """Return whether the strategy combines updates by Flower's mean weighted by examples.

    Then they can be added up as they come, instead of being kept until the last is there. A
    strategy that combines metrics in its own way gets the replies themselves.
    """
    return (
        isinstance(strategy, FedAvg)
        and type(strategy).aggregate_train is FedAvg.aggregate_train
        and strategy.weighted_by_key == EXAMPLES
        and strategy.train_metrics_aggr_fn is aggregate_metricrecords
    )

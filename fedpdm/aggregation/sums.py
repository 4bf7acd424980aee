"""What the server computes with received arrays. Nothing here changes its input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from flwr.app import Message
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
from numpy.typing import NDArray

from fedpdm.storage import cut
from fedpdm.wire.records import EXAMPLES, Arrays


@dataclass(frozen=True)
class Update:
    """One site's accepted reply of a round.

    Attributes:
        site: who sent it.
        metrics: what the site reported, ``num-examples`` among it.
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


def mismatch(arrays: Arrays, expected: Arrays) -> str | None:
    """Return how names, shapes or kinds of received arrays differ from the model's, or None."""
    if arrays.keys() != expected.keys():
        odd = sorted(set(arrays) ^ set(expected))
        return f"its tensors are not the model's: {', '.join(odd[:3])}"
    for name, array in arrays.items():
        if array.shape != expected[name].shape:
            return f"{name} has shape {array.shape} and not {expected[name].shape}"
        if array.dtype.kind != expected[name].dtype.kind:
            return f"{name} holds {array.dtype} and not {expected[name].dtype}"
    return None


def not_finite(arrays: Arrays) -> str | None:
    """Return where arrays hold NaN or infinity, or None."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            return f"{count} of {array.size} values of {name} are NaN or infinite"
    return None


class Vectors:
    """Parameters as one vector: how far a site's are from those that were sent, and their mean.

    The mean is weighted by examples and added up one site after another. Sums are float64 and
    made in the order of ``add``; the memory is that of one model, however many sites there
    are. For float32 and whole weights every product is exact, so equal updates give back just
    themselves.

    Args:
        sent: names, shapes and types of the parameters, and what they are compared with.
    """

    def __init__(self, sent: Arrays) -> None:
        self._sent = sent
        size = sum(array.size for array in sent.values())
        # Memory of its own for what every site needs anew: fresh pages cost more than the sums.
        self._values = np.empty(size, np.result_type(*sent.values()) if sent else np.float64)
        self._start = self.of(sent).astype(np.float64)
        self._sum = np.full_like(self._start, -0.0)  # 0.0 would take the sign off a -0.0
        self._scratch = np.empty_like(self._start)
        self._weight = 0.0

    def of(self, arrays: Arrays) -> NDArray[Any]:
        """Return (P,) values of arrays with the names and shapes of ``sent``; good until the
        next call, which writes over them."""
        if not self._sent:
            return np.zeros(0)
        parts = [arrays[name].reshape(-1) for name in self._sent]
        return np.concatenate(parts, out=self._values, casting="unsafe")

    def distance(self, vector: NDArray[Any]) -> float:
        """Return the Euclidean distance from what was sent.

        For float32 and narrower types it is NaN or infinite if, and only if, a value is.
        """
        change = np.subtract(vector, self._start, out=self._scratch)
        return float(np.sqrt(np.dot(change, change)))

    def add(self, vector: NDArray[Any], weight: float) -> None:
        """Add one site's values."""
        self._weight += weight
        self._sum += np.multiply(vector, weight, out=self._scratch, dtype=np.float64)

    def exact(self) -> Arrays | None:
        """Return the mean in float64, or None if nothing has weight."""
        if self._weight <= 0:
            return None
        shapes = {name: array.shape for name, array in self._sent.items()}
        return cut(self._sum / self._weight, shapes)

    def mean(self) -> Arrays | None:
        """Return the mean in the parameters' own types, or None if nothing has weight."""
        exact = self.exact()
        if exact is None:
            return None
        return {name: exact[name].astype(array.dtype) for name, array in self._sent.items()}


class WeightedMean:
    """The mean of buffers weighted by examples, added up as ``Vectors`` does.

    Arrays of whole numbers, which count something, take the maximum.
    """

    def __init__(self) -> None:
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._largest: Arrays = {}
        self._weight = 0.0
        self._dtypes: dict[str, np.dtype[np.generic]] = {}

    def add(self, arrays: Arrays, weight: float) -> None:
        """Add one site's arrays."""
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

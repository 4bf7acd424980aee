"""Weighted sums and means of received arrays. Nothing here changes its input.

Updates are added up as they arrive, and none is kept; a strategy that needs all of them gets
their messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
from numpy.typing import NDArray

from fedpdm.aggregation.update import Base, Contribution, Update
from fedpdm.storage import cut
from fedpdm.wire.records import ARRAYS, BUFFERS, EXAMPLES, METRICS, Arrays, to_record


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
        norms: the length of each update, in site order; None where its values are hidden.
    """

    sites: Sequence[Mapping[str, float]]
    weight: float
    mean: Arrays
    means: Mapping[str, Arrays]
    norms: Sequence[float | None] = ()


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


@dataclass(frozen=True)
class Total:
    """A record's weighted sum over sites, in float64.

    Attributes:
        values: the sums of the arrays.
        weight: the sum of the weights.
    """

    values: Arrays
    weight: float

    def mean(self) -> Arrays:
        return {name: value / self.weight for name, value in self.values.items()}


class Accumulation:
    """The accepted updates of one base version, one after another, in site order.

    Args:
        base: what was sent to all of them.
        adding: how to add updates up. None: their messages are kept.
        wide: values may need more digits than the parameters' own type has.
    """

    def __init__(self, base: Base, adding: AddsUp | None, wide: bool = False) -> None:
        self._base, self._adding, self._wide = base, adding, wide
        names = (ARRAYS, *adding.replies) if adding is not None else ()
        self._sums = {name: VectorSum(base.arrays) for name in names}
        self._buffers = BufferSum()
        self._weight = 0.0
        self.messages: list[Message] = []

    def add(self, update: Update, reply: Message | None) -> None:
        """Add an update.

        Args:
            update: its values.
            reply: the message that it came with; given a content of the update's own. None: it
                came with none.
        """
        once = update.premultiplied
        self._buffers.add(update.buffers, 1.0 if once else update.examples, update.examples)
        if self._adding is None:
            if reply is None:
                return
            # Records of their own: FedMedian and others take arrays out of them.
            content = {ARRAYS: to_record(update.arrays), METRICS: reply.content[METRICS]}
            reply.content = RecordDict(content)
            self.messages.append(reply)
            return
        self._weight += update.weight
        for name, sums in self._sums.items():
            arrays = update.records[name]
            if self._wide:
                parts = [np.reshape(arrays[n], -1) for n in self._base.arrays]
                vector = np.concatenate(parts, dtype=np.float64)
            else:
                vector = self._base.vector(arrays)
            sums.add(vector, 1.0 if once else update.weight)

    def totals(self) -> dict[str, Total]:
        """Return the sums of each record; of nothing, or without weight, there are none."""
        found = {}
        if self._weight > 0:
            found = {n: Total(sums.values(), self._weight) for n, sums in self._sums.items()}
        if self._buffers.weight > 0:
            found[BUFFERS] = Total(self._buffers.sums, self._buffers.weight)
        return found

    def sums(
        self, totals: Mapping[str, Total], contributions: Sequence[Contribution]
    ) -> Sums | None:
        """Return the means that a strategy combines; None if nothing had weight."""
        if ARRAYS not in totals:
            return None
        means = {n: total.mean() for n, total in totals.items() if n not in (ARRAYS, BUFFERS)}
        metrics = [each.metrics for each in contributions]
        norms = [each.norm for each in contributions]
        return Sums(metrics, totals[ARRAYS].weight, totals[ARRAYS].mean(), means, norms)

    def buffers(self, totals: Mapping[str, Total]) -> Arrays | None:
        """Return the sites' buffers combined, in their own types; None if no site sent any."""
        if BUFFERS not in totals:
            return None
        found = {**totals[BUFFERS].mean(), **self._buffers.largest}
        return {n: np.asarray(found[n], a.dtype) for n, a in self._base.buffers.items()} or None

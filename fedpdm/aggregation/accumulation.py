"""Adds updates up as they come, so that none is kept; or keeps them, for those who need all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Message, RecordDict

from fedpdm.aggregation.sums import AddsUp, BufferSum, Sums, VectorSum
from fedpdm.aggregation.update import Base, Contribution, Update
from fedpdm.wire.records import ARRAYS, BUFFERS, METRICS, Arrays, to_record


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

    def add(self, update: Update, reply: Message) -> None:
        """Add an update.

        Args:
            update: its values.
            reply: the message that it came with; given a content of the update's own.
        """
        once = update.premultiplied
        self._buffers.add(update.buffers, 1.0 if once else update.examples, update.examples)
        if self._adding is None:
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
        return Sums(metrics, totals[ARRAYS].weight, totals[ARRAYS].mean(), means)

    def buffers(self, totals: Mapping[str, Total]) -> Arrays | None:
        """Return the sites' buffers combined, in their own types; None if nobody sent any."""
        if BUFFERS not in totals:
            return None
        found = {**totals[BUFFERS].mean(), **self._buffers.largest}
        return {n: np.asarray(found[n], a.dtype) for n, a in self._base.buffers.items()} or None

"""Takes in the updates of a round: screens each, and adds up those that can be added up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict

from fedpdm.aggregation.sums import (
    AddsUp,
    Sums,
    Update,
    Vectors,
    WeightedMean,
    mismatch,
    not_finite,
)
from fedpdm.wire.flower import array_record, wire_bytes
from fedpdm.wire.records import ARRAYS, BUFFERS, EXAMPLES, METRICS, Arrays, arrays_in, metrics_in

MOST_EXAMPLES = 2.0**53
"""More than any site has; beyond it a sum of weights could not be exact."""


class Note(Protocol):
    """Remembers an event of the round."""

    def __call__(self, kind: str, message: str, site: str | None = None) -> None: ...


class Intake:
    """The updates of one round, one after another, in site order.

    Args:
        parameters: what was sent; an update is refused if its tensors differ in name or
            shape, or hold NaN or infinity.
        buffers: the buffers that were sent beside them.
        note: where refusals go.
        adding: how to add updates up at once and keep none. None: every accepted reply is
            kept, for a strategy that needs all of them.

    Attributes:
        updates: who was accepted.
        answers: how many sites answered, errors not counted.
        bytes_up: serialised size of the replies.
    """

    def __init__(
        self, parameters: Arrays, buffers: Arrays, note: Note, adding: AddsUp | None
    ) -> None:
        self._expected, self._expected_buffers = parameters, buffers
        self._note = note
        self._vectors = Vectors(parameters)
        self._adding = adding
        self._records = {name: Vectors(parameters) for name in (adding.replies if adding else ())}
        self._weight = 0.0
        self._buffers = WeightedMean()
        self.updates: list[Update] = []
        self.answers = 0
        self.bytes_up = 0

    def take(self, site: str, reply: Message) -> None:
        """Take one site's reply."""
        if reply.has_error():
            self._note("site-failed", f"{site} failed: {reply.error.reason}", site)
            return
        self.answers += 1
        self.bytes_up += wire_bytes([reply.content])
        try:
            arrays, buffers = arrays_in(reply.content, ARRAYS), arrays_in(reply.content, BUFFERS)
            records = {name: arrays_in(reply.content, name) for name in self._records}
            metrics = metrics_in(reply.content)
            examples = metrics[EXAMPLES]
            weight = self._adding.weight(metrics) if self._adding else examples
        except Exception as error:  # whatever a site sends, the others' round goes on
            reason = f"it cannot be read ({type(error).__name__}: {error})"
            self._note("refused", f"{site}: update refused, {reason}", site)
            return
        flaw = mismatch(arrays, self._expected) or mismatch(buffers, self._expected_buffers)
        flaw = flaw or self._odd_record(records)
        if not 0 <= examples <= MOST_EXAMPLES:  # NaN is neither
            flaw = flaw or f"its {EXAMPLES} is {examples}"
        if not 0 <= weight <= MOST_EXAMPLES:
            flaw = flaw or f"its weight is {weight}"
        norm = 0.0
        if flaw is None:
            vector = self._vectors.of(arrays)
            norm = self._vectors.distance(vector)
            # A sum of squares is finite only if every value is: one pass instead of two.
            flaw = None if np.isfinite(norm) else not_finite(arrays)
            flaw = flaw or not_finite(buffers)
        if flaw is not None:
            self._note("refused", f"{site}: update refused, {flaw}", site)
            return
        update = Update(site, metrics, norm, copied(reply) if self._adding is None else None)
        self.updates.append(update)
        self._buffers.add(buffers, update.examples)
        if self._adding is None:
            return
        self._weight += weight
        self._vectors.add(vector, weight)
        for name, sums in self._records.items():
            sums.add(sums.of(records[name]), weight)

    def _odd_record(self, records: Mapping[str, Arrays]) -> str | None:
        """Return what is wrong with the records beside the parameters, or None."""
        for name, arrays in records.items():
            flaw = mismatch(arrays, self._expected) or not_finite(arrays)
            if flaw is not None:
                return f"in its {name} {flaw}"
        return None

    def sums(self) -> Sums | None:
        """Return what was added up; None if nothing was, or nothing had weight."""
        mean = self._vectors.exact()
        if self._adding is None or mean is None:
            return None
        means = {name: found for name, v in self._records.items() if (found := v.exact())}
        return Sums([update.metrics for update in self.updates], self._weight, mean, means)

    def buffers(self) -> Arrays | None:
        """Return the sites' buffers combined, or None if nobody sent any."""
        return self._buffers.mean() or None

    def messages(self) -> list[Message]:
        """Return the accepted replies."""
        return [update.message for update in self.updates if update.message is not None]


def copied(reply: Message) -> Message:
    """Give a strategy records of its own: FedMedian and others take arrays out of them."""
    content = reply.content
    arrays = array_record(dict(cast(ArrayRecord, content[ARRAYS]).items()))
    reply.content = RecordDict({ARRAYS: arrays, METRICS: content[METRICS]})
    return reply

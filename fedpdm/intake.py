"""Takes in the updates of a round: screens each, and adds up those that can be added up."""

from __future__ import annotations

from typing import Protocol, cast

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict

from fedpdm.aggregation import Update, Vectors, WeightedMean, mismatch, not_finite
from fedpdm.engines.flower import array_record, wire_bytes
from fedpdm.messages import ARRAYS, BUFFERS, EXAMPLES, METRICS, Arrays, arrays_in, metrics_in

MOST_EXAMPLES = 2.0**53
"""More than any plant has; beyond it a sum of weights could not be exact."""


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
        streaming: add the parameters up at once and keep none. Else every accepted reply is
            kept, for a strategy that needs all of them.

    Attributes:
        updates: who was accepted.
        answers: how many plants answered, errors not counted.
        bytes_up: serialised size of the replies.
    """

    def __init__(self, parameters: Arrays, buffers: Arrays, note: Note, streaming: bool) -> None:
        self._expected, self._expected_buffers = parameters, buffers
        self._note = note
        self._vectors = Vectors(parameters)
        self._streaming = streaming
        self._buffers = WeightedMean()
        self.updates: list[Update] = []
        self.answers = 0
        self.bytes_up = 0

    def take(self, site: str, reply: Message) -> None:
        """Take one plant's reply."""
        if reply.has_error():
            self._note("site-failed", f"{site} failed: {reply.error.reason}", site)
            return
        self.answers += 1
        self.bytes_up += wire_bytes([reply.content])
        try:
            arrays, buffers = arrays_in(reply.content, ARRAYS), arrays_in(reply.content, BUFFERS)
            metrics = metrics_in(reply.content)
            weight = metrics[EXAMPLES]
        except Exception as error:  # whatever a plant sends, the others' round goes on
            reason = f"it cannot be read ({type(error).__name__}: {error})"
            self._note("refused", f"{site}: update refused, {reason}", site)
            return
        flaw = mismatch(arrays, self._expected) or mismatch(buffers, self._expected_buffers)
        if not 0 <= weight <= MOST_EXAMPLES:  # NaN is neither
            flaw = flaw or f"its {EXAMPLES} is {weight}"
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
        update = Update(site, metrics, norm, None if self._streaming else copied(reply))
        self.updates.append(update)
        self._buffers.add(buffers, update.examples)
        if self._streaming:
            self._vectors.add(vector, update.examples)

    def mean(self) -> Arrays | None:
        """Return the weighted mean of the parameters, if this intake was streaming."""
        return self._vectors.mean() if self._streaming else None

    def buffers(self) -> Arrays | None:
        """Return the plants' buffers combined, or None if nobody sent any."""
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

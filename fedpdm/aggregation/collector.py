"""Collects the replies of a round: decodes each, screens it, and adds it to the sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from flwr.app import Message

from fedpdm.aggregation.screening import HIDDEN, OPEN, screen
from fedpdm.aggregation.sums import Accumulation, AddsUp, MeanByExamples, Sums, Total
from fedpdm.aggregation.update import Base, Contribution, Update, decode
from fedpdm.wire.flower import content_bytes
from fedpdm.wire.records import ARRAYS, BUFFERS, EXAMPLES, Arrays


class Note(Protocol):
    """Remembers an event of the round."""

    def __call__(self, kind: str, message: str, site: str | None = None) -> None: ...


class ServerHalves(Protocol):
    """What the server does to updates on their way, as ``transforms.base.Chain`` says."""

    @property
    def hides_values(self) -> bool: ...

    def decode(self, update: Update) -> Update: ...

    def before_sum(self, update: Update) -> Update: ...

    def after_sum(
        self, totals: dict[str, Total], contributions: Sequence[Contribution]
    ) -> dict[str, Total]: ...


class Collector:
    """The updates of one round, one after another, in site order.

    Args:
        base: what was sent.
        note: where refusals go.
        adding: how to add updates up at once and keep none. None: every accepted reply is
            kept, for a strategy that needs all of them.
        transforms: what updates go through on their way, if anything.
        accept: told of every accepted update and its reply.

    Attributes:
        updates: who was accepted.
        answers: how many sites answered, errors not counted.
        bytes_up: serialised size of the replies.
    """

    def __init__(
        self,
        base: Base,
        note: Note,
        adding: AddsUp | None,
        transforms: ServerHalves | None = None,
        accept: Callable[[Update, Message], None] | None = None,
    ) -> None:
        self._base, self._note, self._transforms = base, note, transforms
        self._accept = accept
        self._read = adding or MeanByExamples()
        self._wanted = [ARRAYS, BUFFERS, *self._read.replies]
        self._hidden = transforms is not None and transforms.hides_values
        self._accumulation = Accumulation(base, adding, wide=self._hidden)
        self._totals: dict[str, Total] | None = None
        self.updates: list[Contribution] = []
        self.answers = 0
        self.bytes_up = 0

    def take(self, site: str, reply: Message) -> None:
        """Take one site's reply."""
        if reply.has_error():
            self._note("site-failed", f"{site} failed: {reply.error.reason}", site)
            return
        self.answers += 1
        self.bytes_up += content_bytes(reply.content)
        try:
            update = self._decode(site, reply)
        except Exception as error:  # whatever a site sends, the others' round goes on
            flaw: str | None = f"it cannot be read ({type(error).__name__}: {error})"
        else:
            flaw = screen(update, HIDDEN if self._hidden else OPEN)
        if flaw is not None:
            self._note("refused", f"{site}: update refused, {flaw}", site)
            return
        norm = None if self._hidden else update.norm
        self.updates.append(Contribution(site, update.metrics, norm))
        if self._transforms is not None:
            update = self._transforms.before_sum(update)
        if self._accept is not None:
            self._accept(update, reply)
        self._accumulation.add(update, reply)

    def take_nothing(self) -> None:
        """Take a round in which nobody's update counts as one that changes nothing.

        What transforms add to the sum is added all the same: that there was none must not show.
        """
        self.answers += 1
        if self._transforms is None:
            return
        arrays, buffers = self._base.arrays, self._base.buffers
        zeros = {name: np.zeros_like(array) for name, array in arrays.items()}
        records = dict.fromkeys(self._wanted, zeros) | {ARRAYS: arrays, BUFFERS: buffers}
        update = Update("", self._base, records, {EXAMPLES: 1.0}, 1.0)
        self._accumulation.add(self._transforms.before_sum(update), None)

    def take_sums(self, totals: Mapping[str, Total], updates: Sequence[Contribution]) -> None:
        """Take the sums of a round whose updates nobody could read.

        Args:
            totals: by record.
            updates: whose they are.
        """
        self.updates, self._totals = list(updates), dict(totals)
        if self._transforms is not None:
            self._totals = self._transforms.after_sum(self._totals, self.updates)

    def _decode(self, site: str, reply: Message) -> Update:
        wanted, content, weigh = self._wanted, reply.content, self._read.weight
        if self._transforms is None:
            return decode(site, content, self._base, wanted, weigh)
        names = dict.fromkeys([*wanted, *content.array_records])
        update = self._transforms.decode(decode(site, content, self._base, names, weigh))
        return replace(
            update, site=site, base=self._base, records={n: update.records[n] for n in wanted}
        )

    def totals(self) -> Mapping[str, Total]:
        """Return the sums of the round, after the server's halves of the transforms."""
        if self._totals is None:
            self._totals = self._accumulation.totals()
            if self._transforms is not None:
                self._totals = self._transforms.after_sum(self._totals, self.updates)
        return self._totals

    def sums(self) -> Sums | None:
        """Return what was added up; None if nothing was, or nothing had weight."""
        return self._accumulation.sums(self.totals(), self.updates)

    def buffers(self) -> Arrays | None:
        """Return the sites' buffers combined, or None if no site sent any."""
        return self._accumulation.buffers(self.totals())

    def messages(self) -> list[Message]:
        """Return the accepted replies, where they are kept."""
        return self._accumulation.messages

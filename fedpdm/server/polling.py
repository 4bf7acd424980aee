"""Replies of a Grid elsewhere as they come, for servers that do not wait for all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from flwr.app import Message
from flwr.serverapp import Grid

from fedpdm.aggregation.collector import Note
from fedpdm.server.clock import Clock

POLL_SECONDS = 0.5
"""Between two looks for replies."""


class PolledReplies:
    """Messages under way through Flower's ``push_messages`` and ``pull_messages``.

    Args:
        grid: carries them.
        clock: what time it is.
        timeout: seconds for which a reply is waited for, or None.
    """

    def __init__(self, grid: Grid, clock: Clock, timeout: float | None) -> None:
        self._grid, self._clock, self._timeout = grid, clock, timeout
        self._waiting: dict[str, tuple[str, float, Note]] = {}
        self._arrived: deque[tuple[str, Message]] = deque()

    def push(self, messages: Iterable[Message], nodes: Mapping[int, str], note: Note) -> None:
        """Send messages without waiting.

        Args:
            messages: one per site.
            nodes: says which node is which site.
            note: remembers who stays silent.
        """
        sent = list(messages)
        last = float("inf") if self._timeout is None else self._clock.seconds() + self._timeout
        for message, i in zip(sent, self._grid.push_messages(sent), strict=True):
            site = nodes[message.metadata.dst_node_id]
            if i:
                self._waiting[i] = (site, last, note)
            else:
                note("timeout", f"{site} could not be sent its message", site)

    def next(self) -> tuple[str, Message] | None:
        """Return the next site's reply; None if none is waited for any more."""
        while not self._arrived and self._waiting:
            for reply in self._grid.pull_messages(list(self._waiting)):
                if found := self._waiting.pop(reply.metadata.reply_to_message_id, None):
                    self._arrived.append((found[0], reply))
            for i, (site, last, note) in list(self._waiting.items()):
                if self._clock.seconds() >= last:
                    del self._waiting[i]
                    note("timeout", f"{site} did not answer (round_timeout={self._timeout})", site)
            if not self._arrived and self._waiting:
                self._clock.sleep(POLL_SECONDS)
        return self._arrived.popleft() if self._arrived else None

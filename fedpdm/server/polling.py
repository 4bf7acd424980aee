"""Replies of a Grid that sends without waiting, as they come: for servers that do not wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from flwr.app import Message
from flwr.serverapp import Grid

from fedpdm.server.clock import Clock

POLL_SECONDS = 0.5
"""Between two looks for replies."""


class PolledReplies:
    """Messages under way through Flower's ``push_messages`` and ``pull_messages``.

    Args:
        grid: carries them.
        clock: what time it is.
    """

    def __init__(self, grid: Grid, clock: Clock) -> None:
        self._grid, self._clock = grid, clock
        self._waiting: dict[str, float | None] = {}
        self._arrived: deque[Message] = deque()

    def push(self, messages: Iterable[Message], timeout: float | None) -> None:
        """Send messages; their replies are waited for so many seconds, None: for ever."""
        deadline = None if timeout is None else self._clock.seconds() + timeout
        for message_id in self._grid.push_messages(messages):
            self._waiting[message_id] = deadline

    def next(self) -> Message | None:
        """Return the next reply; None if none is waited for any more."""
        while not self._arrived and self._waiting:
            for reply in self._grid.pull_messages(list(self._waiting)):
                if self._waiting.pop(reply.metadata.reply_to_message_id, 0.0) != 0.0:
                    self._arrived.append(reply)
            now = self._clock.seconds()
            self._waiting = {i: d for i, d in self._waiting.items() if d is None or d > now}
            if not self._arrived and self._waiting:
                self._clock.sleep(POLL_SECONDS)
        return self._arrived.popleft() if self._arrived else None

"""The serial engine: one process, sites in turn, in site order.

Where a debugger works, and the truth that other engines are compared with.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from flwr.app import Message

from fedpdm.engines.local_grid import LocalGrid


class SerialGrid(LocalGrid):
    """Sites work one after another in this process."""

    name = "serial"

    def stream(
        self, messages: Iterable[Message], timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield each reply when its site is done; who is not done in time is left out."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for message in self.numbered(messages):
            if deadline is not None and time.monotonic() >= deadline:
                return
            reply = self.answer(message)
            if deadline is None or time.monotonic() < deadline:
                yield reply

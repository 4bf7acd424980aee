"""``check_engine`` finds every breach; that ours pass is in tests/engines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator

import pytest
from flwr.app import Message

from fedpdm.engines.local_grid import LocalGrid
from fedpdm.engines.serial import SerialGrid
from fedpdm.testing import check_engine
from fedpdm.testing.engine import still_there


class Reversed(SerialGrid):
    def stream(
        self, messages: Iterable[Message], timeout: float | None = None
    ) -> Iterator[Message]:
        yield from reversed(list(super().stream(messages, timeout)))


class Forgetful(SerialGrid):
    def answer(self, message: Message) -> Message:
        reply = super().answer(message)
        self.states.pop("p2", None)
        return reply


class Misplacing(SerialGrid):
    """Gives every site the memory of the first."""

    def answer(self, message: Message) -> Message:
        reply = super().answer(message)
        for site in self.states:
            self.states[site] = self.states["p0"]
        return reply


class Fragile(SerialGrid):
    """A site that fails takes the next one with it."""

    def stream(
        self, messages: Iterable[Message], timeout: float | None = None
    ) -> Iterator[Message]:
        failed = False
        for reply in super().stream(messages, timeout):
            if not failed:
                yield reply
            failed = reply.has_error()


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        (Reversed, "site order"),
        (Forgetful, "client state was kept of|remembers|weights"),
        (Misplacing, "remembers|weights"),
        (Fragile, r"updates from p0, p3"),
    ],
)
def test_every_breach_is_found(engine: type[LocalGrid], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_engine(engine)


def test_a_process_that_close_leaves_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    still = still_there
    monkeypatch.setattr("fedpdm.testing.engine.still_there", lambda before: still(before, 0.5))
    left: list[subprocess.Popen[bytes]] = []

    class Leaving(SerialGrid):
        def close(self) -> None:
            left.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

    try:
        with pytest.raises(AssertionError, match="left processes running"):
            check_engine(Leaving)
    finally:
        for process in left:
            process.communicate(b"\n")

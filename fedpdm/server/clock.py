"""What time it is for the server, and who can be reached: the clock of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from flwr.app import Message, RecordDict

from fedpdm.aggregation.collector import Note

SIMULATED, MESSAGES = "simulated_", "messages_"
"""How the names of a clock's metrics begin."""

Answers = Iterable[tuple[str, Message]]
States = dict[str, RecordDict]


class Carrier(Protocol):
    """Carries messages in simulated time, for the dispatcher."""

    def in_turn(
        self, sent: Mapping[str, Message], answers: Answers, states: States, note: Note
    ) -> Iterator[tuple[str, Message]]:
        """Yield the replies that come in time, in site order; then time has gone by.

        Args:
            sent: the message of each site.
            answers: what the sites answer, in site order, as it is computed.
            states: what sites remember; the answers change it.
            note: remembers who was not heard.
        """

    def push(self, sent: Mapping[str, Message], answers: Answers, states: States) -> None:
        """Put messages on their way; their replies come from ``pop``, in the order of time."""

    def pop(self) -> tuple[str, Message] | None:
        """Let time go by until a site answers or is given up; None if nothing is waited for."""


class Clock:
    """The time of this machine; a subclass may have its own.

    Attributes:
        state: what it must remember from round to round; the history keeps it.
    """

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def date(self) -> datetime:
        """Return the date and the time of day."""
        return datetime.now(UTC)

    def seconds(self) -> float:
        """Return seconds since some instant; never fewer than before."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Let time go by."""
        time.sleep(seconds)

    def prepare(
        self,
        sites: Sequence[str],
        seed: int,
        steps: Callable[[int], int],
        timeout: float | None,
    ) -> None:
        """Get ready for a run.

        Args:
            sites: all sites, in site order.
            seed: the run's seed.
            steps: returns how many local steps so many examples take.
            timeout: seconds for which a site is waited for, or None.

        Raises:
            ConfigError: the clock's settings do not go with these sites.
        """

    def carrier(self) -> Carrier | None:
        """Return what carries messages in this clock's time; None: the Grid itself does."""
        return None

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with what was committed: after a start, a crash, or a rollback."""
        self.state = state

    def present(self, sites: Sequence[str], wait: bool = True) -> list[str]:
        """Return which sites can be given work now.

        Args:
            sites: who is asked for.
            wait: let time go by until at least one can.
        """
        return list(sites)

    def passes(self) -> bool:
        """Return whether time goes by before the next reply is there."""
        return True

    def metrics(self) -> dict[str, float]:
        """Return what is to stand beside a round's metrics: simulated time and messages.

        Their names begin with ``SIMULATED`` or ``MESSAGES``.
        """
        return {}

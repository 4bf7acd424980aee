"""What time it is for the server. An argument, so that a simulation can have its own."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Time, of this machine or made up."""

    def date(self) -> datetime:
        """Return the date and the time of day."""

    def seconds(self) -> float:
        """Return seconds since some instant; never fewer than before."""

    def sleep(self, seconds: float) -> None:
        """Let time go by."""


class WallClock:
    """The time of this machine."""

    def date(self) -> datetime:
        return datetime.now(UTC)

    def seconds(self) -> float:
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

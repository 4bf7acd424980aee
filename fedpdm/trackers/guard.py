"""Guards a run from its tracker: rounds are sent once, and errors or delays stop nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from fedpdm.config.values import Config, make, select
from fedpdm.errors import HistoryError
from fedpdm.history import History
from fedpdm.storage import read_json, write_json
from fedpdm.trackers import Record, Tracker, result_scalars, round_scalars

STATE = "tracker.json"
PATIENCE = 60.0
"""Seconds after a failure before the tracker is tried again: a server may be slow to refuse."""


class Guard:
    """Tells a tracker of every committed round.

    What fails is said once; the rounds that the tracker missed are sent when it works again,
    at the latest at the end. Which rounds it has is kept in ``tracker.json``, so that a resumed
    run sends what is missing and nothing twice.

    Args:
        tracker: what is told.
        folder: the run folder.
        config: the resolved config.
        say: shows a sentence to the person at the screen.
        history: of the run; the rounds in it that the tracker has not got are sent first.
    """

    def __init__(
        self,
        tracker: Tracker,
        folder: Path,
        config: Mapping[str, Any],
        say: Callable[[str], None],
        history: History,
    ) -> None:
        self._tracker, self._folder, self._config, self._say = tracker, folder, config, say
        self._begun = self._warned = False
        self._not_before = 0.0
        self._state: dict[str, Any] = {"attempt": 0, "round": 0, "own": {}}
        if (folder / STATE).exists():
            with suppress(HistoryError):  # damaged: everything is sent again
                self._state |= read_json(folder / STATE)
        self._history = history
        self._waiting: list[Record] = [record.to_dict() for record in history.rounds()]

    def round(self, number: int) -> None:
        """Tell the tracker of a round if it was committed, and of those that it has missed."""
        newest = self._history.head()
        if newest is None or newest.round != number:
            return  # taken back
        self._waiting.append(newest.to_dict())
        if time.monotonic() >= self._not_before:
            self._attempt(self._send)

    def end(self, summary: Record) -> None:
        """Send what is still missing, and the test scores; the run's files are written."""

        def finish() -> None:
            self._send()
            self._tracker.end(result_scalars(summary), summary)
            write_json(self._folder / STATE, self._state)

        if not self._attempt(finish):
            self._say(
                "the tracker did not get everything; metrics.csv and summary.json have it, and "
                f"resume={self._folder} sends it again"
            )

    def _send(self) -> None:
        if not self._begun:
            self._tracker.begin(self._folder, self._config, self._state["own"])
            self._begun = True
        while self._waiting:
            record = self._waiting[0]
            place = (record["attempt"], record["round"])
            if record["round"] and place > (self._state["attempt"], self._state["round"]):
                started = datetime.fromisoformat(record["started"]).timestamp()
                finished = started + float(record["seconds"])
                self._tracker.round(record["round"], round_scalars(record), finished)
                self._state["attempt"], self._state["round"] = place
            self._waiting.pop(0)
        write_json(self._folder / STATE, self._state)

    def _attempt(self, act: Callable[[], None]) -> bool:
        """Do something with the tracker; return whether it worked."""
        try:
            act()
        except Exception as error:  # a tracker's own errors are of any kind
            self._not_before = time.monotonic() + PATIENCE
            if not self._warned:
                self._warned = True
                lines = str(error).strip().splitlines() or [type(error).__name__]
                self._say(f"note: the tracker fails, the run goes on: {lines[0][:300]}")
            return False
        return True


def build_tracker(cfg: Config) -> Tracker | None:
    """Make the tracker of a config; None for ``tracker=none`` and runs from before there were any.

    Raises:
        ConfigError: its package is not installed, or a setting is unknown.
    """
    node = select(cfg, "tracker") or {}
    tracker: Tracker | None = make(node, "tracker") if node.get("_target_") else None
    return tracker

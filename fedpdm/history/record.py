"""The record of a round, as plain data, and where its files lie."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fedpdm.errors import HistoryError
from fedpdm.storage import cleaned

_NOT_THE_METRIC = frozenset({"train_loss", "validation_loss", "parameter_norm"})


@dataclass(frozen=True)
class RoundRecord:
    """A finished round.

    Attributes:
        round: its number; 0 is the initial state.
        attempt: how many rollbacks lie before it; part of the key of its random draws.
        sampled: names of the sites that were asked to train.
        metrics: of the federation, for example ``train_loss``.
        sites: per site what it reported: examples, losses, validation metrics, update norm.
        bytes_up: bytes from the sites, as serialised.
        bytes_down: bytes to the sites.
        seconds: duration.
        events: what went wrong or was decided, each with ``kind`` and ``message``.
        started: ISO time.
        undone: whether the round was taken back.
    """

    round: int
    attempt: int
    sampled: tuple[str, ...]
    metrics: dict[str, Any]
    sites: dict[str, Any]
    bytes_up: int
    bytes_down: int
    seconds: float
    events: tuple[dict[str, Any], ...]
    started: str
    undone: bool = False

    @property
    def version(self) -> str:
        """A name that no other round has, in this run or in a copy of its folder."""
        return version_name(self.round, self.started)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON can hold it; NaN and infinity become None."""
        content: dict[str, Any] = cleaned(dict(vars(self)))
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> RoundRecord:
        """Return the record that ``to_dict`` described.

        Raises:
            HistoryError: it is something else.
        """
        try:
            values = dict(content)
            values["sampled"] = tuple(values["sampled"])
            values["events"] = tuple(values["events"])
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise HistoryError(f"the record of a round is damaged ({error})") from error


def judged_by(records: Iterable[RoundRecord]) -> str | None:
    """Return the metric that rounds are judged by: the first that is not a loss."""
    names = (name for record in records for name in record.metrics)
    return next((name for name in names if name not in _NOT_THE_METRIC), None)


def version_name(round: int, started: str) -> str:
    """Return a version's name, for example ``000004-202611280930151230000``; names sort by round.

    Args:
        round: its number.
        started: ISO time.
    """
    return f"{round:06d}-{''.join(c for c in started if c.isdigit())}"


@dataclass(frozen=True)
class Row:
    """A round's place in the history and its files (paths below the run folder)."""

    id: int
    number: int
    attempt: int
    live: int  # 0 or 1, as SQLite has it
    stored: int
    undone_by: int | None
    weights: str
    weights_sha256: str
    state: str | None
    state_sha256: str | None
    skeleton: str | None

    def is_named_by_code(self) -> bool:
        """Return whether the files have the names that this code gives them, and no others."""
        numbers: tuple[object, ...] = (self.number, self.attempt)  # SQLite holds any type
        if not all(isinstance(number, int) for number in numbers):
            return False
        if self.live:
            base = re.escape(f"rounds/{self.number:06d}")
        else:  # undone again under the same attempt: -2, -3, …
            base = re.escape(f"rounds/undone/{self.number:06d}.{self.attempt}") + r"(-\d{1,6})?"
        weights = re.fullmatch(rf"({base})\.safetensors", str(self.weights))
        if weights is None:
            return False
        return self.state is None or self.state == f"{weights[1]}.state.safetensors"

"""The history of a run: a round is committed whole or not at all, and can be rolled back to.

    run folder
    ├── history.sqlite                     which rounds there are, their metrics and checksums
    ├── rounds/000004.safetensors          weights of round 4
    ├── rounds/000004.state.safetensors    arrays in the strategy's state, if it has any
    ├── rounds/undone/000005.0.safetensors round 5 as it was in attempt 0, before a rollback
    └── clients/<sha256>.bin               a site's state, stored once while unchanged

The order of steps and what a crash between any two leaves: docs/decisions/004-history-format.md.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from fedpdm.errors import HistoryError
from fedpdm.history.files import MODELS, STATE, RoundFiles
from fedpdm.history.index import Index
from fedpdm.history.record import RoundRecord, Row
from fedpdm.history.sealed import SealedFiles
from fedpdm.storage import Arrays, read_bytes, read_tensors, restore_tree

Event = dict[str, Any]
Models = Mapping[str, Mapping[str, NDArray[Any]]]
Undone = tuple[RoundRecord, Mapping[str, NDArray[Any]], Any, Models]


class History:
    """The history of one run folder; made by ``create`` or ``open``.

    Reading changes nothing on disk and works while another process writes. Whoever writes
    holds the folder's ``RunLock``. Every method raises ``HistoryError`` where the disk or
    the history does not allow what is asked.
    """

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder = folder
        self._index = index
        self._files = RoundFiles(folder, index)
        self.sealed = SealedFiles(folder, index)

    @classmethod
    def create(cls, folder: Path, keep: int | None = None) -> History:
        """Begin the history of a run.

        Args:
            folder: the run folder.
            keep: for how many of the last rounds weights and states are kept (the protected
                round apart); None keeps all. Records are always kept.
        """
        if keep is not None and keep < 1:
            raise HistoryError(f"history.keep={keep} must be all, or a whole number of at least 1")
        return cls(folder, Index.create(folder, keep))

    @classmethod
    def open(cls, folder: Path) -> History:
        """Open the history of a run folder.

        Raises:
            HistoryError: not a run folder, or its index is damaged.
        """
        return cls(folder, Index(folder))

    def __enter__(self) -> History:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index; nothing is pending."""
        self._index.close()

    # Reading --------------------------------------------------------------------------

    def head(self) -> RoundRecord | None:
        """Return the last finished round, or None before the first."""
        number = self._index.head()
        return None if number is None else self.record(self.row(number))

    def record(self, row: Row) -> RoundRecord:
        """Return what is remembered of a round."""
        return self._index.record(row)

    @property
    def attempt(self) -> int:
        """The attempt under which the next round is to be run: 0, raised by each rollback.

        A round that was lost to damage is repeated under the attempt it had.
        """
        head = self._index.head()
        return self._index.attempt(0 if head is None else head + 1)

    def rounds(self, undone: bool = False) -> list[RoundRecord]:
        """Return the finished rounds.

        Args:
            undone: include rounds that were taken back, all in the order of training.
        """
        rows = self._index.rows("1 ORDER BY id") if undone else self._index.rows()
        return [self.record(row) for row in rows]

    def weights(self, round: int | None = None, attempt: int | None = None) -> Arrays:
        """Return a round's weights, checked by their checksum.

        Args:
            round: its number; None is the head.
            attempt: to read a round that was taken back; None is the live line.
        """
        row = self._stored(round, attempt)
        with self._advised(row):
            return read_tensors(self.path(row), row.weights_sha256)

    def strategy_state(self, round: int | None = None, attempt: int | None = None) -> Any:
        """Return the strategy's state after a round, as it was given to ``commit``, or None."""
        tree = self._tree(round, attempt)
        return tree[STATE] if isinstance(tree, dict) and MODELS in tree else tree

    def models(self, round: int | None = None, attempt: int | None = None) -> dict[str, Arrays]:
        """Return the models that a round holds beside its weights, by name."""
        tree = self._tree(round, attempt)
        return tree[MODELS] if isinstance(tree, dict) and MODELS in tree else {}

    def _tree(self, round: int | None, attempt: int | None) -> Any:
        row = self._stored(round, attempt)
        if row.skeleton is None:
            return None
        with self._advised(row):
            arrays: Arrays = {}
            if row.state is not None:
                arrays = read_tensors(self._files.path(row, row.state), row.state_sha256)
            return restore_tree(row.skeleton, arrays)

    def client_states(
        self, round: int | None = None, attempt: int | None = None
    ) -> dict[str, bytes]:
        """Return each site's state after a round."""
        row = self._stored(round, attempt)
        states = self._index.states(row)
        with self._advised(row):
            contents = {
                sha256: read_bytes(self._files.client(sha256), sha256)
                for sha256 in set(states.values())
            }
        return {site: contents[sha256] for site, sha256 in states.items()}

    def excluded(self, round: int) -> set[str]:
        """Return the sites to leave out when this round is repeated."""
        return self._index.excluded(round)

    def events(self) -> list[Event]:
        """Return all events in the order in which they were stored."""
        return self._index.events()

    def consecutive_rollbacks(self) -> int:
        """Return how often the monitor rolled back since the run last got past such a point."""
        return self._index.setting("rollbacks") or 0

    def protected(self) -> int | None:
        """Return the round that ``keep`` spares: the best one so far."""
        return self._index.protected()

    def row(self, round: int | None = None, attempt: int | None = None) -> Row:
        """Return where a round is kept; None is the head, or the live line."""
        number = self._index.head() if round is None else round
        live = self._index.rows()
        if not live:
            raise HistoryError(f"{self.folder} has no finished round yet")
        if attempt is None:
            rows = [row for row in live if row.number == number]
        else:
            rows = self._index.rows("number = ? AND attempt = ? ORDER BY live, id", number, attempt)
        if not rows:
            what = f"round {number}" + ("" if attempt is None else f" of attempt {attempt}")
            raise HistoryError(
                f"{self.folder} has no finished {what}; there are: "
                f"{spans(row.number for row in live)}"
            )
        return rows[-1]

    def path(self, row: Row) -> Path:
        """Return where a round's weights lie."""
        return self._files.path(row, row.weights)

    def flaws(self, row: Row) -> list[str]:
        """Return what is wrong with a round's files, each named; empty if all are intact."""
        return self._files.flaws(row, set())

    # Writing --------------------------------------------------------------------------

    def commit(
        self,
        record: RoundRecord,
        weights: Mapping[str, NDArray[Any]],
        strategy_state: Any = None,
        client_states: Mapping[str, bytes] | None = None,
        models: Models | None = None,
    ) -> None:
        """Add a finished round and make it the head, or change nothing.

        Args:
            record: the round; its number follows the head's (the first is 0).
            weights: all tensors of the model.
            strategy_state: what the strategy must remember: a tree as in ``flatten_tree``.
            client_states: the states of all sites that have one, as bytes.
            models: further models by name, kept in the file of the strategy's state.
        """
        head = self._index.head()
        number = 0 if head is None else head + 1
        if record.round != number:
            raise HistoryError(
                f"{self.folder}: round {record.round} cannot be committed, round {number} is next"
            )
        with self._files.changing():
            row = self._files.write_round(record, weights, strategy_state, models or {})
            states = self._files.write_clients(client_states or {})
            given_up: set[str] = set()
            with self._index.transaction():
                self._index.add(record, row)
                for event in record.events:
                    self._index.add_event(event)
                self._index.change_states(number, states)
                if number >= (self._index.setting("retry") or 0):
                    self._index.set(rollbacks=0, retry=0)
                if keep := self._index.setting("keep"):
                    before = self._files.known()
                    self._index.prune(number, keep)
                    given_up = before - self._files.known()
            self._files.discard(given_up)

    def rollback(
        self,
        to_round: int,
        *,
        by: Literal["person", "monitor"],
        reason: str,
        exclude: Iterable[str] = (),
        undone: Undone | None = None,
    ) -> None:
        """Return to a finished round, keep what is taken back, and raise the attempt.

        Args:
            to_round: the new head.
            by: who asked. A person's word replaces earlier exclusions, the monitor adds to them.
            reason: for the event.
            exclude: sites to leave out when the undone rounds are repeated.
            undone: record, weights, strategy state and further models of a round that was
                judged bad before it was committed, to be kept with the undone ones.
        """
        row = self._stored(to_round)
        if flaws := self.flaws(row):
            raise HistoryError(f"round {to_round} cannot be returned to: {'; '.join(flaws)}")
        head = self.head()
        assert head is not None
        bad = undone[0] if undone else head
        if undone and bad.round != head.round + 1:
            raise HistoryError(
                f"{self.folder}: round {bad.round} cannot be kept as undone, round "
                f"{head.round + 1} is next"
            )
        out = sorted(set(exclude))
        without = f", repeated without {', '.join(out)}" if out else ""
        event = {
            "kind": "rollback", "round": bad.round, "attempt": bad.attempt,
            "site": out[0] if len(out) == 1 else None, "by": by,
            "message": f"{reason}; back to round {to_round}{without}",
            "exclude": out, "to": to_round,
        }  # fmt: skip
        with self._files.changing():
            extra = self._files.write_round(*undone, undone=True) if undone else None
            with self._index.transaction():
                for earlier in bad.events if undone else ():
                    self._index.add_event(earlier)
                number = self._index.add_event(event)
                self._index.undo(to_round, number)
                if extra is not None:
                    self._index.add(bad, replace(extra, undone_by=number))
                self._index.raise_attempt(to_round)
                if by == "person":
                    self._index.set(rollbacks=0, retry=0)
                else:
                    retry = max(self._index.setting("retry") or 0, bad.round)
                    self._index.set(rollbacks=self.consecutive_rollbacks() + 1, retry=retry)
                last = max(head.round, bad.round, to_round + 1)
                self._index.exclude(range(to_round + 1, last + 1), out, add=by == "monitor")

    def recover(self) -> list[Event]:
        """Check the files of every round; go back to the last good one if the head is damaged.

        The lost rounds are repeated under the attempts they had, so a repeat gives the bits
        of a run that was never damaged. That is also the way to get a damaged protected round
        again. Damage to other rounds is noted once; nothing needs them.

        Returns:
            The events that were stored, of kind ``damaged-round``.

        Raises:
            HistoryError: no good round is left.
        """
        rows = self._index.rows("live AND stored ORDER BY number")
        sound: set[str] = set()
        flaws = {row.number: found for row in rows if (found := self._files.flaws(row, sound))}
        if not flaws:
            return []
        head, best = rows[-1].number, self._index.protected()
        good = [row.number for row in rows if row.number not in flaws]
        if not good:
            raise HistoryError(
                f"{self.folder} cannot be continued, no round is whole: {'; '.join(flaws[head])}; "
                "start a new run, or put the files back from a copy"
            )
        target = good[-1]
        if best in flaws:
            target = max((number for number in good if number < best), default=target)
        returns = target < head
        known = {event.get("message") for event in self.events()}
        events: list[Event] = []
        for row in rows:
            if row.number not in flaws:
                continue
            message = "; ".join(flaws[row.number]).replace(f"{self.folder}{os.sep}", "")
            if returns and row.number > target:
                message += f"; back to round {target}"
            elif message in known:
                continue
            events.append(
                {"kind": "damaged-round", "round": row.number, "attempt": row.attempt,
                 "site": None, "message": message}
            )  # fmt: skip
        with self._files.changing(), self._index.transaction():
            numbers = [self._index.add_event(event) for event in events]
            if returns:
                for row in self._index.rows("live AND number > ?", target):
                    self._index.repeat(row.number, row.attempt)
                self._index.undo(target, numbers[-1])
        return events

    def note(self, event: Event) -> None:
        """Store an event that belongs to no finished round."""
        with self._files.changing(), self._index.transaction():
            self._index.add_event(event)

    def protect(self, round: int) -> None:
        """Spare this round from ``keep``, instead of the one protected before."""
        if self._index.protected() == round:
            return
        self._stored(round)
        head = self._index.head()
        assert head is not None
        with self._files.changing(), self._index.transaction():
            self._index.protect(head, round)

    @contextlib.contextmanager
    def _advised(self, row: Row) -> Iterator[None]:
        """Add the way out to the sentence about a damaged file."""
        try:
            yield
        except HistoryError as error:
            if not row.live:
                raise
            needed = row.number in (self._index.head(), self._index.protected())
            way = f"python -m fedpdm.history rollback {self.folder} {max(row.number - 1, 0)}, then "
            raise HistoryError(
                f"{error}; {'' if needed else way}resume={self.folder} goes back to the last good "
                "round and repeats the lost ones"
            ) from error

    def _stored(self, round: int | None, attempt: int | None = None) -> Row:
        row = self.row(round, attempt)
        if not row.stored:
            there = spans(row.number for row in self._index.rows("live AND stored"))
            raise HistoryError(
                f"{self.folder}: the weights of round {row.number} were not kept "
                f"(history.keep={self._index.setting('keep')}); kept are: {there}"
            )
        return row


def spans(numbers: Iterable[int]) -> str:
    """Return numbers as people write them, for example ``0–4, 7``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("–".join(str(end) for end in part) for part in parts) or "none"

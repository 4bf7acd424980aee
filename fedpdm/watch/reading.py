"""What a run folder says of its run at this moment, whoever made it and whatever happens to it.

Nothing is written and the run's lock is not taken. The history is opened read-only, and all of a
look is one state of it. Files are read through their checksums and schemas (decision 022).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpdm.errors import HistoryError
from fedpdm.history import History, RoundRecord
from fedpdm.history.index import FILE, Index
from fedpdm.history.lock import FEDERATIONS, PRETRAINING
from fedpdm.history.schemas import Manifest, Summary
from fedpdm.storage import read_bytes

MANIFEST, SUMMARY, REPORT, LOCK = "manifest.json", "summary.json", "report.html", "lock"
MARKS = (LOCK, MANIFEST, FILE)
"""A folder with one of these is a run's; the lock is the first file of a run."""


@dataclass(frozen=True)
class Seen:
    """A run at one moment.

    Attributes:
        folder: of the run that works now: a stage or a federation of the one that was asked for.
        manifest: what the run was begun with; empty before it is written.
        records: the finished rounds in the order of training, those that were taken back, too.
        events: all of them, in order.
        best: the best round so far.
        summary: the result, once the run is finished.
        at_work: whether the process of the run is alive; None where that cannot be known.
    """

    folder: Path
    manifest: Mapping[str, Any]
    records: tuple[RoundRecord, ...] = ()
    events: tuple[Mapping[str, Any], ...] = ()
    best: int | None = None
    summary: Mapping[str, Any] | None = None
    at_work: bool | None = None

    @property
    def rounds(self) -> int | None:
        """How many rounds the run is to have."""
        found = (self.manifest.get("config") or {}).get("rounds")
        return found if isinstance(found, int) and 0 < found < 2**31 else None

    @property
    def live(self) -> list[RoundRecord]:
        """The rounds that trained and were not taken back."""
        return [record for record in self.records if record.round and not record.undone]

    @property
    def done(self) -> int:
        """How many rounds are finished."""
        return max((record.round for record in self.live), default=0)


class Reader:
    """Looks at a run folder again and again; one thread at a time.

    Args:
        folder: that was asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._index: Index | None = None
        self._identity: tuple[int, int] | None = None
        self._summary: tuple[str, dict[str, Any]] | None = None

    def close(self) -> None:
        """Close the history."""
        if self._index is not None:
            self._index.close()
        self._index = self._identity = None

    def look(self) -> Seen:
        """Return what is there now.

        Raises:
            HistoryError: the folder is gone, damaged, or no run's.
        """
        if not self.folder.is_dir():
            self.close()
            raise HistoryError(f"{self.folder} is gone: it was deleted or moved")
        place = self._place()
        at_work = owner_lives(place)
        if not (place / FILE).exists():
            self.close()
            manifest = self._manifest(place, None)
            return Seen(place, manifest, at_work=at_work)
        history, index = self._opened(place)
        with index.one_look():
            return Seen(
                place,
                self._manifest(place, history),
                tuple(history.rounds(undone=True)),
                tuple(history.events()),
                history.protected(),
                self._result(place, history, index),
                at_work,
            )

    def report(self) -> bytes:
        """Return the report of the finished run, as its checksum has it.

        Raises:
            HistoryError: there is none, or it was altered.
        """
        history, _ = self._opened(self._place())
        return history.sealed.read(REPORT)

    def _place(self) -> Path:
        """Return the folder of the run that works now, or worked last."""
        if (self.folder / FILE).exists():
            return self.folder
        inside = (self.folder / PRETRAINING, *self.folder.glob(f"{FEDERATIONS}/*"))
        begun = [place for place in inside if (place / FILE).exists()]
        return max(begun, key=lambda place: (place / FILE).stat().st_mtime, default=self.folder)

    def _opened(self, place: Path) -> tuple[History, Index]:
        """Return the history, opened again where the file is another one than last time."""
        try:
            found = (place / FILE).stat()
        except OSError:
            raise HistoryError(f"{place} has no {FILE}: the run was deleted or moved") from None
        identity = (found.st_dev, found.st_ino)
        if self._index is None or self._identity != identity:
            self.close()
            self._index, self._identity = Index(place, read_only=True), identity
        return History(place, self._index), self._index

    def _manifest(self, place: Path, history: History | None) -> Mapping[str, Any]:
        path = place / MANIFEST
        if not path.exists():
            return {}
        # A run that is made longer writes its manifest again: unsealed for that moment.
        content = read_bytes(path) if history is None else history.sealed.read(MANIFEST, True)
        return Manifest.read(content, path)

    def _result(self, place: Path, history: History, index: Index) -> dict[str, Any] | None:
        """Return the result, if it is whole; parsed once."""
        sums = index.files()
        sha256 = sums.get(SUMMARY)
        if not sha256 or not sums.get(REPORT):
            return None  # not there yet, or being written
        if self._summary is None or self._summary[0] != sha256:
            content = Summary.read(history.sealed.read(SUMMARY), place / SUMMARY)
            self._summary = (sha256, content)
        return self._summary[1]


def owner_lives(folder: Path) -> bool | None:
    """Return whether the process that took a run's lock last is alive; None: nobody knows.

    The lock itself is not touched: whoever tries to take it keeps a run from beginning.
    """
    try:
        text = read_bytes(folder / LOCK)
    except HistoryError:
        return None
    if not re.fullmatch(rb"[1-9]\d{0,8}\n", text):
        return None
    try:
        os.kill(int(text), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


def begun(folder: Path) -> bool:
    """Return whether a folder is a run's, as far as its names say."""
    inside = (folder, folder / PRETRAINING, *folder.glob(f"{FEDERATIONS}/*"))
    return any((place / mark).is_file() for place in inside for mark in MARKS)


def find_run(folder: Path, patience: float, say: Callable[[str], None]) -> Path:
    """Return the run folder that is meant; wait for one that is about to be made.

    Args:
        folder: a run folder, or a folder of runs: then its newest run is meant.
        patience: seconds to wait at most.
        say: told once that it waits.

    Raises:
        HistoryError: there is no run, and none comes.
    """
    deadline, said = time.monotonic() + patience, False
    while not begun(folder):
        if folder.exists() and not folder.is_dir():
            raise HistoryError(f"{folder} is a file: name the folder of a run")
        runs = [lock.parent for depth in ("*", "*/*") for lock in folder.glob(f"{depth}/{LOCK}")]
        runs = [run for run in runs if begun(run)]
        if runs:
            return max(runs, key=lambda run: (run / LOCK).stat().st_mtime)
        if folder.is_dir() and any(folder.iterdir()):
            raise HistoryError(f"{folder} is not the folder of a run, and there is none in it")
        if time.monotonic() >= deadline:
            raise HistoryError(
                f"{folder} is not the folder of a run, and none was begun within {patience:g} s"
            )
        if not said:
            say(f"waiting for a run in {folder} (at most {patience:g} s)")
            said = True
        time.sleep(0.2)
    return folder

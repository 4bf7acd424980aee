"""Checksums of the run folder's files that are not rounds, kept in the history.

A file is unsealed before it is written and sealed when it is whole, each in one transaction. A
crash between the two leaves it unsealed: it is not taken for a result, and a resume writes it
again. Runs from before there were such checksums have none, and their files are read unchecked.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from fedpdm.errors import HistoryError
from fedpdm.history.index import FILE, Index
from fedpdm.storage import read_bytes

UNSEALED = ""
FIRST = ("manifest.json", "config.yaml", "split.csv.gz", "model.json", "init.safetensors")
"""Files that are written before the history is begun."""


class SealedFiles:
    """The files beside the rounds: sealed when they are written, checked when they are read.

    Args:
        folder: the run folder.
        index: its history's.
    """

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder = folder
        self._index = index

    @contextlib.contextmanager
    def writing(self, *names: str) -> Iterator[None]:
        """Seal the files ``names`` after the block, which writes, removes or leaves them."""
        with self._index.transaction():
            self._index.set_files(dict.fromkeys(names, UNSEALED))
        yield
        self.seal(*names)

    def seal(self, *names: str) -> None:
        """Record the checksums of files as they lie; of those that are gone, none."""
        sums = {name: self._sum(name) for name in names}
        with self._index.transaction():
            self._index.set_files(sums)

    def seal_first(self) -> None:
        """Seal the files of a run that has just begun, or was begun before there were seals."""
        if FIRST[0] not in self._index.files():
            self.seal(*FIRST)

    def names(self) -> list[str]:
        """Return the names of the sealed files."""
        return list(self._index.files())

    def read(self, name: str, unsealed: bool = False) -> bytes:
        """Return the content of a file.

        Args:
            name: of a file in the run folder.
            unsealed: take a file that a crash left unsealed, too.

        Raises:
            HistoryError: it is missing, damaged, not of this run, or not whole.
        """
        sums = self._index.files()
        if not sums or (unsealed and sums.get(name) == UNSEALED):
            return read_bytes(self.folder / name)
        if name not in sums:
            raise HistoryError(f"{self.folder / name} is not of this run: the history has no such "
                               "file; remove it, or finish the run with resume")  # fmt: skip
        if sums[name] == UNSEALED:
            raise HistoryError(
                f"{self.folder / name} is being written, or its run was cut off in that: wait, or "
                f"finish it with resume={self.folder}"
            )
        return read_bytes(self.folder / name, sums[name])

    def flaws(self) -> list[str]:
        """Return what is wrong with the sealed files, each named; empty if all are intact."""
        found = []
        for name in self._index.files():
            try:
                self.read(name, unsealed=True)
            except HistoryError as error:
                found.append(str(error))
        return found

    def _sum(self, name: str) -> str | None:
        path = self.folder / name
        return hashlib.sha256(read_bytes(path)).hexdigest() if path.exists() else None


def read_sealed(folder: Path, name: str, unsealed: bool = False) -> bytes:
    """Return the content of a run's file, checked where the run has a history.

    Args:
        folder: the run folder.
        name: of the file.
        unsealed: take a file that a crash left unsealed, too.

    Raises:
        HistoryError: the file, or the history, is missing or damaged.
    """
    if not (folder / name).exists():
        raise HistoryError(
            f"{folder / name} is missing: {folder} is not a fedpdm run, or not whole"
        )
    if not (folder / FILE).exists():
        return read_bytes(folder / name)
    with contextlib.closing(Index(folder)) as index:
        return SealedFiles(folder, index).read(name, unsealed)

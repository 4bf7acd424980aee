"""The files of a run's rounds: writing, checking, moving, clearing up."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fedpdm.errors import HistoryError
from fedpdm.history.index import Index
from fedpdm.history.record import RoundRecord, Row
from fedpdm.storage import flatten_tree, read_bytes, sync_folder, write_bytes, write_tensors

_FOLDERS = ("rounds", "rounds/undone", "clients")
_ENDINGS = (".safetensors", ".bin", ".tmp")


def weights_name(number: int) -> str:
    return f"rounds/{number:06d}.safetensors"


def state_name(number: int) -> str:
    return f"rounds/{number:06d}.state.safetensors"


def client_name(sha256: str) -> str:
    return f"clients/{sha256}.bin"


MODELS, STATE = ":models", ":state"
"""Names in a round's state file, where it holds models beside the strategy's state."""


class RoundFiles:
    """Files below the run folder, as the index knows them.

    Args:
        folder: the run folder.
        index: says which files there should be.
    """

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder = folder
        self._index = index
        self._tidy = False

    # Reading --------------------------------------------------------------------------

    def path(self, row: Row, name: str) -> Path:
        """Return where a file of a round lies; an undone one may not have been moved yet."""
        path = self.folder / name
        if row.live or path.exists():
            return path
        before = state_name(row.number) if name == row.state else weights_name(row.number)
        unmoved = (self.folder / before).exists() and before not in self.known()
        return self.folder / before if unmoved else path

    def client(self, sha256: str) -> Path:
        return self.folder / client_name(sha256)

    def flaws(self, row: Row, sound: set[str]) -> list[str]:
        """Return what is wrong with a round's files, each named; empty if all are as written.

        Args:
            row: the round.
            sound: checksums of client states that were found whole; added to.
        """
        files = [(self.path(row, row.weights), row.weights_sha256)]
        if row.state is not None and row.state_sha256 is not None:
            files.append((self.path(row, row.state), row.state_sha256))
        clients = sorted(set(self._index.states(row).values()) - sound)
        found = []
        for path, sha256 in [*files, *((self.client(sha256), sha256) for sha256 in clients)]:
            try:
                read_bytes(path, sha256)
                sound.add(sha256)
            except HistoryError as error:
                found.append(str(error))
        return found

    def known(self) -> set[str]:
        """Return the names of all files that the index knows, below the run folder."""
        rows = self._index.rows("stored")
        names = {name for row in rows for name in (row.weights, row.state) if name is not None}
        return names | {client_name(sha256) for sha256 in self._index.clients()}

    # Writing --------------------------------------------------------------------------

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Finish what an earlier change was cut off in, before the block and after it.

        What a failed block leaves behind, the next one clears up.
        """
        if not self._tidy:
            self._clear_up()
        self._tidy = False
        yield
        self._settle()
        self._tidy = True

    def write_round(
        self,
        record: RoundRecord,
        weights: Mapping[str, NDArray[Any]],
        state: Any,
        models: Mapping[str, Mapping[str, NDArray[Any]]],
        undone: bool = False,
    ) -> Row:
        """Write a round's files, orphans until the index knows them, and return their row.

        Args:
            record: the round.
            weights: all tensors of the model.
            state: the strategy's; further models lie beside it.
            models: these, by name.
            undone: whether the round was never live.
        """
        if models:
            state = {STATE: state, MODELS: {name: dict(model) for name, model in models.items()}}
        names = weights_name(record.round), state_name(record.round)
        if undone:
            names = self._index.names_if_undone(record.round, record.attempt)
        skeleton, arrays = (None, {}) if state is None else flatten_tree(state)
        return Row(
            id=0,  # given by the index
            number=record.round,
            attempt=record.attempt,
            live=int(not undone),
            stored=1,
            undone_by=None,
            weights=names[0],
            weights_sha256=write_tensors(self._place(names[0]), weights),
            state=names[1] if arrays else None,
            state_sha256=write_tensors(self._place(names[1]), arrays) if arrays else None,
            skeleton=skeleton,
        )

    def write_clients(self, states: Mapping[str, bytes]) -> dict[str, str]:
        """Write the states that the head does not share; return site → sha256."""
        there = set(self._index.states_now().values())
        result = {}
        for site, content in states.items():
            result[site] = sha256 = hashlib.sha256(content).hexdigest()
            if sha256 not in there:
                write_bytes(self._place(client_name(sha256)), content)
                there.add(sha256)
        return result

    def discard(self, names: Iterable[str]) -> None:
        """Delete files that the index has given up; it knows only names that the code makes."""
        for name in names:
            with contextlib.suppress(OSError):  # else the next process clears up
                os.unlink(self.folder / name)

    def _refuse_links(self) -> None:
        """Refuse folders that are links: what is written or deleted there lies elsewhere.

        Raises:
            HistoryError: one is a link.
        """
        for place in _FOLDERS:
            if (self.folder / place).is_symlink():
                raise HistoryError(f"{self.folder / place} is a link; put a folder in its place")

    def _clear_up(self) -> None:
        self._refuse_links()
        self._settle()
        known = self.known()
        for place in _FOLDERS:
            with contextlib.suppress(OSError):
                for path in (self.folder / place).iterdir():
                    if path.name.endswith(_ENDINGS) and f"{place}/{path.name}" not in known:
                        path.unlink()

    def _settle(self) -> None:
        """Move the files of undone rounds out of the way of the rounds that replace them."""
        known = self.known()
        moved = set()
        # Only the files of what the last rollback took back can still be in the way.
        for row in self._index.rows("stored AND undone_by = (SELECT max(undone_by) FROM round)"):
            names = [(row.weights, weights_name(row.number)), (row.state, state_name(row.number))]
            for name, before in names:
                source = self.folder / before
                if name is None or before in known or not source.exists():
                    continue
                target = self._place(name)
                if target.exists():
                    continue
                try:
                    os.replace(source, target)
                except OSError as error:
                    raise HistoryError(
                        f"{source} cannot be moved to {name} ({error.strerror}): free space in "
                        f"{self.folder} or change its permissions; the next command moves it"
                    ) from error
                moved |= {source.parent, target.parent}
        for folder in moved:
            sync_folder(folder)

    def _place(self, name: str) -> Path:
        path = self.folder / name
        self._refuse_links()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HistoryError(
                f"{path.parent} cannot be made ({error.strerror}): free space in {self.folder}, "
                "or change its permissions"
            ) from error
        return path

"""A lock on the run folder: one process per run; it ends with its owner."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from fedpdm.errors import HistoryError

_held: set[RunLock] = set()

PRETRAINING = "pretraining"
"""Folder of a run's first stage, if it has two: a run folder in its own."""
FEDERATIONS = "models"
"""Folder of the federations of a run with several, each a run folder in its own."""
CONTRIBUTION = "contribution"
"""Folder of trainings without a site, which ``fedpdm.contribution`` makes."""
FOLDERS = (
    "rounds",
    "clients",
    "baselines",
    "tensorboard",
    "mlflow",
    "promotion",
    PRETRAINING,
    FEDERATIONS,
    CONTRIBUTION,
)
"""Those that a run makes in its folder; others that lie there are not its own."""


def refuse_links(folder: Path) -> None:
    """Refuse a run folder with links, through which a run would write files elsewhere.

    Raises:
        HistoryError: names the first one.
    """
    for place, folders, files in os.walk(folder):
        if place == str(folder):
            folders[:] = [name for name in folders if name in FOLDERS]
        for name in (*folders, *files):
            if os.path.islink(found := os.path.join(place, name)):
                raise HistoryError(f"{found} is a link; put what it leads to in its place")


class RunLock:
    """Holds ``folder/lock`` while the block runs.

    The kernel keeps the lock (``flock``), so it is gone when the process is, however it
    ended; the file itself stays and says who held it last. A forked child would keep the
    lock alive after its parent: children let go of it as soon as they exist.

    Args:
        folder: the run folder; it exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def __enter__(self) -> RunLock:
        """Take the lock.

        Raises:
            HistoryError: another run holds it, or the folder cannot be written, or has links in
                it, through which files elsewhere would be.
        """
        refuse_links(self._folder)
        path = self._folder / "lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise HistoryError(
                f"{self._folder} cannot be worked on ({error.strerror}): choose another folder "
                "or change its permissions"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(descriptor, 100, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise HistoryError(
                f"another run (pid {owner}) is working on {self._folder}: wait until it has "
                "finished, or stop it first"
            ) from error
        with contextlib.suppress(OSError):  # who holds it is a courtesy; a full disk may forbid it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        _held.add(self)
        return self

    def __exit__(self, *error: object) -> None:
        self.close_in_child()  # the last copy of the descriptor: closing it frees the lock

    def close_in_child(self) -> None:
        """Let go of the lock in this process; a parent or child that holds it keeps it.

        Children made by ``os.fork`` and ``multiprocessing`` have done so already.
        """
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        _held.discard(self)


def _let_go_in_child() -> None:
    for lock in list(_held):
        lock.close_in_child()


os.register_at_fork(after_in_child=_let_go_in_child)

"""Sweeps that can be stopped and continued: finished runs are kept, started ones resumed.

The same command with the same ``hydra.sweep.dir`` goes on where it was. Started a second time
while it runs, it works beside the first: a job that another process holds is left to it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from fedpdm.config.values import Config, plain
from fedpdm.errors import FedPdmError, HistoryError
from fedpdm.history.lock import PRETRAINING, RunLock
from fedpdm.history.schemas import Manifest, Summary
from fedpdm.history.sealed import read_sealed

Simulate = Callable[..., dict[str, Any]]


class Sweep:
    """The jobs of one multirun, and their comparison at its end.

    Args:
        simulate: runs a config in a folder, new or ``resumed=True``.

    Attributes:
        folder: that of all jobs; None before the first one.
    """

    def __init__(self, simulate: Simulate) -> None:
        self._simulate = simulate
        self.folder: Path | None = None

    def run(self, cfg: Config, folder: Path) -> dict[str, Any] | None:
        """Run, continue or keep one job; return its summary, None where another process has it.

        Args:
            cfg: the job's resolved config.
            folder: the job's folder.

        Raises:
            HistoryError: the folder holds a run of other settings.
        """
        while True:
            state = state_of(folder, cfg)
            if state == "finished":
                print(f"finished before: {folder}", flush=True)
                kept: dict[str, Any] = _read(folder, "summary.json", Summary)
                return kept
            if held(folder):
                print(f"another process works on it: {folder}", flush=True)
                return None
            try:
                return self._simulate(cfg, folder, resumed=state == "begun")
            except HistoryError:
                # Two processes that start together meet here: look again whose it is.
                if not held(folder) and state_of(folder, cfg) == state:
                    raise

    def compare(self) -> None:
        """Compare the finished jobs; say why where that cannot be.

        If no job began, what Hydra wrote for them is removed.
        """
        from fedpdm.compare import compare_folders

        if self.folder is None:
            return
        if not any(self.folder.rglob("manifest.json")):
            (self.folder / "multirun.yaml").unlink(missing_ok=True)
            remove_if_empty(self.folder)
            return
        try:
            compare_folders([self.folder])
        except FedPdmError as error:
            print(f"\nno comparison: {error}")
        print(f"Compare again: python -m fedpdm.compare {self.folder}", flush=True)


def state_of(folder: Path, cfg: Config) -> Literal["new", "begun", "finished"]:
    """Return how far the job in a folder is.

    Raises:
        HistoryError: its settings are not those of ``cfg`` (a number of rounds may grow).
    """
    place, now = folder, plain(cfg)
    if not (place / "manifest.json").exists():
        place, now = folder / PRETRAINING, now.get(PRETRAINING) or {}
    if not (place / "manifest.json").exists():
        return "new"
    from fedpdm.runs.folder import changed_settings

    if changed := changed_settings(_read(place, "manifest.json", Manifest)["config"], now):
        raise HistoryError(
            f"{folder} holds a run of other settings ({', '.join(changed)} differ); choose another "
            "hydra.sweep.dir, or repeat the command that it was made with"
        )
    if not (folder / "summary.json").exists():
        return "begun"
    return (
        "begun" if _read(folder, "summary.json", Summary)["rounds"] < now["rounds"] else "finished"
    )


def _read(folder: Path, name: str, kind: type[Manifest] | type[Summary]) -> dict[str, Any]:
    return kind.read(read_sealed(folder, name), folder / name)


def remove_if_empty(folder: Path) -> None:
    """Leave nothing half-made: Hydra makes folders before anything is checked."""
    with suppress(OSError):
        folder.rmdir()


def held(folder: Path) -> bool:
    """Return whether another process works in a run folder."""
    try:
        for place in (folder, folder / PRETRAINING):
            if (place / "lock").exists():
                with RunLock(place):
                    pass
    except HistoryError:
        return True
    return False

"""Sweeps that can be stopped and continued: finished runs are kept, started ones resumed.

The same command with the same ``--out`` goes on where it was. Started a second time
while it runs, it works beside the first: a job that another process holds is left to it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, Literal

from fedpdm.config.values import Config, plain, select
from fedpdm.errors import FedPdmError, HistoryError
from fedpdm.evaluation.wording import duration, metric, number
from fedpdm.history.lock import PRETRAINING, RunLock
from fedpdm.history.schemas import Manifest, Summary
from fedpdm.history.sealed import read_sealed

Simulate = Callable[..., dict[str, Any]]


class Sweep:
    """The jobs of one multirun, and their comparison at its end.

    Args:
        simulate: runs a config in a folder, new or ``resumed=True``.

    Each job is one line on the screen, with its score on all test data and its seconds; with
    ``log=screen`` what the run says stands above it.

    Attributes:
        folder: that of all jobs; None before the first one.
        failed: the first error of a job.
    """

    def __init__(self, simulate: Simulate) -> None:
        self._simulate = simulate
        self.folder: Path | None = None
        self.failed: FedPdmError | None = None

    def run(self, cfg: Config, folder: Path, name: str = "") -> dict[str, Any] | None:
        """Run, continue or keep one job; return its summary, None where another process has it.

        Args:
            cfg: the job's resolved config.
            folder: the job's folder.
            name: what its line begins with.

        Raises:
            HistoryError: the folder holds a run of other settings.
        """
        while True:
            state = state_of(folder, cfg)
            if state == "finished":
                kept: dict[str, Any] = _read(folder, "summary.json", Summary)
                show(f"{name}  {_score(kept)}  finished before")
                return kept
            if held(folder):
                show(f"{name}  another process works on it: {folder}")
                return None
            begun = time.monotonic()
            try:
                with quiet(name, loud=select(cfg, "log") == "screen"):
                    summary = self._simulate(cfg, folder, resumed=state == "begun")
                show(f"{name}  {_score(summary)}  {duration(time.monotonic() - begun)}")
                return summary
            except HistoryError:
                # Two processes that start together meet here: look again whose it is.
                if not held(folder) and state_of(folder, cfg) == state:
                    raise

    def fails(self, name: str, error: FedPdmError) -> None:
        """Say in one line why a job failed; the others go on."""
        print(f"error: {name}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        self.failed = self.failed or error

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


def show(line: str) -> None:
    """Print a line in characters that the screen has."""
    from fedpdm.report.console import console_for, say

    say(console_for(None), line, wrap=False)


@contextmanager
def quiet(name: str, loud: bool = False) -> Iterator[None]:
    """Keep what a run prints from the screen; a terminal shows that it works, and for how long.

    Args:
        name: of the job.
        loud: show everything instead, below the name.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    if loud:
        show(f"\n{name}")
        yield
        return
    console = Console(file=sys.stdout)  # this one: below, standard output is another
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with (
        Progress(
            *columns, console=console, transient=True, redirect_stdout=False,
            disable=not console.is_terminal,
        ) as line,
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        redirect_stdout(nowhere),
    ):  # fmt: skip
        line.add_task(name, total=None)
        yield


def _score(summary: Mapping[str, Any]) -> str:
    """Return the score on all test data by which a comparison compares."""
    shown = metric(summary["validation"]["metric"])
    scores = summary["test"]["global"] or {}
    return f"{shown.short} {number(scores.get(shown.name), shown.digits)}"


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
            "--out, or repeat the command that it was made with"
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

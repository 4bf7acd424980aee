"""Runs that are kept: finished ones are read again, half-finished ones resumed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fedpdm.config.compose import compose

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "runs" / "evidence"


@dataclass(frozen=True)
class Job:
    """One command: an experiment's overrides with a seed."""

    name: str
    overrides: tuple[str, ...]
    seed: int

    @property
    def folder(self) -> Path:
        """Where the run is kept; other settings, here or in a yaml, are another run."""
        return KEPT / f"{self.name}-{digest(self.overrides)}-{self.seed}"

    @property
    def finished(self) -> bool:
        return (self.folder / "summary.json").exists()

    @property
    def command(self) -> list[str]:
        begun = (self.folder / "manifest.json").exists()
        arguments = [f"resume={self.folder}"] if begun else [
            *self.overrides, f"seed={self.seed}", f"hydra.run.dir={self.folder}"
        ]  # fmt: skip
        return [sys.executable, "-m", "fedpdm.simulate", *arguments]

    @property
    def stated(self) -> str:
        """The command as a person would type it, without the seed."""
        return " ".join(("python -m fedpdm.simulate", *self.overrides))

    @property
    def commit(self) -> str | None:
        """The code that made the run; with a + if it had uncommitted changes."""
        found: str | None = json.loads((self.folder / "manifest.json").read_text())["git_commit"]
        return found

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return found


@cache
def digest(overrides: tuple[str, ...]) -> str:
    """Return what stands for the config that overrides compose to."""
    config = OmegaConf.to_yaml(compose(list(overrides)), sort_keys=True)
    return hashlib.sha256(config.encode()).hexdigest()[:8]


def finish(jobs: Sequence[Job], at_once: int) -> Iterator[tuple[Job, float]]:
    """Run what is not finished, ``at_once`` side by side, one thread each.

    Yields each job with its seconds, 0 if it was finished before.

    Raises:
        SystemExit: a run failed; its last lines are printed.
    """
    todo = [job for job in jobs if not job.finished]
    for job in jobs:
        if job.finished:
            yield job, 0.0
    with ThreadPoolExecutor(at_once) as pool:
        waiting = [pool.submit(_run, job) for job in todo]
        try:
            for future in as_completed(waiting):
                yield future.result()
        finally:
            for future in waiting:
                future.cancel()


def _run(job: Job) -> tuple[Job, float]:
    begun = time.perf_counter()
    done = subprocess.run(
        job.command, cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
        raise SystemExit(f"{job.name}, seed {job.seed}: {' '.join(job.command[2:])}\n{tail}")
    return job, time.perf_counter() - begun

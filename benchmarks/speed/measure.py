"""Start one contender as a process of its own, and measure that whole tree of processes.

Linux only where memory is concerned: it reads ``/proc``. Elsewhere the peak is null.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
MARK = "FEDPDM_BENCH"
"""Environment variable that every process of a run inherits, also those that Ray detaches."""

PATIENCE = 10.0
"""Seconds that what a run left behind (Ray's processes) may take to end by itself."""

PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
PROC = Path("/proc")


@dataclass
class Finished:
    """A process that came to its end."""

    returncode: int
    seconds: float
    peak_bytes: int | None
    output: str


def marked(mark: str) -> list[int]:
    """Return the processes that carry a mark in their environment."""
    needle = f"{MARK}={mark}".encode()
    found = []
    for folder in PROC.glob("[0-9]*") if PROC.is_dir() else ():
        try:
            if needle in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue  # not ours, or gone
    return found


def resident(pid: int) -> int:
    """Return a process's resident bytes; shared pages counted in full. Cheap."""
    try:
        return int((PROC / str(pid) / "statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def proportional(pid: int) -> int:
    """Return a process's bytes, a page shared by n processes counted as 1/n. Slow."""
    try:
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError):
        pass
    return 0


class PeakMemory(threading.Thread):
    """Watches the memory of all processes with a mark.

    The sum of proportional set sizes is taken only when the cheap sum has grown to a new
    height, so that watching does not slow down what is watched.
    """

    def __init__(self, mark: str, every: float = 0.25) -> None:
        super().__init__(daemon=True)
        self._mark, self._every = mark, every
        self._over = threading.Event()
        self._height = 0
        self.peak: int | None = None

    def run(self) -> None:
        while not self._over.wait(self._every):
            pids = marked(self._mark)
            height = sum(resident(pid) for pid in pids)
            if height > 1.02 * self._height:
                self._height = height
                self.peak = max(self.peak or 0, sum(proportional(pid) for pid in pids))

    def stop(self) -> int | None:
        self._over.set()
        self.join()
        return self.peak


def run_watched(command: list[str], timeout: float, environment: dict[str, str]) -> Finished:
    """Run a command to its end, and leave nothing of it running.

    Seconds are from the interpreter's start to its exit.
    """
    mark = uuid.uuid4().hex
    started = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, **environment, MARK: mark},
        )  # fmt: skip
        watch = PeakMemory(mark)
        watch.start()
        patience = PATIENCE
        try:
            process.wait(timeout)
        except BaseException as interruption:  # Ctrl-C and SIGTERM too: nothing may stay behind
            patience = 0.0
            process.kill()
            process.wait()
            if not isinstance(interruption, subprocess.TimeoutExpired):
                raise
        finally:
            seconds = time.perf_counter() - started
            peak = watch.stop()
            clear(mark, patience)
        output.seek(0)
        text = output.read().decode(errors="replace")
    return Finished(process.returncode, seconds, peak, text)


def clear(mark: str, patience: float) -> None:
    """Wait for what a run started and left behind (Ray's processes), then end it."""
    deadline = time.monotonic() + patience
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + PATIENCE
    while left and marked(mark) and time.monotonic() < deadline:
        time.sleep(0.02)


QUIET = {
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0",
    "FLWR_TELEMETRY_ENABLED": "0", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore",
}  # fmt: skip
"""One torch thread in every process, and nobody phones home."""


def measure(launch: list[str], argument: str, timeout: float) -> dict[str, Any]:
    """Return what one run of a contender came to, or ``{"failed": why}``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        done = run_watched([*launch, argument, str(path)], timeout, QUIET)
        if done.returncode != 0 or not path.exists():
            if done.seconds >= timeout:
                return {"failed": f"not done after {timeout:.0f} s"}
            return {"failed": last_words(done.output) or f"exit {done.returncode}"}
        result: dict[str, Any] = json.loads(path.read_text())
    return {**result, "process_seconds": done.seconds, "peak_bytes": done.peak_bytes}


def last_words(output: str) -> str:
    """Return the line that says why a program failed: the last exception, or the last line."""
    lines = [line for line in output.splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (raised or lines or [""])[-1][:300]


def launch_of(module: str, python: str = sys.executable, processes: int = 1) -> list[str]:
    """Return the command line that starts a contender."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [python, *(torchrun if processes > 1 else []), "-m", f"benchmarks.speed.{module}"]

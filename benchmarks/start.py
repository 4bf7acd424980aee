"""How long the default run takes to start, to its first round and to its end.

    python -m benchmarks.start [--repeats 3] [OVERRIDE …]

Processor time says what the work costs, whatever else the machine does; the wall clock counts on
quiet cores only. The least of the repeats is shown, in seconds. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

Times = dict[str, float]
TICKS = os.sysconf("SC_CLK_TCK")
FIRST = re.compile(r"^round +\d+/\d+  loss", re.MULTILINE)


def worked(root: int) -> dict[int, float]:
    """Return the processor seconds so far of a running process and of all below it."""
    parents, seconds = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            number, fields = int(path.parent.name), path.read_text().rpartition(")")[2].split()
            parents[number], used = int(fields[1]), int(fields[11]) + int(fields[12])
            seconds[number] = used / TICKS
    found = {root}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {number: seconds[number] for number in found if number in seconds}


def helped() -> Times:
    """Return what ``--help`` takes."""
    begun, before = time.perf_counter(), os.times()
    command = [sys.executable, "-m", "fedpdm.simulate", "--help"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    used = sum(after[2:4]) - sum(before[2:4])
    return {"help, wall": time.perf_counter() - begun, "help, processor": used}


def run(overrides: list[str]) -> Times:
    """Return what a run takes: to the line of its first round, in all, and by stage."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "run"
        command = [sys.executable, "-m", "fedpdm.simulate", *overrides, f"hydra.run.dir={place}"]
        begun, before, found = time.perf_counter(), os.times(), Times()
        said, used = Path(folder) / "said", dict[int, float]()
        with said.open("w") as out, subprocess.Popen(command, stdout=out) as process:
            while process.poll() is None:
                if not found:
                    used |= worked(process.pid)
                if not found and FIRST.search(said.read_text()):
                    found["first round, wall"] = time.perf_counter() - begun
                    found["first round, processor"] = used.pop(process.pid)
                    found["first round, processor of others"] = sum(used.values())
                time.sleep(0.02)
        if process.returncode:
            raise SystemExit(process.returncode)
        after = os.times()
        found["run, wall"] = time.perf_counter() - begun
        found["run, processor, baselines included"] = sum(after[2:4]) - sum(before[2:4])
        seconds = json.loads((place / "summary.json").read_text())["seconds"]
        stages = seconds.get("stages", {})
        return found | {f"stage {name}, wall": value for name, value in stages.items()}


def main() -> None:
    """Measure, and print the least of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("overrides", nargs="*", help="of the run: engine=ray rounds=2 …")
    asked = parser.parse_args()
    times = [helped() | run(asked.overrides) for _ in range(asked.repeats)]
    for name in times[0]:
        print(f"{name:<36} {min(each[name] for each in times):7.2f}")


if __name__ == "__main__":
    main()

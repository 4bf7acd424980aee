"""How long the default run takes to start, to its first round and to its end.

    python -m benchmarks.start [--repeats 3] [OVERRIDE …]

Processor time says what the work costs, whatever else the machine does; the wall clock counts on
quiet cores only. The least of the repeats is shown, in seconds. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

Times = dict[str, float]
TICKS = os.sysconf("SC_CLK_TCK")


def worked(process: int) -> float:
    """Return the processor seconds of a running process so far, without its children's."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


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
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("round ") and "loss" in line and not found:
                    found["first round, wall"] = time.perf_counter() - begun
                    found["first round, processor"] = worked(process.pid)
        if process.returncode:
            raise SystemExit(process.returncode)
        after = os.times()
        found["run, wall"] = time.perf_counter() - begun
        found["run, processor, baselines included"] = sum(after[2:4]) - sum(before[2:4])
        stages = json.loads((place / "summary.json").read_text())["seconds"]["stages"]
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

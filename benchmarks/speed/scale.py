"""Ten thousand sites: does a round cost what its sampled sites cost?

    python benchmarks/run.py scale                       # mlp and cnn, 1 %, 2 % and 5 %
    python benchmarks/run.py scale --sites 1000 --models mlp rounds=3

Every run is ``python -m fedpdm.simulate`` in a process of its own, with sites that are
generated when sampled. Whatever else is said goes to that command.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.measure import QUIET, ROOT, run_watched

ARCHETYPES = ("detroit", "houston", "seattle", "nagoya")
BENCH = ROOT / ".bench" / "scale"
RESULT = ROOT / "benchmarks" / "results" / "scale.json"
LIMITS = {"peak_bytes": 3 * 2**30, "disk_bytes": 2 * 2**30}


def command(model: str, sites: int, fraction: float, rounds: int, folder: Path,
            extra: Sequence[str]) -> list[str]:  # fmt: skip
    """Return the command line of one run. Evaluation and baselines are bounded, not off.

    Raises:
        SystemExit: the sites cannot be shared out among the archetypes.
    """
    if sites % len(ARCHETYPES):
        raise SystemExit(f"--sites {sites} must be a multiple of {len(ARCHETYPES)}")
    return [
        sys.executable, "-m", "fedpdm.simulate",
        f"site={','.join(ARCHETYPES)}", f"replicas={sites // len(ARCHETYPES)}",
        f"model={model}", f"rounds={rounds}", f"strategy.fraction_train={fraction}",
        f"evaluate.fraction={min(1.0, 50 / sites)}", "baselines.max_plants=0",
        "training.local_epochs=1", "data.days=120", f"hydra.run.dir={folder}", *extra,
    ]  # fmt: skip


def disk(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def line_fit(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """Return slope, intercept and R² of the least-squares line through the points."""
    slope, intercept = (float(v) for v in np.polyfit(x, y, 1))
    left = np.asarray(y) - (slope * np.asarray(x) + intercept)
    spread = float(np.sum((np.asarray(y) - np.mean(y)) ** 2))
    squared = 1.0 - float(np.sum(left**2)) / spread if spread > 0 else 1.0
    return {"slope": slope, "intercept": intercept, "r_squared": squared}


def once(model: str, sites: int, fraction: float, rounds: int, extra: Sequence[str],
         timeout: float) -> dict[str, Any]:  # fmt: skip
    """Run once and return time of every round, peak memory and disk."""
    from fedpdm.history import History

    folder = BENCH / f"{model}-{sites}-{fraction:g}"
    shutil.rmtree(folder, ignore_errors=True)
    done = run_watched(command(model, sites, fraction, rounds, folder, extra), timeout, QUIET)
    if done.returncode != 0:
        print(done.output[-2000:])
        raise SystemExit(f"{model}, {sites} sites, {fraction:.0%} sampled: the run failed")
    with History.open(folder) as history:
        records = [record for record in history.rounds() if record.round > 0]
    used = disk(folder)
    shutil.rmtree(folder)
    return {
        "model": model, "plants": sites, "fraction": fraction,
        "sampled": len(records[0].sampled),
        "round_seconds": [record.seconds for record in records],
        "process_seconds": done.seconds, "peak_bytes": done.peak_bytes, "disk_bytes": used,
    }  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="run.py scale", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--sites", type=int, default=10_000)
    parser.add_argument("--models", default="mlp,cnn")
    parser.add_argument("--fractions", default="0.01,0.02,0.05", help="the last one is the target")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--timeout", type=float, default=7200.0, help="seconds for one run")
    parser.add_argument("--out", type=Path, default=RESULT)
    options, extra = parser.parse_known_args(arguments)
    fractions = [float(part) for part in options.fractions.split(",")]
    stored: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(), "options": list(extra), "runs": [],
        "fits": {},
    }  # fmt: skip
    for model in options.models.split(","):
        points: list[tuple[int, float]] = []
        for fraction in fractions:
            run = once(model, options.sites, fraction, options.rounds, extra, options.timeout)
            stored["runs"].append(run)
            later = run["round_seconds"][1:] or run["round_seconds"]
            points += [(run["sampled"], seconds) for seconds in later]
            memory = "?" if run["peak_bytes"] is None else f"{run['peak_bytes'] / 2**20:,.0f} MB"
            print(
                f"{model}, {options.sites:,} sites, {run['sampled']} sampled: "
                f"{statistics.median(later):.2f} s a round, {run['process_seconds']:.0f} s in all, "
                f"peak {memory}, disk {run['disk_bytes'] / 2**20:,.0f} MB",
                flush=True,
            )
            for name, limit in LIMITS.items():
                if run[name] is not None and run[name] > limit:
                    print(f"  MISSED: {name} is over {limit / 2**30:g} GiB")
        if len(fractions) > 1:
            fit = line_fit(*zip(*points, strict=True))
            stored["fits"][model] = fit
            print(
                f"{model}: seconds per round = {fit['intercept']:.3f} + "
                f"{1000 * fit['slope']:.3f} ms × sampled sites, R² = {fit['r_squared']:.4f}",
                flush=True,
            )
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(stored, indent=1) + "\n")

"""The source systems moola, G-code and HomeIQ, federated, beside their controls.

    python -m benchmarks.systems           runs what is missing, then writes results and the page
    python -m benchmarks.systems --show    only writes docs/source-systems.md from what there is

Five seeds of each experiment. Finished runs are read again and half-finished ones resumed, so it
may be stopped and started at will. The page also reads the results of the other benchmarks about
source systems; a number that no file has is printed as "not measured".
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.predictions.runs import ROOT, Job, finish
from benchmarks.predictions.source_systems import page
from fedpdm.storage import write_json

FOLDER = ROOT / "benchmarks" / "results"
RESULTS = FOLDER / "systems.json"
PAGE = ROOT / "docs" / "source-systems.md"
SEEDS = (42, 43, 44, 45, 46)
EXPERIMENTS: dict[str, tuple[str, ...]] = {
    "moola": ("experiment=moola",),
    "asset_type": ("experiment=homeiq",),
    "device_failure": ("experiment=homeiq", "task=device_failure"),
    "anomaly": ("experiment=homeiq", "task=anomaly"),
    "gcode": ("experiment=gcode",),
}
"""What follows ``python -m fedpdm.simulate``; the slowest comes last."""


def jobs() -> Iterator[tuple[str, Job]]:
    """Yield (name, job): all seeds of the quick experiments, a seed of each first, then gcode."""
    order = [(seed, name) for seed in SEEDS for name in EXPERIMENTS if name != "gcode"]
    for seed, name in [*order, *((seed, "gcode") for seed in SEEDS)]:
        yield name, Job(f"systems_{name}", EXPERIMENTS[name], seed)


def of_run(job: Job) -> dict[str, Any]:
    """Return what is kept of a finished run: means over the sites, by predictor and metric."""
    summary = job.summary()
    tested = summary["test"]
    scores = {"federated": tested["mean_site"]}
    scores |= {name: found["mean_site"] for name, found in tested["baselines"].items() if found}
    return {
        "metric": summary["validation"]["metric"],
        "scores": scores,
        "best_round": summary["best_round"],
        "seconds": summary["seconds"]["total"],
        "command": job.stated,
        "commit": job.commit,
    }


def read(folder: Path = FOLDER) -> dict[str, Any]:
    """Return the stored results by file name; a file that is missing has none."""
    names = ("systems", "horizons", "pretraining", "networkfed", "trees", "evidence")
    paths = {name: folder / f"{name}.json" for name in names}
    return {name: json.loads(p.read_text()) if p.exists() else {} for name, p in paths.items()}


def keep(name: str, seed: int, found: dict[str, Any]) -> None:
    """Store a result beside the others."""
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    stored.setdefault(name, {})[str(seed)] = found
    write_json(RESULTS, stored)


def main() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--show", action="store_true", help="only the page of what there is")
    parser.add_argument("--only", nargs="+", choices=list(EXPERIMENTS), default=list(EXPERIMENTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    chosen = parser.parse_args()
    if not chosen.show:
        for name, job in jobs():
            if name in chosen.only and job.seed in chosen.seeds:
                for _ in finish([job], at_once=1):
                    keep(name, job.seed, of_run(job))
    PAGE.write_text(page(read()))


if __name__ == "__main__":
    main()

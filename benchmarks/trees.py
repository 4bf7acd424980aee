"""Federated boosted trees against scikit-learn's on pooled rows: remaining life on C-MAPSS.

    python benchmarks/trees.py                  # FD001 to FD004, three seeds; an hour on two cores
    python benchmarks/trees.py FD001 FD003      # some
    python benchmarks/trees.py --seeds 42       # one seed

It can be stopped and started: finished runs are kept in ``runs/evidence``, half-finished ones are
resumed. Results go to ``benchmarks/results/trees.json``; docs/decisions/032-federated-trees.md
speaks of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.predictions.runs import Job, finish  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "trees.json"
SUBSETS = ("FD001", "FD002", "FD003", "FD004")
ARMS = ("alone", "pooled", "hgb")
GOAL = 0.3
"""Cycles that federated trees may be worse than scikit-learn's on pooled rows."""


def job(subset: str, seed: int) -> Job:
    """Return the run of a subset."""
    overrides = ("experiment=cmapss_trees", f"data.subset={subset}", "engine=serial",
                 "evaluate.bootstrap=0", f"baselines.controls=[{','.join(ARMS)}]")  # fmt: skip
    return Job(f"trees-{subset}", overrides, seed)


def measured(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a run: RMSE in cycles on the official test engines, costs."""
    tested = summary["test"]
    arms = {"federated": tested, **{name: tested["baselines"][name] for name in ARMS}}
    rmse = {name: each["global"]["rmse"] for name, each in arms.items()}
    return {
        "rmse": rmse,
        "beyond_hgb": rmse["federated"] - rmse["hgb"],
        "equal_to_pooled": all(
            tested["per_site"][site]["rmse"] == each["rmse"]
            for site, each in arms["pooled"]["per_site"].items()
        ),
        "best_round": summary["best_round"],
        "seconds": summary["seconds"]["training"],
        "processor_seconds": (summary["processor_seconds"] or {}).get("training"),
        "bytes": summary["bytes"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("subsets", nargs="*", default=list(SUBSETS), help=", ".join(SUBSETS))
    parser.add_argument("--seeds", default="42,43,44", help="separated by commas")
    options = parser.parse_args(arguments)
    jobs = [
        job(subset, int(seed)) for seed in options.seeds.split(",") for subset in options.subsets
    ]
    stored: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for done, _ in finish(jobs, 1):
        subset = done.name.removeprefix("trees-")
        entry = stored.setdefault(subset, {"command": done.stated, "seeds": {}})
        if entry["command"] != done.stated:
            entry = stored[subset] = {"command": done.stated, "seeds": {}}
        entry["seeds"][str(done.seed)] = found = measured(done.summary())
        ordered = {name: stored[name] for name in SUBSETS if name in stored}
        RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")
        arms = ", ".join(f"{name} {value:.2f}" for name, value in found["rmse"].items())
        goal = "within" if found["beyond_hgb"] <= GOAL else "NOT within"
        print(
            f"{subset}, seed {done.seed}: {arms}; {goal} {GOAL} of hgb; "
            f"{'equal' if found['equal_to_pooled'] else 'NOT equal'} to pooled; "
            f"{found['seconds']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()

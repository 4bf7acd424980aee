"""The best validation score of the runs of a sweep over learning rate schedules, by schedule.

    python -m fedpdm.simulate -m training.schedule=step,cosine,constant seed=20,21,22,23,24 \
        baselines.max_plants=0 evaluate.bootstrap=0 hydra.sweep.dir=runs/schedules
    python benchmarks/schedules.py runs/schedules

Test data is not looked at: docs/decisions/028-learning-rate-schedules.md chose by this table.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import yaml


def scores(sweep: Path) -> pd.DataFrame:
    """Return the best validation AP (or RMSE) of each run, a row per seed."""
    found = []
    for file in sorted(sweep.glob("*/metrics.csv")):
        config = yaml.safe_load((file.parent / "config.yaml").read_text())
        metrics = pd.read_csv(file)
        rounds = metrics[metrics["site"].isna()]
        best = rounds["rmse"].min() if "rmse" in rounds else rounds["average_precision"].max()
        found.append((config["training"]["schedule"], config["seed"], best))
    frame = pd.DataFrame(found, columns=["schedule", "seed", "best"])
    return frame.pivot(index="seed", columns="schedule", values="best")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        table = scores(Path(name))
        print(f"{name}\n{table.round(3)}\nmean\n{table.mean().round(3).to_string()}\n")

"""Three sites on which federated training is the best there is: sums of sensors decide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

SENSORS = [f"s{k}" for k in range(8)]
WINDOW = 9
SETTINGS = (
    "data=files", f"data.window={WINDOW}", "model=trend", "rounds=4", "training.local_epochs=4",
    "baselines.controls=[alone,hgb,minirocket]", "baselines.minirocket.features=84",
    "baselines.minirocket.windows=300", "baselines.processes=0", "engine=serial",
)  # fmt: skip


def rows(name: str, seed: int, machines: int = 8, steps: int = 110) -> pd.DataFrame:
    """Machines of a site: white noise, and whether a weighted sum of it is large."""
    weights = np.random.default_rng(0).normal(size=len(SENSORS))
    draw, parts = np.random.default_rng(seed), []
    for machine in range(machines):
        x = draw.normal(size=(steps, len(SENSORS))).round(3)
        frame = pd.DataFrame(x, columns=SENSORS)
        level = x @ weights / np.linalg.norm(weights) + draw.normal(0, 0.3, steps)
        frame["fails"] = (level > 1).astype(int)
        frame.insert(0, "time", pd.date_range("2024-01-01", periods=steps))
        frame.insert(0, "machine", f"{name}{machine}")
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def write_sites(folder: Path, names: Sequence[str] = ("north", "south", "west")) -> Path:
    """Write the sites' files and yamls."""
    (folder / "site").mkdir(parents=True)
    for seed, name in enumerate(names, start=10):
        rows(name, seed).to_csv(folder / f"{name}.csv", index=False)
        block = {"path": f"{name}.csv", "machine": "machine", "time": "time", "label": "fails",
                 "features": SENSORS}  # fmt: skip
        text = yaml.safe_dump({name: block}, sort_keys=False)
        (folder / "site" / f"{name}.yaml").write_text(f"# @package sites\n{text}")
    return folder


def new_rows() -> pd.DataFrame:
    """Rows of machines that nobody has seen: with gaps in readings and time, and a short one."""
    frame = rows("new", 99, machines=3, steps=40)
    draw = np.random.default_rng(1)
    for sensor in SENSORS:
        frame.loc[draw.random(len(frame)) < 0.1, sensor] = np.nan
    frame.loc[frame["machine"] == "new1", "s3"] = np.nan  # no reading at all
    day = pd.to_datetime(frame["time"])
    gap = (frame["machine"] == "new0") & (day > "2024-01-20") & (day < "2024-02-02")
    short = (frame["machine"] == "new2") & (day > "2024-01-05")
    frame = frame[~gap & ~short].drop(columns="fails")
    return frame.sample(frac=1, random_state=0)

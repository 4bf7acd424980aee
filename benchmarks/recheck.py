"""The remaining lives of docs/evidence.md once more, by code that shares nothing with fedpdm.

    FEDPDM_DATA=data python benchmarks/recheck.py             # results/recheck.json
    FEDPDM_DATA=data python benchmarks/recheck.py --rescore   # the first question only

Two questions of a sceptic. *Do the runs' weights give these figures?* The kept runs of
``benchmarks/evidence.py rul fedcmapss`` are scored again: raw text, windows, scaling, network and
RMSE are written here a second time, in NumPy. *Are such figures there to be had?* A network and
boosted trees of scikit-learn learn from means and slopes of the raw text's windows, with and
without the engine's age, at settings that were written down before the first look at a test
engine. Nothing of fedpdm is imported.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ROOT = Path(__file__).resolve().parent
RESULTS, EVIDENCE = ROOT / "results" / "recheck.json", ROOT / "results" / "evidence.json"
RUNS = ROOT.parent / "runs" / "evidence"
SUBSETS = ("FD001", "FD002", "FD003", "FD004")
SENSORS = [2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21]
ALTITUDES = (0, 10, 20, 25, 35, 42)
"""Thousand feet: which of the six operating conditions a cycle was flown in."""
CAP, WINDOW, STRIDE, EPOCHS, BATCH = 125, 80, 2, 15, 128
UNSCORED = ("fedcmapss_b", "fedcmapss_d")
"""B is trees, not the network written here; D's windows are of one operating condition each."""
SPANS = (5, 10, 20, 40, 80)


def table(folder: Path, kind: str, subset: str) -> pd.DataFrame:
    """Return a file of C-MAPSS; ``condition`` counts through the altitudes."""
    names = ["engine", "cycle", "altitude", "mach", "throttle", *range(1, 22)]
    rows = pd.read_csv(folder / f"{kind}_{subset}.txt", sep=r"\s+", header=None, names=names)
    rows["condition"] = 0
    if subset in ("FD002", "FD004"):
        apart = np.abs(rows["altitude"].to_numpy()[:, None] - np.array(ALTITUDES))
        rows["condition"] = apart.argmin(axis=1)
    return rows


def scaled(rows: pd.DataFrame, columns: list[Any], mean: Any, scale: Any) -> np.ndarray:
    """Return (R, F) with the mean and deviation of each row's condition; 0 where none varied."""
    condition = rows["condition"].to_numpy()
    values = rows[columns].to_numpy(float) - mean[condition]
    wide = scale[condition]
    return np.where(wide > 0, values / np.where(wide > 0, wide, 1), 0).astype(np.float32)


def last_windows(values: np.ndarray, engines: np.ndarray, length: int) -> np.ndarray:
    """Return (engines, length, F): each engine's end; a short one repeats its first row."""
    found = []
    for engine in np.unique(engines):
        own = values[engines == engine][-length:]
        found.append(np.concatenate([np.repeat(own[:1], length - len(own), axis=0), own]))
    return np.stack(found)


def rmse(folder: Path, subset: str, predicted: np.ndarray) -> float:
    """Return the error against the lives in RUL_FD00x.txt, both capped."""
    return float(np.sqrt(np.mean(squared_errors(folder, subset, predicted))))


def squared_errors(folder: Path, subset: str, predicted: np.ndarray) -> np.ndarray:
    """Return (engines,) squared errors of capped lives, in the order of RUL_FD00x.txt."""
    truth = np.minimum(np.loadtxt(folder / f"RUL_{subset}.txt"), CAP)
    return np.asarray((np.clip(predicted, 0, CAP) - truth) ** 2)


def rescored(folder: Path, run: Path) -> float:
    """Return the RMSE of the chosen round of a run of model=trend, from its weights."""
    told = json.loads((run / "summary.json").read_text())
    model = json.loads((run / "model.json").read_text())
    subset = json.loads((run / "manifest.json").read_text())["config"]["data"]["subset"]
    split = pd.read_csv(run / "split.csv.gz")
    tested = set(split.loc[split["split"] == "test", "machine"])
    weights = load_file(run / "rounds" / f"{told['best_round']:06d}.safetensors")
    scaler = load_file(run / "scaler.safetensors")
    columns = ["cycle" if name == "cycle" else int(name[-2:]) for name in model["features"]]
    errors: list[float] = []
    for name in [subset] if isinstance(subset, str) else subset:
        prefix = "" if isinstance(subset, str) else f"{name}-"
        rows = table(folder, "test", name)
        values = scaled(rows, columns, scaler["federated/mean"], scaler["federated/scale"])
        windows = last_windows(values, rows["engine"].to_numpy(), model["window"])
        hidden = np.einsum("btf,st->bfs", windows, weights["time.weight"])
        hidden = hidden.reshape(len(windows), -1)
        for layer in ("fc1", "fc2"):
            hidden = hidden @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
            hidden = np.maximum(hidden, 0)
        output = (hidden @ weights["output.weight"].T + weights["output.bias"])[:, 0]
        each = squared_errors(folder, name, output * CAP)
        errors += [e for i, e in enumerate(each, 1) if f"{prefix}test-{i:03d}" in tested]
    if len(errors) != len(tested):
        raise SystemExit(f"{run} tests {len(tested)} engines, and {len(errors)} were found")
    return float(np.sqrt(np.mean(errors)))


def summarised(windows: np.ndarray) -> np.ndarray:
    """Return (N, 10 F): mean and slope of the last 5, 10, 20, 40 and 80 steps of (N, 80, F)."""
    parts = []
    for steps in SPANS:
        part = windows[:, -steps:]
        centred = np.arange(steps) - (steps - 1) / 2
        parts += [part.mean(1), np.einsum("ntf,t->nf", part, centred / (centred**2).sum())]
    return np.concatenate(parts, axis=1)


def retrained(folder: Path, subset: str, age: bool) -> dict[str, list[float]]:
    """Train networks and trees of scikit-learn on a subset; return their test RMSE by seed."""
    columns: list[Any] = [*SENSORS, "cycle"] if age else list(SENSORS)
    train, test = table(folder, "train", subset), table(folder, "test", subset)
    groups = train.groupby("condition")[columns]
    mean, scale = groups.mean().to_numpy(), groups.std().to_numpy()
    x, engine = scaled(train, columns, mean, scale), train["engine"].to_numpy()
    windows, lives = [], []
    for number in np.unique(engine):
        own = x[engine == number]
        padded = np.concatenate([np.repeat(own[:1], WINDOW - 1, axis=0), own])
        ends = np.arange(len(own) - 1, -1, -STRIDE)
        windows += [padded[end : end + WINDOW] for end in ends]
        lives += [min(len(own) - 1 - end, CAP) for end in ends]
    inputs, truth = summarised(np.stack(windows)), np.array(lives)
    ends = last_windows(scaled(test, columns, mean, scale), test["engine"].to_numpy(), WINDOW)
    result: dict[str, list[float]] = {"network": [], "trees": []}
    for seed in range(5):
        network = make_pipeline(
            StandardScaler(),
            MLPRegressor(hidden_layer_sizes=(128, 64), alpha=1e-3, batch_size=BATCH,
                         max_iter=EPOCHS, random_state=seed),
        )  # fmt: skip
        trees = HistGradientBoostingRegressor(learning_rate=0.05, max_iter=200, random_state=seed)
        for name, model, target in (("network", network, truth / CAP), ("trees", trees, truth)):
            with warnings.catch_warnings():  # the number of epochs is fixed, not found
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(inputs, target)
            predicted = model.predict(summarised(ends)) * (CAP if name == "network" else 1)
            result[name].append(round(rmse(folder, subset, predicted), 3))
    return result


def main() -> int:
    """Score kept runs again, train once more, print and write; 1 where a figure differs."""
    folder = Path(os.environ.get("FEDPDM_DATA", "data")) / "cmapss"
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known = stored.get("rescored", {}).get("each", {})
    again: dict[str, dict[str, Any]] = {}
    for name, told in json.loads(EVIDENCE.read_text()).items():
        if not name.startswith(("rul_", "fedcmapss_")) or name in UNSCORED:
            continue
        for seed, value in zip(told["seeds"], told["global"]["federated"]["values"], strict=True):
            runs = [run for run in RUNS.glob(f"{name}-????????-{seed}") if tells(run, value)]
            scored = f"{name}, seed {seed}"
            if known.get(scored, {}).get("told") == value:
                again[scored] = known[scored]
                continue
            if not runs:
                print(
                    f"{name}, seed {seed}: make the run first: python benchmarks/evidence.py {name}"
                )
                continue
            again[scored] = {"told": value, "again": rescored(folder, runs[0])}
    farthest = max((abs(each["told"] - each["again"]) for each in again.values()), default=0.0)
    print(f"{len(again)} runs scored again; farthest apart: {farthest:.1e} cycles", flush=True)
    trained: dict[str, dict[str, Any]] = {}
    if "--rescore" in sys.argv:
        trained = stored["retrained"]["rmse"]
    for subset in () if trained else SUBSETS:
        start = time.monotonic()
        trained[subset] = {
            "with_age": retrained(folder, subset, age=True),
            "without_age": retrained(folder, subset, age=False),
        }
        means = {
            f"{model} {kind}": round(float(np.mean(values)), 2)
            for kind, models in trained[subset].items()
            for model, values in models.items()
        }
        print(subset, means, f"{time.monotonic() - start:.0f} s", flush=True)
    result = {
        "rescored": {"runs": len(again), "farthest_apart": farthest, "each": again},
        "retrained": {"epochs": EPOCHS, "window": WINDOW, "stride": STRIDE, "rmse": trained},
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    return int(farthest > 1e-3 or not again)


def tells(run: Path, value: float) -> bool:
    """Return whether a kept run is the one behind a figure."""
    summary = run / "summary.json"
    if not summary.exists():
        return False
    return bool(json.loads(summary.read_text())["test"]["global"]["rmse"] == value)


if __name__ == "__main__":
    sys.exit(main())

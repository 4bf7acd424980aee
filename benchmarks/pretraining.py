"""What federated pretraining is worth: frozen random against frozen pretrained encoders, paired.

    python benchmarks/pretraining.py runs/pretraining

For each seed: one federation pretrains a BiLSTM without labels, then four start from the same
split, with all training windows and with an eighth of them. A run that is there already is not
run again, so the command can be stopped and repeated. Differences are paired by seed, with 95 %
intervals of Student's t. The table goes to FOLDER/pretraining.json and to the screen.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from fedpdm.config.compose import compose
from fedpdm.simulate import simulate

SEEDS = (0, 1, 2, 3, 4)
COMMON = ("baselines.max_plants=0", "evaluate.bootstrap=0", "engine=serial")
PROBE = ("model=linear_probe", "init.freeze_rounds=all", "rounds=20")
FULL = ("model=lstm", "rounds=10")
ARMS = {
    "probe, random": PROBE,
    "probe, pretrained": (*PROBE, "init=PRETRAINED"),
    "lstm, fresh": FULL,
    "lstm, pretrained": (*FULL, "init=PRETRAINED"),
}
LABELS = {"all": (), "an eighth": ("data.stride=224",)}
PAIRS = (("probe, pretrained", "probe, random"), ("lstm, pretrained", "lstm, fresh"))


def run(folder: Path, *overrides: str) -> dict[str, Any]:
    """Return the summary of a run, which is made unless it is there."""
    if not (folder / "summary.json").exists():
        simulate(compose([*COMMON, *overrides]), folder)
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def measure(folder: Path) -> dict[str, Any]:
    """Return by labels and arm the test AP (mean of sites) of each seed, and the pretraining."""
    scores: dict[str, dict[str, list[float]]] = {
        labels: {arm: [] for arm in ARMS} for labels in LABELS
    }
    errors = []
    for seed in SEEDS:
        pretrained = folder / f"pretrained-{seed}"
        found = run(pretrained, "task=reconstruction", "rounds=15", f"seed={seed}")
        errors.append(found["test"]["global"])
        for labels, fewer in LABELS.items():
            for arm, settings in ARMS.items():
                given = [text.replace("PRETRAINED", str(pretrained)) for text in settings]
                place = folder / f"{labels}-{arm}-{seed}".replace(", ", "-").replace(" ", "-")
                summary = run(place, *given, *fewer, f"seed={seed}")
                scores[labels][arm].append(summary["test"]["mean_site"]["average_precision"])
    return {"seeds": SEEDS, "pretraining": errors, "average_precision": scores}


def paired(first: list[float], second: list[float]) -> dict[str, float]:
    """Return the mean difference over seeds and the ends of its 95 % interval."""
    difference = np.subtract(first, second)
    half = stats.t.ppf(0.975, len(difference) - 1) * stats.sem(difference)
    mean = float(difference.mean())
    return {"difference": mean, "low": mean - half, "high": mean + half}


def main(folder: Path) -> None:
    """Measure, and show the table."""
    found = measure(folder)
    found["gain"] = {
        labels: {f"{a} - {b}": paired(arms[a], arms[b]) for a, b in PAIRS}
        for labels, arms in found["average_precision"].items()
    }
    (folder / "pretraining.json").write_text(json.dumps(found, indent=1) + "\n")
    for labels, arms in found["average_precision"].items():
        for arm, values in arms.items():
            print(f"labels: {labels:<10} {arm:<18} AP {np.mean(values):.3f}")
        for pair, gain in found["gain"][labels].items():
            print(f"  {pair}: {gain['difference']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

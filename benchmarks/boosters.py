"""Are the boosted trees beside a run as good as plain ones? Generated sites, own code.

    python -m benchmarks.boosters            runs what is missing, then writes the page
    python -m benchmarks.boosters --show     the page again

scikit-learn's trees on every row: its readings, and the history of the machine's life made with
pandas. No validation: each setting trains on training and validation rows, and the best of them is
taken by its *test* score, which flatters it. Beside it stand ``hgb`` and ``hgb_alone`` of
``python benchmarks/evidence.py fleet_chosen``, on the same test windows. The page is docs/fleet.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score

from benchmarks.predictions import tables
from benchmarks.predictions.experiments import EXPERIMENTS
from benchmarks.predictions.runs import ROOT
from fedpdm.config.compose import compose
from fedpdm.data.rows import Floats, Rows, Split
from fedpdm.runs.experiment import build
from fedpdm.storage import write_json

RESULTS = ROOT / "benchmarks" / "results" / "boosters.json"
EVIDENCE = ROOT / "benchmarks" / "results" / "evidence.json"
PAGE = ROOT / "docs" / "fleet.md"
BEGIN = "<!-- made by benchmarks/boosters.py -->"
SETTINGS: dict[str, dict[str, Any]] = {
    "scikit-learn's defaults": {},
    "150 trees, rate .06": {"max_iter": 150, "learning_rate": 0.06},
    "100 trees of 8 leaves": {"max_leaf_nodes": 8, "min_samples_leaf": 50},
    "60 trees of 8 leaves": {"max_iter": 60, "max_leaf_nodes": 8, "min_samples_leaf": 50},
    "100 trees of 6 leaves, a third of the columns": {"max_leaf_nodes": 6, "max_features": 0.3},
    "its own early stopping": {"early_stopping": True, "max_iter": 300},
}


def table_of(rows: Rows) -> Floats:
    """Return (R, K): the readings of each row, its age, and weighted means of its life so far."""
    readings = pd.DataFrame(rows.values)
    life = [rows.machine, rows.life]
    found = [readings]
    for half in (8, 28, 112):
        mean = readings.groupby(life).transform(lambda own, h=half: own.ewm(halflife=h).mean())
        found.append(mean)
    new = readings.groupby(life).transform(
        lambda own: own.expanding().mean().where(np.arange(len(own)) < 28).ffill()
    )
    age = pd.Series(rows.time).groupby(life).transform(lambda own: own - own.iloc[0])
    found += [found[2] - new, found[1] - found[3], age.to_frame()]
    return pd.concat(found, axis=1).to_numpy()


def scores(seed: int) -> dict[str, dict[str, float]]:
    """Return average precision, mean of the sites, by setting, for trees alone and pooled."""
    federation = build(compose([f"seed={seed}"])).federation
    fitted, tested = {}, {}
    for site in federation.sites:
        rows = federation.rows(site)
        y, _, known = federation.task.targets(rows)
        table = table_of(rows)
        used = known & ((rows.split == Split.TRAIN) | (rows.split == Split.VALIDATION))
        ends = federation.ends(site)[Split.TEST]
        fitted[site], tested[site] = (table[used], y[used]), (table[ends], y[ends])
    result: dict[str, dict[str, float]] = {"alone": {}, "pooled": {}}
    for name, setting in SETTINGS.items():
        for arm, groups in (
            ("alone", [(site,) for site in fitted]), ("pooled", [tuple(fitted)])
        ):  # fmt: skip
            found = []
            for group in groups:
                x, y = (np.concatenate([fitted[site][k] for site in group]) for k in (0, 1))
                given = {"early_stopping": False, **setting}
                model = HistGradientBoostingClassifier(random_state=0, **given).fit(x, y)
                found += [
                    average_precision_score(
                        tested[site][1], model.predict_proba(tested[site][0])[:, 1]
                    )
                    for site in group
                ]
            result[arm][name] = float(np.mean(found))
    return result


def table(stored: Mapping[str, Any], evidence: Mapping[str, Any]) -> str:
    """Return both kinds of trees in Markdown."""
    lines = ["| trees | alone | pooled | seeds |", "|---|---|---|---|"]
    if stored:
        for name in SETTINGS:
            alone, pooled = (
                fmean(seed[arm][name] for seed in stored.values()) for arm in ("alone", "pooled")
            )
            lines.append(f"| plain: {name} | {alone:.3f} | {pooled:.3f} | {len(stored)} |")
    if ours := evidence.get("fleet_chosen", {}).get("mean_site"):
        if "hgb_alone" in ours:
            lines.append(f"| beside a run | {ours['hgb_alone']['mean']:.3f} | "
                         f"{ours['hgb']['mean']:.3f} | {len(ours['hgb']['values'])} |")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Run the seeds that are missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--show", action="store_true", help="only the page of what there is")
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for seed in () if parser.parse_args().show else EXPERIMENTS["fleet_chosen"].seeds:
        if str(seed) not in stored:
            stored[str(seed)] = scores(seed)
            write_json(RESULTS, stored)
            print(f"seed {seed}", flush=True)
    evidence = json.loads(EVIDENCE.read_text()) if EVIDENCE.exists() else {}
    tables.replace(PAGE, [table(stored, evidence)], BEGIN)


if __name__ == "__main__":
    main()

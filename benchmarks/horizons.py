"""Failures within 30, 60 and 90 cycles on C-MAPSS: the mixer, its variants, adapters, trees.

    python -m benchmarks.horizons           runs what is missing, then writes results and table
    python -m benchmarks.horizons --show    the table of what there is

Ten sites of random engines, five seeds, each subset of C-MAPSS. Finished runs are read again and
half-finished ones resumed, so it may be stopped and started at will. Trees are scikit-learn's, on
all rows pooled and on each site's own; they see the same windows and statistics as the network.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from statistics import fmean, stdev
from typing import Any

from benchmarks.predictions.runs import ROOT, Job, finish
from fedpdm.baselines.estimators import PerColumn, trees
from fedpdm.baselines.inputs import BaselineInputs
from fedpdm.config.compose import compose
from fedpdm.data.rows import Split
from fedpdm.data.windows import Windows
from fedpdm.evaluation.scoring import score
from fedpdm.runs.assembly import baseline_inputs
from fedpdm.runs.experiment import build
from fedpdm.storage import write_json

RESULTS = ROOT / "benchmarks" / "results" / "horizons.json"
SEEDS = (0, 1, 2, 3, 4)
HORIZONS = (30, 60, 90)
ASKED = {30: 0.90, 60: 0.87, 90: 0.83}
"""Mean average precision over the subsets that was set out to be reached."""
NO_STATISTICS = ("features=raw", "model.config.fusion=none")
SUBSETS: dict[str, tuple[str, ...]] = {
    "FD001": (),
    "FD002": (*NO_STATISTICS, "data.stride=16"),  # six conditions: statistics are refused
    "FD003": (),
    "FD004": (*NO_STATISTICS, "data.stride=16"),
}
LARGER = (
    "model.config.width=64", "model.config.num_layers=4", "model.config.hidden_size=32",
    "model.config.lora_rank=4", "training.learning_rate=0.002",
)  # fmt: skip
"""The document's width and depth: in the small encoder there is little to leave at home."""
FROZEN = (*LARGER, "model.config.freeze_encoder=true")
ARMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mixer": ((), tuple(SUBSETS)),
    "no statistics": (NO_STATISTICS, ("FD001",)),
    "cross-attention": (("model.config.fusion=cross_attention",), ("FD001",)),
    "encoder trained": (LARGER, ("FD001",)),
    "adapters": ((*FROZEN, "travels=adapters"), ("FD001",)),
    "encoder frozen": ((*FROZEN, "model.config.lora_rank=0"), ("FD001",)),
}
"""By name: what differs from the experiment, and on which subsets."""


def jobs() -> Iterator[tuple[str, str, Job]]:
    """Yield (arm, subset, job), a seed of every arm before the next seed."""
    for seed in SEEDS:
        for arm, (overrides, subsets) in ARMS.items():
            for subset in subsets:
                chosen = (
                    "experiment=hvac", f"data.subset={subset}", *SUBSETS[subset], *overrides,
                    "engine=serial", "baselines.controls=[]",
                )  # fmt: skip
                yield arm, subset, Job(f"horizons_{arm.replace(' ', '_')}_{subset}", chosen, seed)


def of_run(job: Job) -> dict[str, Any]:
    """Return what is kept of a finished run."""
    summary = job.summary()
    card = json.loads((job.folder / "model.json").read_text())
    return {
        "ap": {str(h): summary["test"]["global"][f"average_precision_{h}"] for h in HORIZONS},
        "mean_site_ap": {
            str(h): summary["test"]["mean_site"][f"average_precision_{h}"] for h in HORIZONS
        },
        "prevalence": {str(h): summary["test"]["global"][f"prevalence_{h}"] for h in HORIZONS},
        "validation_ap": summary["validation"]["best"],
        "best_round": summary["best_round"],
        "bytes_up": summary["bytes"]["up"],
        "thresholds": card["threshold_by_risk"],
        "seconds": summary["seconds"]["total"],
        "command": job.stated,
        "commit": job.commit,
    }


def of_trees(job: Job) -> dict[str, Any]:
    """Return what boosted trees on the same windows reach, pooled and at each site alone."""
    experiment = build(compose([*job.overrides, f"seed={job.seed}"]))
    inputs = baseline_inputs(experiment)
    found = {
        "pooled": fitted(inputs, inputs.pool, inputs.names),
        "alone": {
            site: predictions
            for name in inputs.names
            for site, predictions in fitted(inputs, (name,), (name,)).items()
        },
    }
    sites, task = inputs.sites(), inputs.task
    result: dict[str, Any] = {}
    for name, predictions in found.items():
        tested = score(predictions, sites, task, Split.TEST)
        for scope, key in (("global", "ap"), ("mean_site", "mean_site_ap")):
            result.setdefault(name, {})[key] = {
                str(h): tested[scope][f"average_precision_{h}"] for h in HORIZONS
            }
    return result


def fitted(
    inputs: BaselineInputs, trained: tuple[str, ...], tested: tuple[str, ...]
) -> dict[str, dict[Split, Any]]:
    """Return the test scores of sites by trees fitted to the windows of others, or their own."""
    train = Windows.concatenate([site.train for site in inputs.sites(trained)])
    model = PerColumn(inputs.task, train.y, trees(inputs.table(train), inputs.seed))
    return {
        site.name: {Split.TEST: model(inputs.table(site.test))} for site in inputs.sites(tested)
    }


def read() -> dict[str, Any]:
    """Return what is stored: by arm, subset and seed."""
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def keep(arm: str, subset: str, seed: int, found: Mapping[str, Any]) -> None:
    """Store a result beside the others."""
    stored = read()
    stored.setdefault(arm, {}).setdefault(subset, {})[str(seed)] = dict(found)
    write_json(RESULTS, stored)


def mean_of(per_seed: Mapping[str, Mapping[str, Any]], key: str, horizon: int) -> str:
    """Return ``mean ± deviation`` over seeds; a dash where there is nothing."""
    known = [v for found in per_seed.values() if (v := found[key][str(horizon)]) is not None]
    if not known:
        return "–"
    spread = f" ± {stdev(known):.3f}" if len(known) > 1 else ""
    return f"{fmean(known):.3f}{spread}"


def table(stored: Mapping[str, Any]) -> str:
    """Return average precision by arm, subset and horizon as a table in Markdown."""
    lines = [
        "| arm | subset | within 30 | 60 | 90 | MB up | seeds |", "|---|---|---|---|---|---|---|"
    ]  # fmt: skip
    for arm, subsets in stored.items():
        for subset, per_seed in subsets.items():
            cells = [mean_of(per_seed, "ap", h) for h in HORIZONS]
            sent = [found["bytes_up"] for found in per_seed.values() if "bytes_up" in found]
            size = f"{fmean(sent) / 1e6:.1f}" if sent else "–"
            lines.append(f"| {arm} | {subset} | {' | '.join(cells)} | {size} | {len(per_seed)} |")
    return "\n".join([*lines, "", *reached(stored)])


def reached(stored: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was asked beside the mean over the subsets that were measured."""
    found = stored.get("mixer", {})
    for horizon, asked in ASKED.items():
        means = [
            fmean(f["ap"][str(horizon)] for f in per_seed.values()) for per_seed in found.values()
        ]
        if means:
            over = ", ".join(found)
            yield f"within {horizon}: {fmean(means):.3f} over {over}; asked {asked:.2f}"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--show", action="store_true", help="only the table of what there is")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    chosen = parser.parse_args()
    if not chosen.show:
        for arm, subset, job in jobs():
            if arm not in chosen.arms or job.seed not in chosen.seeds:
                continue
            for _ in finish([job], at_once=1):
                keep(arm, subset, job.seed, of_run(job))
            known = read().get("trees pooled", {}).get(subset, {})
            if arm == "mixer" and str(job.seed) not in known:
                for name, found in of_trees(job).items():
                    keep(f"trees {name}", subset, job.seed, found)
    print(table(read()))


if __name__ == "__main__":
    main()

"""Failures within 30, 60 and 90 cycles on C-MAPSS: the mixer, its variants, adapters, trees.

    python -m benchmarks.horizons           runs what is missing, then writes results and tables
    python -m benchmarks.horizons --show    the tables of what there is, and what is missing

Ten sites of random engines, five seeds, each subset of C-MAPSS. Results that are stored are not
measured again, and half-finished runs are resumed, so it may be stopped and started at will. Trees
are scikit-learn's, on all rows pooled and on each site's own; they see the same windows and
statistics as the network. Arms are compared within a seed: Student's t over the differences.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch

from benchmarks.predictions.runs import ROOT, Job, finish
from benchmarks.pretraining import paired
from fedpdm.baselines.trees import boosted_trees, boosted_trees_alone
from fedpdm.config.compose import compose
from fedpdm.data.rows import Split
from fedpdm.evaluation.scoring import score
from fedpdm.models import ModelFactory
from fedpdm.models.policy import Adapters
from fedpdm.predict import load_predictor
from fedpdm.runs.assembly import baseline_inputs
from fedpdm.runs.experiment import build
from fedpdm.storage import write_json
from fedpdm.training.objective import outputs

RESULTS = ROOT / "benchmarks" / "results" / "horizons.json"
SEEDS = (0, 1, 2, 3, 4)
HORIZONS = (30, 60, 90)
TREES = ("trees pooled", "trees alone")
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
    "model.config.lora_rank=4", "training.learning_rate=0.002", "data.stride=16", "rounds=3",
)  # fmt: skip
"""The document's width and depth: in the small encoder there is little to leave at home. An epoch
takes several times as long, so these arms get half of the windows and of the rounds, all alike."""
FROZEN = (*LARGER, "model.config.freeze_encoder=true")
ADAPTERS = (*FROZEN, "travels=adapters")
PRETRAINED = {
    "forecast": ("model.config.masking=last", "model.config.share=0.17"),  # the newest patch
    "rebuilding": (
        "model.config.masking=patch", "model.config.patch=15", "model.config.share=0.34"
    ),
}  # fmt: skip
"""What the encoder learns from windows without labels, at the same sites, before the failures."""
PRETRAINING = (
    "data=cmapss", "task=reconstruction", "partition.sites=10", "data.features=aged",
    "data.window=90", "data.stride=16", "data.pad=all", "model.config.encoder=mixer_hybrid",
    "+model.config.settings.patch=15", "+model.config.settings.width=64",
    "+model.config.settings.num_layers=4", "rounds=3",
    "training.learning_rate=0.002", "training.schedule=cosine", "engine=serial",
    "baselines.controls=[]", "evaluate.bootstrap=0",
)  # fmt: skip
ARMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mixer": ((), tuple(SUBSETS)),
    "encoder trained": (LARGER, ("FD001",)),
    "adapters": (ADAPTERS, ("FD001",)),
    "adapters, forecast": (ADAPTERS, ("FD001",)),
    "encoder frozen": ((*FROZEN, "model.config.lora_rank=0"), ("FD001",)),
    "adapters, rebuilding": (ADAPTERS, ("FD001",)),
    "no statistics": (NO_STATISTICS, ("FD001",)),
    "cross-attention": (("model.config.fusion=cross_attention",), ("FD001",)),
    "one epoch a round": (("rounds=18", "training.local_epochs=1"), ("FD004",)),
}
"""By name: what differs from the experiment, and on which subsets. What stands after a comma is
the pretraining that the encoder starts from; other encoders start at random."""
PARTS = {
    "encoder": "encoder", "adapters": "adapters", "channel": "attention", "attention": "attention",
    "norm": "attention", "shared": "shared layer", "shared_norm": "shared layer", "output": "heads",
}  # fmt: skip
"""Of the model, by the first word of a tensor's name."""
PAIRS = (
    ("mixer", "trees pooled"), ("mixer", "trees alone"), ("mixer", "no statistics"),
    ("cross-attention", "mixer"), ("one epoch a round", "mixer"), ("adapters", "encoder trained"),
    ("adapters", "encoder frozen"), ("adapters, forecast", "encoder trained"),
    ("adapters, forecast", "adapters"), ("adapters, rebuilding", "adapters"),
)  # fmt: skip
"""The first minus the second, by seed, on every subset that both have."""


def jobs() -> Iterator[tuple[str, str, Job]]:
    """Yield (arm, subset, job), a seed of every arm before the next seed."""
    for seed in SEEDS:
        for arm, (overrides, subsets) in ARMS.items():
            for subset in subsets:
                before = pretraining(arm, subset, seed)
                start = () if before is None else (
                    f"init={before.folder.relative_to(ROOT)}", "init.scope=encoder"
                )  # fmt: skip
                chosen = (
                    "experiment=hvac", f"data.subset={subset}", *SUBSETS[subset], *overrides,
                    *start, "engine=serial", "baselines.controls=[]", "evaluate.bootstrap=0",
                    "promote=false",
                )  # fmt: skip
                yield arm, subset, Job(f"horizons_{named(arm)}_{subset}", chosen, seed)


def pretraining(arm: str, subset: str, seed: int) -> Job | None:
    """Return the run that an arm's encoder comes from; None where it starts at random."""
    how = arm.partition(", ")[2]
    if not how:
        return None
    chosen = (*PRETRAINING, f"data.subset={subset}", *PRETRAINED[how])
    return Job(f"horizons_{how}_{subset}", chosen, seed)


def named(arm: str) -> str:
    """Return an arm's name as part of a folder's."""
    return arm.replace(", ", "_").replace(" ", "_")


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
        "nested": nested(job),
        "command": job.stated,
        "commit": job.commit,
    }


def nested(job: Job) -> dict[str, int]:
    """Return how many test windows a site has, and in how many of them a risk falls.

    A failure within 30 cycles is one within 60, so no risk may fall with the horizon.
    """
    experiment = build(compose([*job.overrides, f"seed={job.seed}"]))
    inputs = baseline_inputs(experiment)
    site = inputs.names[0]
    own = site if "travels=adapters" in job.overrides else None
    module = load_predictor(job.folder, site=own).model.module
    windows = inputs.sites((site,))[0].test.x
    risks = inputs.task.scores(outputs(module, torch.from_numpy(windows)))
    return {"windows": len(risks), "falls": int((np.diff(risks, axis=1) < 0).any(axis=1).sum())}


def of_bytes() -> dict[str, dict[str, int]]:
    """Return the bytes of each part of the model with adapters (FD001), sent and in use."""
    config = compose(["experiment=hvac", *ADAPTERS]).model.config
    model = ModelFactory.create_model(
        "mixer_hybrid", 15 * 29, len(HORIZONS), sequence_length=90, **{**config, "sensors": 15}
    )
    sent = set(Adapters().parts(model).shared)
    found: dict[str, dict[str, int]] = {}
    for name, tensor in model.get_parameters().items():
        part = found.setdefault(PARTS[name.partition(".")[0]], {"in use": 0, "sent": 0})
        part["in use"] += tensor.nbytes
        part["sent"] += tensor.nbytes * (name in sent)
    return found


def of_trees(job: Job) -> dict[str, Any]:
    """Return what boosted trees reach, pooled and at each site alone."""
    experiment = build(compose([*job.overrides, f"seed={job.seed}"]))
    inputs = baseline_inputs(experiment)
    found = {
        "pooled": boosted_trees(inputs),
        "alone": {
            site: predictions
            for name in inputs.names
            for site, predictions in boosted_trees_alone(inputs, name).items()
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
        for subset, per_seed in sorted(subsets.items()):
            cells = [mean_of(per_seed, "ap", h) for h in HORIZONS]
            sent = [found["bytes_up"] for found in per_seed.values() if "bytes_up" in found]
            size = f"{fmean(sent) / 1e6:.1f}" if sent else "–"
            lines.append(f"| {arm} | {subset} | {' | '.join(cells)} | {size} | {len(per_seed)} |")
    return "\n".join([*lines, "", *reached(stored)])


def differences(stored: Mapping[str, Any]) -> str:
    """Return the paired differences in points of average precision as a table in Markdown."""
    lines = [
        "| first minus second, points | subset | within 30 | 60 | 90 | validation | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for first, second in PAIRS:
        one, other = stored.get(first, {}), stored.get(second, {})
        for subset in sorted(one):
            seeds = sorted(set(one[subset]) & set(other.get(subset, {})))
            if not seeds:
                continue
            values = [
                [[found["ap"][str(h)] for found in (one[subset][s], other[subset][s])]
                 for s in seeds] for h in HORIZONS
            ]  # fmt: skip
            values.append(
                [[f[subset][s].get("validation_ap") for f in (one, other)] for s in seeds]
            )
            cells = " | ".join(interval(pairs) for pairs in values)
            lines.append(f"| {first} − {second} | {subset} | {cells} | {len(seeds)} |")
    return "\n".join(lines)


def interval(pairs: list[list[float | None]]) -> str:
    """Return the mean difference in points and its 95 % interval; none for a single seed."""
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not known:
        return "–"
    if len(known) == 1:
        return f"{100 * (known[0][0] - known[0][1]):+.1f}"
    found = paired([100 * a for a, _ in known], [100 * b for _, b in known])
    return f"{found['difference']:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}]"


def missing(stored: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was not measured, a line for each arm and subset."""
    for arm, subsets in [*((a, s) for a, (_, s) in ARMS.items()), *((t, SUBSETS) for t in TREES)]:
        for subset in subsets:
            known = stored.get(arm, {}).get(subset, {})
            if seeds := [str(seed) for seed in SEEDS if str(seed) not in known]:
                yield f"not measured: {arm}, {subset}, seed {', '.join(seeds)}"


def reached(stored: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was asked beside the mean over the subsets that were measured."""
    found = sorted(stored.get("mixer", {}).items())
    for horizon, asked in ASKED.items():
        means = [fmean(f["ap"][str(horizon)] for f in per_seed.values()) for _, per_seed in found]
        if means:
            over = ", ".join(subset for subset, _ in found)
            yield f"within {horizon}: {fmean(means):.3f} over {over}; asked {asked:.2f}"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--show", action="store_true", help="only the table of what there is")
    parser.add_argument("--arms", nargs="+", choices=[*ARMS, "trees"], default=[*ARMS, "trees"])
    parser.add_argument("--subsets", nargs="+", choices=list(SUBSETS), default=list(SUBSETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    chosen = parser.parse_args()
    if not chosen.show:
        for arm, subset, job in jobs():
            if subset in chosen.subsets and job.seed in chosen.seeds:
                measure(arm, subset, job, chosen.arms)
    stored = read()
    sizes = "\n".join(f"{part}: {found}" for part, found in of_bytes().items())
    print("\n\n".join([table(stored), differences(stored), sizes, "\n".join(missing(stored))]))


def measure(arm: str, subset: str, job: Job, arms: Sequence[str]) -> None:
    """Measure an arm, and with the mixer the trees, unless its result is stored."""

    def known(name: str) -> bool:
        return str(job.seed) in read().get(name, {}).get(subset, {})

    if arm in arms and not known(arm):
        before = pretraining(arm, subset, job.seed)
        for each in (job,) if before is None else (before, job):
            for _ in finish([each], at_once=1):
                pass
        keep(arm, subset, job.seed, of_run(job))
    if arm == "mixer" and "trees" in arms and not known(TREES[0]):
        for name, found in of_trees(job).items():
            keep(f"trees {name}", subset, job.seed, found)


if __name__ == "__main__":
    main()

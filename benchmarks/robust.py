"""Which defence bears which attack? 3 of 12 sites of a generated fleet are malicious.

    python -m benchmarks.robust             runs what is missing, then the page
    python -m benchmarks.robust --seeds 50  one seed only
    python -m benchmarks.robust --choose    candidates on validation data, with seeds of their own
    python -m benchmarks.robust --show      the page of what there is

Each attack meets each defence: average precision on test windows, mean of the sites, of all twelve,
whose test windows no attack touches. It can be stopped and started: stored results are not measured
again unless the settings behind them changed; finished runs are kept in ``runs/evidence``. Runs
follow each other in this process, because starting one takes as long as a small run.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from benchmarks.predictions.cells import settings as trained
from benchmarks.predictions.runs import ROOT, Job
from benchmarks.robust_page import page
from fedpdm.config.compose import compose
from fedpdm.config.values import resolved
from fedpdm.runs.folder import stored_run
from fedpdm.simulate import simulate
from fedpdm.storage import write_json

RESULTS = ROOT / "benchmarks" / "results" / "robust.json"
PAGE = ROOT / "docs" / "robustness.md"
SEEDS, CHOOSING = (50, 51, 52), (100,)
NAMED = ("detroit", "houston", "nagoya", "pune", "rotterdam", "seattle")
FLEET = (
    f"site=[{','.join(NAMED)}]", "replicas=2", *(f"sites.{name}.machines=10" for name in NAMED),
    "model=mlp", "engine=batched", "rounds=10", "baselines.max_plants=0", "evaluate.bootstrap=0",
)  # fmt: skip
MALICIOUS = "attack.sites=[nagoya-001,pune-002,seattle-001]"
ATTACKS: dict[str, tuple[str, ...]] = {
    "none": ("attack=backdoor", "attack.sites=[]"),  # the clean bits, and the trigger's control
    "sign_flip": ("attack=sign_flip", MALICIOUS),
    "backdoor": ("attack=backdoor", "attack.boost=4", MALICIOUS),  # 4 = 12/3 replaces the model
    "label_flip": ("attack=label_flip", MALICIOUS),
    "scaling": ("attack=scaling", MALICIOUS),
    "gaussian_noise": ("attack=gaussian_noise", MALICIOUS),
    "free_rider": ("attack=free_rider", MALICIOUS),
    "quiet_backdoor": ("attack=backdoor", MALICIOUS),  # as long as an honest update
}
DEFENCES: dict[str, tuple[str, ...]] = {
    "fedavg": ("strategy=fedavg",),
    "rfa": ("strategy=rfa",),
    "outlier_detection": ("strategy=outlier_detection",),
    "multikrum": ("strategy=multikrum", "strategy.num_malicious_nodes=3",
                  "strategy.num_nodes_to_select=9"),
    "fedmedian": ("strategy=fedmedian",),
    "fedtrimmedavg": ("strategy=fedtrimmedavg", "strategy.beta=0.25"),
    "norm_clipping": ("strategy=norm_clipping",),
    "centred_clipping": ("strategy=centred_clipping",),
    "fltrust": ("strategy=fltrust", "strategy.root=detroit-001"),
    "dnc": ("strategy=dnc", "strategy.num_malicious=3"),
    "bulyan": ("strategy=bulyan", "strategy.num_malicious_nodes=2"),  # 12 sites bear no third
    "krum": ("strategy=krum", "strategy.num_malicious_nodes=3"),
}  # fmt: skip
CANDIDATES: dict[str, tuple[str, ...]] = {
    f"{name} {key}={value}": (*DEFENCES[name], f"strategy.{key}={value}")
    for name, key, values in (
        ("outlier_detection", "threshold", (2.5, 3.5, 5.0)),
        ("centred_clipping", "iterations", (1, 3)),
    )
    for value in values
}
CHOSEN_AGAINST = ("none", "sign_flip", "label_flip")


@dataclass(frozen=True)
class Cell:
    """An attack against a defence; of a candidate only validation scores are kept."""

    attack: str
    defence: str
    choosing: bool = False

    @property
    def overrides(self) -> tuple[str, ...]:
        defence = (CANDIDATES if self.choosing else DEFENCES)[self.defence]
        return (*FLEET, *defence, *ATTACKS[self.attack])

    def job(self, seed: int) -> Job:
        name = f"robust-{self.attack}-{self.defence}".replace(" ", "-").replace("=", "")
        return Job(name, self.overrides, seed)


def cells() -> Iterator[Cell]:
    """Yield what is measured."""
    for defence in DEFENCES:
        for attack in ATTACKS:
            yield Cell(attack, defence)


def candidates() -> Iterator[Cell]:
    """Yield what settings are chosen by."""
    for defence in CANDIDATES:
        for attack in CHOSEN_AGAINST:
            yield Cell(attack, defence, choosing=True)


def digest(cell: Cell) -> str:
    """Return what stands for a cell's data, attack and training; other keys may come and go."""
    cfg = compose([*cell.overrides])
    blocks = {
        key: OmegaConf.to_container(cfg[key], resolve=True)
        for key in ("data", "sites", "task", "attack")
    }
    known = json.dumps({**trained(cell.overrides), **blocks}, sort_keys=True, default=str)
    return hashlib.sha256(known.encode()).hexdigest()[:8]


def measured(cell: Cell, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a run."""
    found: dict[str, Any] = {
        "validation": summary["validation"]["best"], "best_round": summary["best_round"],
    }  # fmt: skip
    if cell.choosing:
        return found
    bad = set(summary["attack"]["sites"])
    left = [event["site"] for event in summary["events"] if event["kind"] == "suspected"]
    door = summary["attack"]["backdoor"] or {}
    return found | {
        "test": summary["test"]["mean_site"]["average_precision"],
        "left_out": [sum(site in bad for site in left), sum(site not in bad for site in left)],
        "success": door.get("success"), "without_trigger": door.get("without_trigger"),
    }  # fmt: skip


def load() -> dict[str, Any]:
    """Return what is stored: by part, defence and attack."""
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def entry_of(stored: Mapping[str, Any], cell: Cell) -> dict[str, Any]:
    """Return what is stored of a cell; an empty one if it had other settings."""
    part = stored.get("choosing" if cell.choosing else "measured", {})
    found: dict[str, Any] = part.get(cell.defence, {}).get(cell.attack, {})
    settings = digest(cell)
    if found.get("settings") == settings:
        return found
    command = cell.job(0).stated
    return {"settings": settings, "command": command, "seeds": {}}


def keep(cell: Cell, seed: int, summary: Mapping[str, Any]) -> None:
    """Store a run's numbers beside those of the cell's other seeds."""
    stored = load()
    entry = entry_of(stored, cell)
    entry["seeds"][str(seed)] = measured(cell, summary)
    part = stored.setdefault("choosing" if cell.choosing else "measured", {})
    part.setdefault(cell.defence, {})[cell.attack] = entry
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS, stored)


def run(job: Job) -> dict[str, Any]:
    """Run a command here, or read it if it is finished; a half-finished run is resumed."""
    if job.finished:
        return job.summary()
    cfg, resumed = resolved(compose([*job.overrides, f"seed={job.seed}"])), False
    if (job.folder / "manifest.json").exists():
        (cfg, _), resumed = stored_run([f"resume={job.folder}"]), True
    with contextlib.redirect_stdout(io.StringIO()):
        return simulate(cfg, job.folder, resumed=resumed)


def show() -> None:
    """Write the page."""
    PAGE.write_text(page(load(), list(ATTACKS), list(DEFENCES), CHOSEN_AGAINST))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, a seed of all cells after another, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--seeds", help="separated by commas")
    options = parser.parse_args(arguments)
    logging.disable(logging.INFO)
    wanted = list(candidates() if options.choose else cells())
    seeds = CHOOSING if options.choose else SEEDS
    if options.seeds:
        seeds = tuple(map(int, options.seeds.split(",")))
    for seed in () if options.show else seeds:
        for cell in wanted:
            if str(seed) in entry_of(load(), cell)["seeds"]:
                continue
            begun = time.perf_counter()
            keep(cell, seed, run(cell.job(seed)))
            show()
            took = time.perf_counter() - begun
            print(f"{cell.defence}, {cell.attack}, seed {seed}: {took:.0f} s", flush=True)
    show()


if __name__ == "__main__":
    main()

"""What does privacy cost, and what does an attack find? Score and membership against epsilon.

    python -m benchmarks.privacy                   runs what is missing: 100 sites, one seed
    python -m benchmarks.privacy --sites 1000      the same of a thousand sites
    python -m benchmarks.privacy --seeds 60,61,62  more seeds
    python -m benchmarks.privacy --show            the page's table of what there is

A cell is a kind of privacy at an epsilon, on a generated fleet of so many sites; ``inf`` clips and
adds no noise, ``none`` is FedAvg without privacy. The score is average precision on test windows,
mean of the sites, of the last round (of ``none``: of the round that validation chose). Each run is
attacked by ``fedpdm.audit``. It can be stopped and started: finished runs are kept in
``runs/evidence`` until they are measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from benchmarks.predictions.runs import ROOT, Job, finish
from fedpdm.audit.attack import membership
from fedpdm.runs.assembly import one_thread
from fedpdm.storage import write_json

RESULTS = ROOT / "benchmarks" / "results" / "privacy.json"
PAGE = ROOT / "docs" / "privacy.md"
BEGIN, END = "<!-- measured: python -m benchmarks.privacy -->", "<!-- end -->"
SEEDS = (60,)
EPSILONS = ("1", "3", "10", "inf")
SETTINGS = {
    "none": (),
    "central": ("privacy.clip=0.5",),
    "dpsgd": ("privacy.clip=1.0", "privacy.sampling_rate=0.2"),
}
"""By kind. The bound of ``central`` was chosen on validation windows of seed 100, at epsilon 10."""


@dataclass(frozen=True)
class Cell:
    """A run: sites of a fleet, a kind of privacy, its epsilon."""

    sites: int
    kind: str
    epsilon: str

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.epsilon}-{self.sites}"

    @property
    def overrides(self) -> tuple[str, ...]:
        if self.sites % 2:
            raise SystemExit(f"--sites {self.sites} must be even: half of each named site")
        controls = "[alone,hgb_alone]" if self.kind == "none" else "[]"
        budget: tuple[str, ...] = ()
        if self.kind != "none":
            budget = (f"privacy.epsilon={self.epsilon}",)
            if self.epsilon == "inf":
                budget = ("privacy.epsilon=null", "privacy.noise_multiplier=0")
        return (
            "model=mlp", "model.config.hidden=[16]", "site=[detroit,houston]",
            f"replicas={self.sites // 2}", "sites.detroit.machines=8", "sites.houston.machines=8",
            "rounds=20", "training.local_epochs=1", "training.learning_rate=0.003",
            "scaling=plant", "evaluate.bootstrap=0",
            f"evaluate.fraction={min(1, 100 / self.sites):g}",
            f"baselines.controls={controls}", "baselines.max_plants=20", "history.keep=1",
            f"privacy={self.kind}", *SETTINGS[self.kind], *budget,
        )  # fmt: skip


def cells(sites: int) -> Iterator[Cell]:
    """Yield what is measured, the most telling first."""
    yield Cell(sites, "none", "inf")
    for epsilon in ("3", "10", "1", "inf"):
        for kind in ("central", "dpsgd"):
            yield Cell(sites, kind, epsilon)


def load() -> dict[str, Any]:
    """Return the stored results, by cell and seed."""
    stored: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return stored


def measured(job: Job, cell: Cell) -> dict[str, Any]:
    """Return what is kept of a finished run: scores, budget, and what the attack finds."""
    summary = job.summary()
    score = summary["test"]["mean_site"]["average_precision"]
    alone = {
        name: entry["mean_site"]["average_precision"]
        for name, entry in summary["test"]["baselines"].items()
    }
    here = next(iter(summary["test"]["baselines"].values()), {"per_site": {}})["per_site"]
    same = [s["average_precision"] for n, s in summary["test"]["per_site"].items() if n in here]
    together = [value for value in same if value is not None]
    privacy, attack = summary["privacy"] or {}, membership(job.folder, control=cell.kind == "none")
    return {
        **vars(cell), "seed": job.seed, "settings": list(cell.overrides), "commit": job.commit,
        "average_precision": score, "prevalence": summary["test"]["mean_site"]["prevalence"],
        "alone": alone, "same_sites": fmean(together) if together else None,
        "best_round": summary["best_round"],
        "spent": privacy.get("epsilon"), "delta": privacy.get("delta"),
        "noise_multiplier": privacy.get("noise_multiplier"), "protects": privacy.get("protects"),
        "releases": privacy.get("releases"),
        **{name: attack[name] for name in ("model", "untrained", "control", "bound")},
    }  # fmt: skip


def known(cell: Cell, seed: int, found: Mapping[str, Any]) -> bool:
    """Return whether a result of these very settings is there."""
    entry = found.get(f"{cell.name}-{seed}")
    return entry is not None and entry["settings"] == list(cell.overrides)


def rows(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table's lines: one for each number of sites, kind and epsilon, means over seeds."""
    for sites in sorted({entry["sites"] for entry in found.values()} | {100, 1000}):
        for cell in sorted(
            cells(sites), key=lambda c: (c.kind != "none", c.kind, float(c.epsilon))
        ):
            entries = [e for e in found.values() if (e["sites"], e["kind"], e["epsilon"])
                       == (cell.sites, cell.kind, cell.epsilon)]  # fmt: skip
            label = "∞" if cell.epsilon == "inf" else cell.epsilon
            what = "no privacy" if cell.kind == "none" else f"`{cell.kind}`"
            if not entries:
                yield f"| {sites} | {what} | {label} | not measured | | | |"
                continue
            noise = fmean(e["noise_multiplier"] or 0.0 for e in entries)
            auc, gain = (_interval(entries, key) for key in ("auc", "advantage"))
            score = fmean(e["average_precision"] for e in entries)
            yield (f"| {sites} | {what} | {label} | {score:.3f} | {noise:.2f} | {auc} | {gain} |")


def _interval(entries: Sequence[Mapping[str, Any]], key: str) -> str:
    value, low, high = (
        fmean(e["model"][key][name] for e in entries) for name in ("value", "low", "high")
    )
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def section(found: Mapping[str, Any]) -> str:
    """Return the measured part of the page."""
    seeds = sorted({entry["seed"] for entry in found.values()})
    lines = [
        BEGIN, "",
        "Generated fleets of 8 machines a site, `model=mlp` with 16 hidden units, 20 rounds of all "
        "sites, delta 1e-5. Average precision on test windows, mean of the sites; the attack's AUC "
        "and advantage with 95 % intervals over machines (means over seeds). ∞ clips and adds no "
        f"noise. Seeds: {', '.join(map(str, seeds)) or 'none yet'}. The bound of `central` (0.5, "
        "not 0.2) was chosen on validation windows of seed 100 at epsilon 10; that of `dpsgd` (1) "
        "was not tuned.", "",
        "| sites | privacy | epsilon | average precision | noise multiplier | AUC of the attack "
        "| advantage |",
        "|---|---|---|---|---|---|---|",
        *rows(found), "",
    ]  # fmt: skip
    for entry in found.values():
        if entry["kind"] == "none":
            alone = ", ".join(f"`{n}` {v:.3f}" for n, v in entry["alone"].items() if v is not None)
            control = entry["control"]["auc"]["value"]
            untrained = entry["untrained"]["auc"]["value"]
            lines += [
                f"Of {entry['sites']} sites, seed {entry['seed']}, 20 also trained by themselves: "
                f"{alone}, where FedAvg without privacy has {entry['same_sites']:.3f}. A constant "
                f"answer has {entry['prevalence']:.3f}. The same attack has AUC {untrained:.3f} "
                f"on an untrained model, and {control:.3f} on one that learned 400 windows by "
                "heart.", "",
            ]  # fmt: skip
    bounds = {e["epsilon"]: e["bound"] for e in found.values() if e["bound"] is not None}
    if bounds:
        said = ", ".join(f"{b:.3f} at {e}" for e, b in sorted(bounds.items()) if e != "inf")
        lines += [f"The largest advantage that `dpsgd`'s epsilon allows: {said}.", ""]
    return "\n".join([*lines, END])


def show() -> None:
    """Write the measured part into the page."""
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{section(load())}{after}", "utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and attack what is missing, cell by cell, and write the page's table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--sites", type=int, default=100)
    parser.add_argument("--kinds", default=",".join(SETTINGS), help="separated by commas")
    parser.add_argument("--epsilons", default=",".join(EPSILONS), help="separated by commas")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="separated by commas")
    options = parser.parse_args(arguments)
    one_thread()
    for seed in map(int, options.seeds.split(",")):
        for cell in cells(options.sites):
            wanted = cell.kind in options.kinds.split(",")
            wanted = wanted and cell.epsilon in options.epsilons.split(",")
            if options.show or not wanted or known(cell, seed, load()):
                continue
            job = Job(f"privacy-{cell.name}", cell.overrides, seed)
            seconds = next(iter(finish([job], 1)))[1]
            result = measured(job, cell)  # takes minutes: others may write meanwhile
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            write_json(RESULTS, load() | {f"{cell.name}-{seed}": result})
            show()
            print(f"{job.name}, seed {seed}: {seconds:.0f} s", flush=True)
    show()


if __name__ == "__main__":
    main()

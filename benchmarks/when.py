"""Where does federation help, and where not? A sweep over generated fleets.

    python -m benchmarks.when            runs what is missing, then the page and its picture
    python -m benchmarks.when --seeds 50 one seed only
    python -m benchmarks.when --show     the page of what there is

A cell is a fleet: the day on which repaired machines begin to come back with other weak parts, the
number of sites, machines at each, and how far a sensor reads beside another site's. The federation
stands beside the best model that a site has by itself, the same network on pooled data, and pooled
boosted trees: average precision, mean of the sites. It can be stopped and started: finished runs
are kept in ``runs/evidence``, half-finished ones are resumed, stored results are not measured again
unless the settings behind them changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from omegaconf import OmegaConf

from benchmarks.predictions.cells import settings as trained
from benchmarks.predictions.runs import ROOT, Job, finish
from benchmarks.when_page import draw, page
from fedpdm.baselines.registry import BASELINES
from fedpdm.config.compose import compose
from fedpdm.storage import write_json

RESULTS = ROOT / "benchmarks" / "results" / "when.json"
PAGE = ROOT / "docs" / "when-federation-helps.md"
PICTURE = ROOT / "docs" / "img" / "when.svg"
SEEDS = (50, 51, 52)
SITES = ("detroit", "houston", "nagoya", "pune", "rotterdam", "seattle")
CONTROLS = ("alone", "hgb_alone", "pooled", "hgb")
METRIC = "average_precision"


@dataclass(frozen=True)
class Cell:
    """A fleet. Field names are those of the results.

    Attributes:
        change_day: from which day on repaired machines have other weak parts; None: never.
        sites: how many; beyond six, each named one stands for several.
        machines: at each site.
        feature_shift: how far a sensor reads beside another site's, in spreads.
    """

    change_day: int | None = 175
    sites: int = 2
    machines: int = 20
    feature_shift: float = 0.0

    @property
    def name(self) -> str:
        return "-".join("never" if v is None else f"{v:g}" for v in astuple(self))

    @property
    def overrides(self) -> tuple[str, ...]:
        copies = -(-self.sites // len(SITES))
        named = SITES[: self.sites // copies]
        if len(named) * copies != self.sites:
            raise SystemExit(f"{self.sites} sites are no multiple of at most {len(SITES)}")
        change = "modes_later=null" if self.change_day is None else f"change_day={self.change_day}"
        return (
            "experiment=fleet", f"site=[{','.join(named)}]", f"replicas={copies}",
            *(f"sites.{name}.{setting}" for name in named
              for setting in (change, f"machines={self.machines}")),
            f"data.heterogeneity.feature_shift={self.feature_shift:g}",
            f"baselines.controls=[{','.join(n for n in CONTROLS if n in BASELINES)}]",
            "evaluate.bootstrap=0",
        )  # fmt: skip


def cells() -> Iterator[Cell]:
    """Yield what is swept: a cross of the four, then larger fleets with a change in the middle."""
    for shift in (0.0, 1.0):
        for sites in (2, 6):
            for machines in (8, 20):
                for day in (None, 100, 175, 250):
                    yield Cell(day, sites, machines, shift)
    yield Cell(sites=12)
    yield Cell(machines=40)


def measured(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """Return average precision, mean of the sites, of each predictor.

    The best alone is the one that each site's validation data chooses; where a run does not tell
    it, the larger mean of the network and of trees alone.
    """
    test = summary["test"]
    found = {"federated": test["mean_site"].get(METRIC)}
    for name, entry in test["baselines"].items():
        found[name] = entry["mean_site"].get(METRIC)
    if "best_alone" not in found:
        alone = [v for n in ("alone", "hgb_alone") if (v := found.get(n)) is not None]
        found["best_alone"] = max(alone, default=None)
    return found


def digest(cell: Cell) -> str:
    """Return what stands for a cell's data and training; other keys may come and go."""
    cfg = compose([*cell.overrides])
    blocks = {
        key: OmegaConf.to_container(cfg[key], resolve=True) for key in ("data", "sites", "task")
    }
    known = json.dumps({**trained(cell.overrides), **blocks}, sort_keys=True)
    return hashlib.sha256(known.encode()).hexdigest()[:8]


def load() -> list[dict[str, Any]]:
    """Return the stored cells, in the order of the sweep."""
    stored: list[dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    return stored


def store(cell: Cell, seed: int, summary: Mapping[str, Any]) -> None:
    """Keep a run's result; what other settings gave is dropped."""
    kept = {entry["name"]: entry for entry in load()}
    settings = digest(cell)
    entry = kept.get(cell.name)
    if entry is None or entry["settings"] != settings:
        entry = {"name": cell.name, "settings": settings, **vars(cell), "seeds": {}}
    entry["seeds"][str(seed)] = measured(summary)
    kept[cell.name] = entry
    order = [c.name for c in cells()]
    known = sorted(kept.values(), key=lambda e: (e["name"] not in order, _place(order, e["name"])))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS, known)


def _place(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else 0


def is_stored(cell: Cell, seed: int) -> bool:
    """Return whether a result of these very settings is there."""
    return any(
        entry["name"] == cell.name
        and entry["settings"] == digest(cell)
        and str(seed) in entry["seeds"]
        for entry in load()
    )


def show() -> None:
    """Write the page and its picture."""
    found = load()
    PAGE.write_text(page(found))
    if found:
        draw(found, PICTURE)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, cell by cell, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="separated by commas")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    options = parser.parse_args(arguments)
    jobs = {
        Job(f"when-{cell.name}", cell.overrides, seed): cell
        for cell in cells()
        for seed in map(int, options.seeds.split(","))
        if not options.show and not is_stored(cell, seed)
    }
    for job, seconds in finish(list(jobs), options.jobs):
        store(jobs[job], job.seed, job.summary())
        show()
        print(f"{job.name}, seed {job.seed}: {seconds:.0f} s", flush=True)
    show()


if __name__ == "__main__":
    main()

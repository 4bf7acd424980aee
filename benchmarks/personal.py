"""Is a model of one's own worth it? Personal methods beside FedAvg and beside every site alone.

    python -m benchmarks.personal                    runs what is missing, then the page
    python -m benchmarks.personal --data ai4i,fleet  of some data only
    python -m benchmarks.personal --count 1          the first seed of each only
    python -m benchmarks.personal --show             the page of what there is

The settings of a method are chosen among a few candidates by their validation score in a run with
seed 100, which is reported nowhere; then the chosen ones run with the reported seeds. The data,
the splits and the baselines of a seed are the same for all, so that scores are paired by seed. It
can be stopped and started: finished runs are kept in ``runs/evidence``, and stored numbers are not
measured again unless the settings behind them changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from benchmarks.personal_page import PAGE, page
from benchmarks.predictions.cells import settings as trained
from benchmarks.predictions.runs import ROOT, Job, finish
from fedpdm.config.compose import compose
from fedpdm.storage import write_json

RESULTS = ROOT / "benchmarks" / "results" / "personal.json"
CHOICE = 100
"""The seed that candidates are compared on, by validation data; it is reported nowhere."""
CONTROLS = "baselines.controls=[alone,hgb_alone]"
WITHOUT = ("baselines.max_plants=0", "evaluate.bootstrap=0")


@dataclass(frozen=True)
class Data:
    """A federation: its command, its reported seeds, and the metric of its tables."""

    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    metric: str = "average_precision"


NETWORK = (
    "model=trend", "training.optimizer=adam", "training.local_epochs=2", "training.batch_size=128",
    "training.learning_rate=0.001", "training.weight_decay=0.001", "training.schedule=step",
    "training.gamma=0.5", "rounds=10", "training.step_size=4", "data.stride=3",
)  # fmt: skip
"""FedAvg as benchmarks.fedcmapss compares it: the experiments of B and C take trees and FedSGD."""
NEVER = ("sites.detroit.modes_later=null", "sites.houston.modes_later=null")
DATA: dict[str, Data] = {
    "ai4i": Data(("experiment=ai4i",), (0, 1, 2, 3, 4, 5)),
    "unchanging": Data(
        ("experiment=fleet", "site=[detroit,houston]", *NEVER), tuple(range(30, 36))
    ),
    "fleet": Data(("experiment=fleet", "site=[detroit,houston]"), tuple(range(30, 36))),
    "fedcmapss_b": Data(("experiment=fedcmapss_b", *NETWORK), (0, 1, 2, 3, 4, 5), "rmse"),
    "fedcmapss_c": Data(
        ("experiment=fedcmapss_c", "~strategy.eta", *NETWORK), (0, 1, 2, 3, 4, 5), "rmse"
    ),
    "fedcmapss_d": Data(
        ("experiment=fedcmapss_d", "rounds=20", "training.step_size=8"), (0, 1, 2, 3, 4, 5), "rmse"
    ),
}
"""Small ones first."""

CANDIDATES: dict[str, tuple[tuple[str, ...], ...]] = {
    "fedavg": ((),),
    "finetune": (
        ("personal.epochs=5",),
        ("personal.epochs=20", "personal.learning_rate=0.1"),
    ),
    "ditto": (("personal.weight=0.01",), ("personal.weight=0.1",), ("personal.weight=1",)),
    "apfl": ((), ("personal.adaptive=false",)),
    "pfedme": (
        ("training.optimizer=sgd", "training.learning_rate=0.05", "personal.inner_rate=0.1"),
        (
            "training.optimizer=sgd",
            "training.learning_rate=0.2",
            "personal.weight=5",
            "personal.inner_rate=0.2",
        ),
    ),
    "fedper": ((),),
    "fedrep": (("training.local_epochs=2",), ("training.local_epochs=3",)),
    "lgfedavg": ((),),
    "fedala": ((), ("personal.layers=2",)),
    "mapper": (("personal.share=0.3",), (), ("personal.share=0.7",)),
    "knnper": ((), ("personal.neighbours=50",)),
}
"""What a method's settings are chosen from. FedBN needs normalisation, which these models lack."""
LEFT_OUT = {"rmse": ("knnper", "pfedme")}
"""By metric: kNN-Per mixes classes, and pFedMe's plain steps diverge on remaining lives."""


def overrides_of(data: str, method: str, candidate: Sequence[str]) -> tuple[str, ...]:
    """Return what follows ``python -m fedpdm.simulate``."""
    return (*DATA[data].overrides, f"strategy={method}", *candidate)


@cache
def digest(data: str, method: str, candidate: tuple[str, ...]) -> str:
    """Return what stands for a run's data, training and method; other keys may come and go."""
    cfg = compose([*overrides_of(data, method, candidate)])
    blocks = ("data", "sites", "task", "strategy", "personal", "travels", "objective")
    known = {
        key: OmegaConf.to_container(cfg[key], resolve=True) if OmegaConf.is_config(cfg[key])
        else cfg[key]
        for key in blocks
    }  # fmt: skip
    told = json.dumps({**trained(overrides_of(data, method, candidate)), **known}, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def load() -> dict[str, Any]:
    """Return what is stored: by data, method, and then ``choice`` and ``seeds``."""
    stored: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return stored


def entry_of(stored: Mapping[str, Any], data: str, method: str) -> dict[str, Any]:
    """Return what is stored of a method on some data."""
    found: dict[str, Any] = stored.get(data, {}).get(method, {})
    return {"choice": {}, "seeds": {}, **found}


def chosen(entry: Mapping[str, Any], data: str, method: str) -> tuple[str, ...] | None:
    """Return the candidate with the best validation score; None while one was not tried."""
    candidates = CANDIDATES[method]
    if len(candidates) == 1:
        return candidates[0]
    scores = [entry["choice"].get(digest(data, method, each), {}) for each in candidates]
    if not all(scores):
        return None
    lower = DATA[data].metric == "rmse"
    known = [each["validation"] for each in scores]
    return candidates[known.index(min(known) if lower else max(known))]


def measured(summary: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Return the scores of each predictor of a run: the mean of the sites, and each site's."""
    test = summary["test"]
    parts = {"federated": test, **test["baselines"]}
    return {
        name: {
            "mean": each["mean_site"].get(metric),
            "sites": {site: values.get(metric) for site, values in each["per_site"].items()},
        }
        for name, each in parts.items()
    }


def keep(data: str, method: str, group: str, key: str, value: Mapping[str, Any]) -> None:
    """Store a run's numbers."""
    stored = load()
    entry = entry_of(stored, data, method)
    entry[group][key] = dict(value)
    stored.setdefault(data, {})[method] = entry
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS, stored)


def job(data: str, method: str, candidate: Sequence[str], seed: int) -> Job:
    """Return a run. Only FedAvg's have the baselines: all methods share data and seeds."""
    controls = (CONTROLS, "evaluate.bootstrap=0")
    beside = controls if method == "fedavg" and seed != CHOICE else WITHOUT
    return Job(f"personal-{data}-{method}", (*overrides_of(data, method, candidate), *beside), seed)


def todo(
    names: Sequence[str], count: int | None
) -> Iterator[tuple[str, str, tuple[str, ...], int]]:
    """Yield what is not measured, one after another: the first seed of all before any second.

    A method's candidates come just before its first seed.
    """
    for number in range(max(len(DATA[data].seeds) for data in names)):
        if count is not None and number >= count:
            return
        for data in names:
            for method, candidates in CANDIDATES.items():
                if method in LEFT_OUT.get(DATA[data].metric, ()):
                    continue
                for candidate in candidates if len(candidates) > 1 else ():
                    known = entry_of(load(), data, method)["choice"]
                    if digest(data, method, candidate) not in known:
                        yield data, method, candidate, CHOICE
                entry = entry_of(load(), data, method)
                best = chosen(entry, data, method)
                for seed in DATA[data].seeds[number : number + 1]:
                    settings = entry["seeds"].get(str(seed), {}).get("settings")
                    if best is not None and settings != digest(data, method, best):
                        yield data, method, best, seed


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--data", default=",".join(DATA), help="separated by commas")
    parser.add_argument("--count", type=int, help="seeds of each; all without it")
    options = parser.parse_args(arguments)
    for data, method, candidate, seed in (
        [] if options.show else todo(options.data.split(","), options.count)
    ):
        run = job(data, method, candidate, seed)
        for _, seconds in finish([run], at_once=1):
            summary, settings = run.summary(), digest(data, method, candidate)
            said = {"overrides": list(candidate), "commit": run.commit}
            if seed == CHOICE:
                score = {"validation": summary["validation"]["best"]}
                keep(data, method, "choice", settings, said | score)
            else:
                scores = measured(summary, DATA[data].metric)
                keep(data, method, "seeds", str(seed), said | {"settings": settings, **scores})
            print(
                f"{data}, {method} {' '.join(candidate)}, seed {seed}: {seconds:.0f} s", flush=True
            )
            PAGE.write_text(page(load(), DATA))
    PAGE.write_text(page(load(), DATA))


if __name__ == "__main__":
    main()

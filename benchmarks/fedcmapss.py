"""FedCMAPSS like for like: candidates on validation engines, without age, from its recipe to ours.

    python -m benchmarks.fedcmapss                  runs what is missing, then writes the page
    python -m benchmarks.fedcmapss choose ablation  some parts (choose, without_age, ablation)
    python -m benchmarks.fedcmapss --tasks a b      some tasks
    python -m benchmarks.fedcmapss --show           the page again, and what is missing

``choose`` compares candidates by validation engines with a seed that is shown nowhere; the best is
written into conf/experiment/fedcmapss_*.yaml by hand, and a test compares the two. With age, the
five seeds are those of ``benchmarks/evidence.py fedcmapss``. It can be stopped and started: what
``results/fedcmapss.json`` holds is not measured again, half-finished runs are resumed. The page is
docs/fedcmapss.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.predictions import cells, tables
from benchmarks.predictions.cells import Cell, mean_of, values
from benchmarks.predictions.experiments import CHOICE, FIVE
from benchmarks.predictions.runs import ROOT
from benchmarks.predictions.targets import PUBLISHED, TASKS

RESULTS = ROOT / "benchmarks" / "results" / "fedcmapss.json"
EVIDENCE = ROOT / "benchmarks" / "results" / "evidence.json"
PAGE = ROOT / "docs" / "fedcmapss.md"
BEGIN = "<!-- made by benchmarks/fedcmapss.py -->"
TITLES = {
    "a": "A: FD001, 10 sites alike",
    "b": "B: a site for each subset",
    "c": "C: FD004, 10 sites by life",
    "d": "D: FD004, 6 sites by condition",
    "e": "E: FD001, 85 sites of one engine",
}
WITHOUT_AGE = 2.0
"""Cycles that a task may lose where the engine's age is not an input."""
FEDSGD = (
    "model=trend", "strategy=fedsgd", "rounds=100", "training.optimizer=sgd",
    "training.local_epochs=1", "training.batch_size=65536", "training.learning_rate=1",
    "training.weight_decay=0", "training.clip_norm=null", "training.gamma=1",
)  # fmt: skip
"""One plain step a round at each site, Adam at the server."""
FEDAVG = (
    "model=trend", "strategy=fedavg", "training.optimizer=adam", "training.local_epochs=2",
    "training.batch_size=128", "training.learning_rate=0.001", "training.weight_decay=0.001",
    "training.clip_norm=1", "training.schedule=step", "training.gamma=0.5",
)  # fmt: skip
"""Some epochs of Adam at each site, then the mean."""
TREES = ("model=gbdt", "strategy=fedavg", "rounds=30")
"""150 boosted trees from sums (docs/decisions/032-federated-trees.md)."""
NARROW = (*FEDAVG, "model.config.hidden=[128,64]")
CANDIDATES: dict[str, dict[str, tuple[str, ...]]] = {
    "a": {
        "FedSGD": (*FEDSGD, "strategy.eta=0.003", "data.stride=2"),
        "FedAvg": (*FEDAVG, "rounds=20", "training.batch_size=64", "training.step_size=8",
                   "training.learning_rate=0.002", "data.stride=2"),
    },
    "b": {
        "FedSGD": (*FEDSGD, "strategy.eta=0.003", "data.stride=4"),
        "FedAvg": (*FEDAVG, "rounds=10", "training.step_size=4", "data.stride=3"),
        "trees": (*TREES, "data.stride=4"),
    },
    "c": {
        "FedSGD": (*FEDSGD, "strategy.eta=0.003", "data.stride=3"),
        "FedSGD, rate .005": (*FEDSGD, "strategy.eta=0.005", "data.stride=3"),
    },
    "d": {
        "FedAvg": (*NARROW, "rounds=20", "training.step_size=8", "data.window=30",
                   "data.stride=1"),
        "FedAvg, window 50": (*NARROW, "rounds=20", "training.step_size=8", "data.window=50",
                              "data.stride=2"),
        "FedAvg, window 50, 40 rounds": (*NARROW, "rounds=40", "training.step_size=16",
                                         "data.window=50", "data.stride=2"),
        "wider FedAvg, window 50, 40 rounds": (*FEDAVG, "rounds=40", "training.step_size=16",
                                               "data.window=50", "data.stride=2",
                                               "model.config.hidden=[256,128]"),
        "FedAvg, window 80, 40 rounds": (*NARROW, "rounds=40", "training.step_size=16",
                                         "data.window=80", "data.stride=2"),
        "trees": (*TREES, "~model.config.hidden", "data.window=30", "data.stride=2"),
    },
    "e": {
        "FedSGD": (*FEDSGD, "strategy.eta=0.003", "data.stride=2"),
        "FedSGD, rate .005": (*FEDSGD, "strategy.eta=0.005", "data.stride=2"),
    },
}  # fmt: skip
"""By task: what was compared by validation engines, within the benchmark's 100 rounds."""

RECIPE = (
    "data.features=benchmark", "data.conditions=false", "scaling=plant", "data.window=30",
    "data.stride=1", "data.pad=short", "model=lstm", "model.config.hidden_size=256",
    "model.config.bidirectional=false", "strategy=fedavg", "rounds=100",
    "training.local_epochs=1", "training.optimizer=sgd", "training.learning_rate=0.01",
    "training.batch_size=16", "training.weight_decay=0", "training.clip_norm=null",
    "training.schedule=constant",
)  # fmt: skip
"""FedCMAPSS as coded, commit 2f32f3b: window, inputs, scaling, LSTM, batch and rate."""
STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("the benchmark's recipe", ()),
    ("Adam at the sites, batches of 64", (
        "training.optimizer=adam", "training.learning_rate=0.001", "training.batch_size=64",
        "training.weight_decay=0.001", "training.clip_norm=1",
    )),
    ("model trend", ("model=trend",)),
    ("scaling shared, by operating condition", ("scaling=federated", "data.conditions=true")),
    ("14 sensors and the cycle", ("data.features=aged",)),
    ("window of 80, early windows padded, every second or third", ("data.window=80",
                                                                  "data.pad=all")),
)  # fmt: skip
"""One change at a time, on top of those before it; then come ours, with age and without."""
ABLATED = {"a": ("data.stride=2",), "c": ("data.stride=3",)}
"""Tasks of the ablation: one alike, one not, and the stride of the long windows."""
ABLATION_SEEDS = (0, 1, 2)


def choose(task: str) -> Iterator[Cell]:
    """Yield the candidates of a task, with a seed of which only validation is looked at."""
    for name, overrides in CANDIDATES[task].items():
        chosen = (f"experiment=fedcmapss_{task}", *overrides)
        yield Cell(("choose", task, name), chosen, (CHOICE,), choosing=True)


def without_age(task: str) -> Iterator[Cell]:
    """Yield a task as its yaml says, without the engine's age."""
    chosen = (f"experiment=fedcmapss_{task}", "data.features=informative")
    yield Cell(("without_age", task, "ours"), chosen, FIVE)


def ablation(task: str) -> Iterator[Cell]:
    """Yield the steps from the benchmark's recipe to ours."""
    if task not in ABLATED:
        return
    name = f"experiment=fedcmapss_{task}"
    alone = ("~strategy.eta",) if task == "c" else ()  # its yaml sets it for FedSGD only
    taken: tuple[str, ...] = (name, *RECIPE, *alone)
    for title, overrides in STEPS:
        longer = ABLATED[task] if "data.window=80" in overrides else ()
        taken = (*without(taken, (*overrides, *longer)), *overrides, *longer)
        yield Cell(("ablation", task, title), taken, ABLATION_SEEDS)
    yield Cell(("ablation", task, "FedSGD, Adam at the server: ours"), (name,), ABLATION_SEEDS)
    untold = (name, "data.features=informative")
    yield Cell(("ablation", task, "ours without the age"), untold, ABLATION_SEEDS)


def without(taken: Sequence[str], later: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides that no later one replaces; a new model has settings of its own."""
    keys = {override.partition("=")[0] for override in later}
    return tuple(
        override
        for override in taken
        if override.partition("=")[0] not in keys
        and not ("model" in keys and override.startswith("model."))
    )


PARTS = {"choose": choose, "without_age": without_age, "ablation": ablation}


def best(stored: Mapping[str, Any], task: str) -> str | None:
    """Return the candidate with the lowest error on validation engines; None while one is open.

    Validation engines that are cut decide between windows of different length, because the
    others tell only of full windows: longer ones are of older engines.
    """
    cell_of = {cell.path[2]: cell for cell in choose(task)}
    windows = {cells.settings(cell.overrides)["data.window"] for cell in cell_of.values()}
    measure = "as_cut" if len(windows) > 1 else "validation"
    found = {name: values(cell.entry(stored), measure) for name, cell in cell_of.items()}
    return min(found, key=lambda name: found[name]) if all(found.values()) else None


def results_table(stored: Mapping[str, Any], evidence: Mapping[str, Any]) -> str:
    """Return the tasks with and without age, against capped and uncapped truth, in Markdown."""
    lines = [
        "| task | asked | with age | uncapped | without age | uncapped | published best |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, title in TITLES.items():
        found = evidence.get(f"fedcmapss_{task}", {})
        aged = [
            found.get("global", {}).get("federated", {}).get("values", []),
            found.get("also", {}).get("rmse_uncapped", {}).get("values", []),
        ]
        (cell,) = without_age(task)
        untold = [values(cell.entry(stored), name) for name in ("rmse", "rmse_uncapped")]
        cells_ = " | ".join(mean_of(each, 2) for each in (*aged, *untold))
        limit = TASKS[task]
        asked = f"≤ {limit:g}, without age ≤ {limit + WITHOUT_AGE:g}"
        lines.append(f"| {title} | {asked} | {cells_} | {PUBLISHED[task]} |")
    return "\n".join(lines)


def choice_table(stored: Mapping[str, Any]) -> str:
    """Return the candidates and their errors on validation engines in Markdown."""
    lines = [
        "| task | candidate | validation RMSE | cut engines | rounds | |",
        "|---|---|---|---|---|---|",
    ]
    for task in CANDIDATES:
        taken = best(stored, task)
        for cell in choose(task):
            if found := values(cell.entry(stored), "validation"):
                rounds = values(cell.entry(stored), "rounds")[0]
                mark = "in the yaml" if cell.path[2] == taken else ""
                cut = mean_of(values(cell.entry(stored), "as_cut"), 2)
                scores = f"{found[0]:.2f} | {cut}"
                line = f"{task.upper()} | {cell.path[2]} | {scores} | {rounds} | {mark}"
                lines.append(f"| {line} |")
    return "\n".join(lines)


def ablation_table(stored: Mapping[str, Any]) -> str:
    """Return the way from the benchmark's recipe to ours in Markdown."""
    lines = [
        "| task | change, on top of those above | RMSE | uncapped | rounds | MB up and down "
        "| seconds | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task in ABLATED:
        for cell in ablation(task):
            entry = cell.entry(stored)
            if not (rmse := values(entry, "rmse")):
                continue
            sent = fmean(values(entry, "bytes")) / 1e6
            parts = [
                mean_of(rmse, 2), mean_of(values(entry, "rmse_uncapped"), 2),
                f"{values(entry, 'rounds')[0]}", f"{sent:.0f}",
                f"{fmean(values(entry, 'seconds')):.0f}", f"{len(rmse)}",
            ]  # fmt: skip
            lines.append(f"| {task.upper()} | {cell.path[2]} | {' | '.join(parts)} |")
    return "\n".join(lines)


def page_tables() -> list[str]:
    """Return the tables of the page, from what is stored."""
    stored = cells.read(RESULTS)
    evidence = json.loads(EVIDENCE.read_text())
    return [results_table(stored, evidence), choice_table(stored), ablation_table(stored)]


def main() -> None:
    """Run what is missing, write the page, and say what is still missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--tasks", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--show", action="store_true", help="only the page of what there is")
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))} is unknown; there are {', '.join(PARTS)}")
    listed = [
        cell
        for part in chosen.parts or PARTS
        for task in chosen.tasks
        for cell in PARTS[part](task)
    ]
    if not chosen.show:
        cells.measure(listed, RESULTS)
    tables.replace(PAGE, page_tables(), BEGIN)
    for line in cells.open_of(listed, RESULTS):
        print(line)


if __name__ == "__main__":
    main()

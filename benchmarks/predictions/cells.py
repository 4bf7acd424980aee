"""Cells of a benchmark's tables: runs whose numbers are kept in its JSON, one after another."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from benchmarks.predictions.runs import Job, finish
from fedpdm.config.compose import compose
from fedpdm.data.normalise import fill_missing
from fedpdm.data.rows import Split
from fedpdm.data.windows import gather, segment_starts, window_ends
from fedpdm.predict import load_predictor
from fedpdm.runs.assembly import shared_scaler
from fedpdm.runs.experiment import build
from fedpdm.storage import write_json
from fedpdm.training.objective import outputs

WITHOUT = ("baselines.max_plants=0", "evaluate.bootstrap=0")
"""What a run does without that only its own federated model is asked of."""
SETTINGS = (
    "rounds", "data.subset", "data.features", "data.window", "data.stride", "data.pad",
    "data.conditions", "data.validation_fraction", "scaling", "features", "partition",
    "model.model_type", "model.config", "strategy", "task.cap",
    *(f"training.{key}" for key in (
        "local_epochs", "batch_size", "learning_rate", "weight_decay", "clip_norm", "optimizer",
        "schedule", "step_size", "gamma",
    )),
)  # fmt: skip
"""What a cell was trained with. Other keys may come and go, and a cell stays what it is.

Sites that are generated are known by a digest of all that they are generated from.
"""


@dataclass(frozen=True)
class Cell:
    """A line of a table, measured with several seeds.

    Attributes:
        path: the part of the benchmark, the task and the line.
        overrides: what follows ``python -m fedpdm.simulate``.
        seeds: one run each.
        choosing: only validation scores are kept: candidates are compared by them.
    """

    path: tuple[str, str, str]
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    choosing: bool = False

    def job(self, seed: int) -> Job:
        """Return the run of a seed."""
        name = re.sub(r"\W+", "_", "-".join(self.path))
        return Job(name, (*self.overrides, *WITHOUT), seed)

    def entry(self, stored: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what is stored of this cell; nothing if it was trained with other settings."""
        part, task, line = self.path
        found: Mapping[str, Any] = stored.get(part, {}).get(task, {}).get(line, {})
        return found if found.get("settings") == settings(self.overrides) else {}

    def missing(self, stored: Mapping[str, Any]) -> tuple[int, ...]:
        """Return the seeds that are not stored."""
        known = self.entry(stored).get("seeds", {})
        return tuple(seed for seed in self.seeds if str(seed) not in known)


def settings(overrides: Iterable[str]) -> dict[str, Any]:
    """Return what a command trains with, by dotted key."""
    return _settings(tuple(overrides))


@cache
def _settings(overrides: tuple[str, ...]) -> dict[str, Any]:
    cfg = compose(list(overrides))
    trees = cfg.model.model_type == "gbdt"  # they take no notice of training.*
    keys = [key for key in SETTINGS if not (trees and key.startswith("training."))]
    found = {key: _plain(OmegaConf.select(cfg, key)) for key in keys}
    if cfg.sites:
        made_from = json.dumps([_plain(cfg.sites), _plain(cfg.data)], sort_keys=True)
        found["sites"] = hashlib.sha256(made_from.encode()).hexdigest()[:8]
    return found


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def of_run(job: Job, choosing: bool) -> dict[str, Any]:
    """Return what is kept of a finished run; a run that chooses keeps no test score."""
    summary = job.summary()
    kept = {
        "validation": summary["validation"]["best"],
        "best_round": summary["best_round"],
        "rounds": summary["rounds"],
        "bytes": summary["bytes"]["up"] + summary["bytes"]["down"],
        "seconds": summary["seconds"]["training"],
        "commit": job.commit,
    }
    if choosing and "rmse" in summary["test"]["global"]:
        kept["as_cut"] = as_cut(job)
    if not choosing:
        tested = summary["test"]["global"]
        known = ("rmse", "rmse_uncapped", "average_precision", "prevalence")
        kept |= {name: tested[name] for name in known if name in tested}
    return kept


def as_cut(job: Job) -> float:
    """Return the error of remaining life on validation engines that are cut like test engines.

    Of a run, validation windows are full ones of whole lives. Test engines are cut at some moment
    and padded if they are short by then. Here every row of a validation engine is such a moment,
    early ones are padded, and every engine weighs one, so windows of any length can be compared.
    """
    experiment = build(compose([*job.overrides, f"seed={job.seed}"]))
    federation, scaler = experiment.federation, shared_scaler(experiment)
    module, task = load_predictor(job.folder).model.module, federation.task
    length = federation.source.window
    assert scaler is not None and length is not None
    squares, weights = [], []
    for site in federation.sites:
        rows = federation.rows(site)
        held = rows.split == Split.VALIDATION
        if not held.any():
            continue
        ends, _ = window_ends(rows, length, 1, held, True)
        values = fill_missing(scaler.apply(rows.values, rows.condition), rows)
        windows = gather(values, ends, segment_starts(rows)[ends], length)
        predicted = task.scores(outputs(module, torch.from_numpy(windows))).ravel()
        truth = np.minimum(rows.time_to_failure[ends], task.cap)  # type: ignore[attr-defined]
        _, engine, count = np.unique(rows.machine[ends], return_inverse=True, return_counts=True)
        squares.append((np.clip(predicted, 0, None) - truth) ** 2)
        weights.append(1 / count[engine])
    return float(np.sqrt(np.average(np.concatenate(squares), weights=np.concatenate(weights))))


def read(path: Path) -> dict[str, Any]:
    """Return what is stored: by part, task, line."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def measure(cells: Iterable[Cell], path: Path) -> None:
    """Run what is not stored, and store each run as soon as it is finished.

    The first seed of every cell comes before the second of any.
    """
    listed = list(cells)
    todo = [
        (cell, seed)
        for number in range(max((len(cell.seeds) for cell in listed), default=0))
        for cell in listed
        for seed in cell.seeds[number : number + 1]
        if seed in cell.missing(read(path))
    ]
    for count, (cell, seed) in enumerate(todo, start=1):
        job = cell.job(seed)
        for _, seconds in finish([job], at_once=1):
            kept = of_run(job, cell.choosing)
            keep(cell, seed, kept, path)
            score = kept.get("rmse", kept.get("average_precision", kept["validation"]))
            print(f"{count} of {len(todo)}: {', '.join(cell.path)}, seed {seed}: {score:.3f} "
                  f"({seconds:.0f} s)", flush=True)  # fmt: skip


def keep(cell: Cell, seed: int, kept: Mapping[str, Any], path: Path) -> None:
    """Store a run's numbers beside those of the cell's other seeds."""
    stored = read(path)
    part, task, line = cell.path
    known = cell.entry(stored).get("seeds", {})
    stored.setdefault(part, {}).setdefault(task, {})[line] = {
        "command": cell.job(seed).stated,
        "settings": settings(cell.overrides),
        "seeds": {**known, str(seed): dict(kept)},
    }
    write_json(path, stored)


def open_of(cells: Iterable[Cell], path: Path) -> Iterator[str]:
    """Yield what was not measured, a line for each cell."""
    stored = read(path)
    for cell in cells:
        if seeds := cell.missing(stored):
            yield f"not measured: {', '.join(cell.path)}, seed {', '.join(map(str, seeds))}"


def values(entry: Mapping[str, Any], name: str) -> list[float]:
    """Return a number of each stored seed."""
    return [kept[name] for kept in entry.get("seeds", {}).values() if name in kept]


def mean_of(found: list[float], digits: int) -> str:
    """Return ``mean ± deviation``; a dash where there is nothing."""
    if not found:
        return "–"
    spread = f" ± {stdev(found):.{digits}f}" if len(found) > 1 else ""
    return f"{fmean(found):.{digits}f}{spread}"

"""Made-up run folders for the tests of comparisons."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from fedpdm.compare import compare_folders
from fedpdm.comparison.result import Comparison
from fedpdm.data.splits.saved_split import COLUMNS, SplitFile

Json = dict[str, Any]
SITES = ("detroit", "houston", "pune")


def make_run(
    folder: Path,
    seed: int,
    *,
    strategy: str = "FedAvg",
    model: str = "lstm",
    partition: str = "Natural",
    score: float = 0.45,
    sites: Sequence[str] = SITES,
    metric: str = "average_precision",
    rounds: int = 5,
    sha: str | None = None,
    finished: bool = True,
    config: Json | None = None,
    summary: Json | None = None,
    commit: str | None = None,
    split: str | None = None,
    parts: Sequence[tuple[str, str, float, str]] | None = None,
) -> Path:
    """Write what a finished run leaves; its sites score ``score`` -0.1, +0, +0.1, …

    ``parts`` are lines of its split file: site, machine, last time and split.
    """
    rate = {"lstm": 0.0005, "cnn": 0.001}[model]
    chosen: Json = {
        "rounds": rounds,
        "seed": seed,
        "model": {"model_type": model, "config": {"hidden": model}, "training": {"rate": rate}},
        "training": {"rate": rate},
        "strategy": {"_target_": f"fedpdm.strategies.{strategy}", "fraction_train": 1.0},
        "partition": {"_target_": f"fedpdm.data.partition.{partition}"},
        "data": {"_target_": "fedpdm.data.fleet.source.FleetSource", "days": 320, "path": None},
        "task": {"_target_": "fedpdm.tasks.Failure", "horizon": 7},
    }
    if strategy == "FedProx":
        chosen["strategy"]["proximal_mu"] = 0.01
    for key, value in (config or {}).items():
        node = chosen
        *path, last = key.split(".")
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    steps = np.linspace(-0.1, 0.1, len(sites)) if len(sites) > 1 else np.zeros(1)
    per_site = {
        site: {metric: float(score + step), "prevalence": 0.1, "n": 900.0, "positives": 90.0}
        for site, step in zip(sites, steps, strict=True)
    }
    found: Json = {
        "schema": 1, "sites": list(sites), "task": "failure", "model": model,
        "strategy": strategy, "engine": "serial", "rounds": chosen["rounds"], "best_round": rounds,
        "validation": {"metric": metric, "best": 0.5},
        "test": {
            "global": {metric: score, "prevalence": 0.1, "n": 900.0 * len(sites)},
            "mean_site": {metric: score, "prevalence": 0.1},
            "per_site": per_site,
            "baselines": {},
        },
        "heldout": None, "gain": {}, "bytes": {"up": 4_000_000, "down": 6_000_000},
        "seconds": {"setup": 0.5, "training": 4.0, "evaluation": 0.5, "baselines": 9.0,
                    "total": 15.0},
        "seed": seed, "versions": {"torch": "2.13.0"}, "events": [],
        "data": {"name": "fleet", "sha256": sha or f"{partition}-{seed}", "time_unit": "days",
                 "window": 12},
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({
        "schema": 1, "config": chosen, "git_commit": commit,
        "data": {"sha256": "x"} | ({"split": {"content_sha256": split}} if split else {}),
    }))  # fmt: skip
    if parts is not None:
        lines = [f"{site_name},{machine},0,,1.0,{last},{name},{last:.0f}"
                 for site_name, machine, last, name in parts]  # fmt: skip
        SplitFile("\n".join([",".join(COLUMNS), *lines, ""]), len(sites)).write(folder)
    if finished:
        (folder / "summary.json").write_text(json.dumps(found | (summary or {})))
        with (folder / "metrics.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["round", "site", metric, "bytes_up", "bytes_down"])
            for number in range(1, rounds + 1):
                rows.writerow([number, "", score * number / rounds, 800_000, 1_200_000])
                rows.writerow([number, sites[0], 0.4, "", ""])
    return folder


def sweep(folder: Path, seeds: int = 8, shift: float = 0.03, noise: float = 0.01) -> Path:
    """FedProx better than FedAvg in every seed, FedNova different by chance only."""
    draw = np.random.default_rng(0)
    for seed in range(seeds):
        base = float(draw.normal(0.45, 0.05))
        for strategy, by in (("FedAvg", 0.0), ("FedNova", None), ("FedProx", shift)):
            own = noise * (-1) ** seed if by is None else by + float(draw.normal(0, noise / 10))
            make_run(folder / f"{strategy}-{seed}", seed, strategy=strategy, score=base + own)
    return folder


def compared(folder: Path, **options: object) -> tuple[Comparison, str]:
    """Compare and return what an 80-column terminal shows."""
    shown = io.StringIO()
    console = Console(file=shown, width=80, highlight=False, force_terminal=False)
    found = compare_folders([folder], console=console, **options)  # type: ignore[arg-type]
    return found, re.sub(r"\s+", " ", shown.getvalue())


def words(page: str) -> str:
    text = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))


def written(folder: Path, found: Comparison, shown: str) -> list[str]:
    """Return the remarks, having checked that screen, page and Markdown show them all."""
    texts = [shown, words((folder / "comparison" / "comparison.html").read_text(encoding="utf-8"))]
    texts += [
        re.sub(r"\s+", " ", path.read_text(encoding="utf-8"))
        for path in (folder / "comparison").glob("*.md")
    ]
    assert len(texts) == 3
    for remark in found.remarks:
        assert all(remark[1:] in text for text in texts), remark
    return list(found.remarks)

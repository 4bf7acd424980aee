"""From single runs to medians: ``.bench/speed.jsonl`` to ``benchmarks/results/speed.json``."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Run = dict[str, Any]
Key = tuple[str, int, str, int]


def read_runs(path: Path) -> list[Run]:
    """Return all finished runs; a last line that was cut off is not one."""
    runs = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            runs.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return runs


def key_of(run: Run) -> Key:
    return run["model"], run["plants"], run["contender"], run["repeat"]


def done(runs: Iterable[Run]) -> set[Key]:
    """Return what need not be measured again."""
    return {key_of(run) for run in runs if "failed" not in run}


def per_round(round_seconds: Sequence[float]) -> float:
    """Return the median over the rounds after the first, which pays for starting."""
    return statistics.median(round_seconds[1:] or round_seconds)


def middle(values: Iterable[float | None]) -> float | None:
    """Return the median of what is known."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def summarise(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Return one entry per cell and contender: medians over its repeats."""
    grouped: dict[tuple[str, int, str], dict[int, Run]] = defaultdict(dict)
    failures: dict[tuple[str, int, str], str] = {}
    for run in runs:
        cell = (run["model"], run["plants"], run["contender"])
        if "failed" in run:
            failures[cell] = run["failed"]
        else:
            grouped[cell][run["repeat"]] = run  # measured again: the later one counts
    entries = []
    for cell in dict.fromkeys([*grouped, *failures]):
        entry: dict[str, Any] = dict(zip(("model", "plants", "contender"), cell, strict=True))
        repeats = list(grouped[cell].values())
        if not repeats:
            entries.append(entry | {"failed": failures[cell]})
            continue
        seconds = [per_round(run["round_seconds"]) for run in repeats]
        entry |= {
            "round_seconds": statistics.median(seconds),
            "round_seconds_of_repeats": seconds,
            "first_round_seconds": middle(run["round_seconds"][0] for run in repeats),
            "process_seconds": middle(run["process_seconds"] for run in repeats),
            "rounds": len(repeats[0]["round_seconds"]),
            "peak_bytes": middle(run["peak_bytes"] for run in repeats),
            "train_loss": repeats[0]["train_loss"][-1],
        }
        if all("stages" in run for run in repeats):
            entry["stages"] = {
                stage: middle(run["stages"][stage] for run in repeats)
                for stage in repeats[0]["stages"]
            }
        for name in ("bytes_up", "bytes_down", "engine"):
            if name in repeats[0]:
                entry[name] = repeats[0][name]
        entries.append(entry)
    return entries


def disagreements(entries: Iterable[dict[str, Any]], tolerance: float = 0.1) -> list[str]:
    """Return where a contender's last training loss is far from the bare loop's.

    All do the same work, but draw batches and dropout differently.
    """
    losses: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for entry in entries:
        if "train_loss" in entry:
            losses[entry["model"], entry["plants"]][entry["contender"]] = entry["train_loss"]
    found = []
    for (model, sites), by_name in losses.items():
        floor = by_name.get("floor", by_name.get("floor-cuda"))
        if floor is None:
            continue
        found += [
            f"{model}, {sites} sites: {name} ends at loss {loss:.3f}, the bare loop {floor:.3f}"
            for name, loss in by_name.items()
            if not abs(loss - floor) <= tolerance * floor
        ]
    return found

"""Reads finished runs from their folders for a comparison."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedpdm.data.rows import Split
from fedpdm.data.splits.saved_split import Part, read_split_file
from fedpdm.errors import DataError, HistoryError
from fedpdm.evaluation.wording import primary_metric
from fedpdm.history.lock import PRETRAINING
from fedpdm.history.schemas import Manifest, Summary
from fedpdm.history.sealed import read_sealed
from fedpdm.storage import flatten

Record = Mapping[str, Any]

SAME_RESULT = ("seed.", "resume.", "tracker.", "log.", "hydra.", "data.path.", "baselines.",
               "history.", "promote.", "pretraining.")  # fmt: skip
"""Keys that make no setting of their own: they cannot change a score, are paired over, or follow
from others (the first stage's, which ``init.pretrain`` names)."""


@dataclass(frozen=True)
class FinishedRun:
    """One finished run.

    Attributes:
        folder: its run folder.
        seed: of every draw.
        config: every option by its dotted key, without ``SAME_RESULT``.
        summary: the content of summary.json.
        curve: per round (megabytes exchanged so far, validation metric), where known.
        commit: of the code, with ``+`` if it was edited since; None where it is not known.
        split: hash of the split file's lines; None for a run without one.
        baselines: options of the baselines, which are part of no setting.
    """

    folder: Path
    seed: int
    config: Mapping[str, Any]
    summary: Record
    curve: tuple[tuple[float, float], ...] = ()
    commit: str | None = None
    split: str | None = None
    baselines: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The metric that chose the round."""
        return primary_metric(self.summary).name

    @property
    def test(self) -> Record:
        """What summary.json says of the test."""
        return self.summary.get("test") or {}

    @property
    def per_site(self) -> Mapping[str, Record]:
        """The test metrics of each site."""
        return self.test.get("per_site") or {}

    def baseline(self, name: str) -> Record:
        """Return the test metrics of a baseline; empty where it did not run."""
        return (self.test.get("baselines") or {}).get(name) or {}

    @property
    def tested_on(self) -> tuple[Any, ...]:
        """What must be equal for scores to be comparable: rows, splits, sites, windows."""
        parts = sorted(self.per_site.items())
        counts = tuple((site, part.get("n"), part.get("positives")) for site, part in parts)
        return ((self.summary.get("data") or {}).get("sha256"), counts)

    @property
    def test_size(self) -> tuple[float, float]:
        """Test windows and positives of all sites together."""
        n, positives = (sum(float(part.get(key) or 0.0) for part in self.per_site.values())
                        for key in ("n", "positives"))  # fmt: skip
        return (n, positives)

    def test_machines(self) -> tuple[Any, ...] | None:
        """Return which machines' test rows were used, no matter at which site.

        Official test engines are dealt to other sites with every seed: the hash of a site's
        rows changes, the engines do not.

        Returns:
            Machine, life, condition, times and rows, sorted; None without a split file that
            can be read.
        """
        try:
            sites = read_split_file(self.folder)
        except DataError:
            return None
        used = [p for site, parts in sites.items() if site in self.per_site for p in parts]
        return tuple(sorted(map(_line, (p for p in used if p.split is Split.TEST))))


def _line(part: Part) -> tuple[Any, ...]:
    condition = -1 if part.condition is None else part.condition
    return (part.machine, part.life, condition, part.first, part.last, part.rows)


def find_runs(paths: Sequence[Path]) -> tuple[list[FinishedRun], list[str]]:
    """Return the finished runs in folders of runs, and a sentence for each that is left out.

    Args:
        paths: run folders, or folders that hold some at any depth (a multirun's).

    Raises:
        HistoryError: a path is no folder, or holds no run at all.
    """
    folders: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            raise HistoryError(f"{path} is not a folder; name run folders, or a multirun's")
        found = [Path(f) for f in _run_folders(path)]
        if not found:
            raise HistoryError(f"{path} holds no run (no manifest.json in it or below it)")
        folders |= dict.fromkeys(found)
    runs, left_out = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except HistoryError as error:
            left_out.append(str(error))
    return runs, left_out


def _run_folders(path: Path) -> Iterable[str]:
    for folder, below, files in os.walk(path):
        below.sort(key=lambda name: (len(name), name))
        if "config.yaml" in files and PRETRAINING in below:  # a run that is in its first stage
            below.remove(PRETRAINING)
        if "manifest.json" in files or "summary.json" in files:
            below.clear()
            yield folder


def read_run(folder: Path) -> FinishedRun:
    """Read a run folder.

    Raises:
        HistoryError: the run is not finished, or a file is damaged; says which.
    """
    if not (folder / "summary.json").is_file():
        raise HistoryError(f"{folder} is not finished; finish it with resume={folder}")
    summary = Summary.read(read_sealed(folder, "summary.json"), folder / "summary.json")
    manifest = Manifest.read(read_sealed(folder, "manifest.json"), folder / "manifest.json")
    for name in ("metrics.csv", "split.csv.gz"):
        if (folder / name).exists():
            read_sealed(folder, name)
    config = manifest["config"]
    if summary.get("rounds") != config.get("rounds"):
        raise HistoryError(
            f"{folder} is not finished: its results are of {summary.get('rounds')} rounds, "
            f"{config.get('rounds')} were asked for; finish it with resume={folder}"
        )
    files = flatten({"data": manifest.get("data")})
    return FinishedRun(
        folder,
        int(summary["seed"]),
        {k: v for k, v in flatten(config).items() if not f"{k}.".startswith(SAME_RESULT)},
        summary,
        read_curve(folder / "metrics.csv", primary_metric(summary).name),
        manifest.get("git_commit") or None,
        files.get("data.split.content_sha256") or None,
        config.get("baselines") or {},
    )


def read_curve(path: Path, metric: str) -> tuple[tuple[float, float], ...]:
    """Return (megabytes exchanged so far, validation metric) after each round of metrics.csv."""
    if not path.is_file():
        return ()
    points, sent = [], 0.0
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                # KeyError, ValueError, TypeError: a round without a validation score
                with contextlib.suppress(KeyError, ValueError, TypeError):
                    if not row.get("site"):
                        sent += (float(row["bytes_up"]) + float(row["bytes_down"])) / 1e6
                        points.append((sent, float(row[metric])))
    except (csv.Error, UnicodeDecodeError) as error:
        raise HistoryError(f"{path} is damaged: {error}") from None
    return tuple(points)

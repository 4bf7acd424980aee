"""How many bytes can be saved, and what does it cost? FD001 of C-MAPSS and the default fleet.

    python -m benchmarks.compression          runs what is missing, then the page
    python -m benchmarks.compression --show   the page of what there is

Asked are 8 times fewer bytes at a loss of at most 2 % of the score, and 30 times at most 5 %. Bytes
are those of the whole run, as really serialised: updates, models, evaluations, scalers. Candidates
are compared on validation data with seeds that are shown nowhere; the chosen ones, and runs without
compression of fewer rounds, which save as many bytes, are measured with others. It can be stopped
and started: finished runs are kept in ``runs/evidence``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from benchmarks.compression_page import page
from benchmarks.predictions.runs import ROOT, Job, finish
from fedpdm.history import History
from fedpdm.storage import write_json

RESULTS = ROOT / "benchmarks" / "results" / "compression.json"
PAGE = ROOT / "docs" / "compression.md"
CHOOSING = (100,)
SEEDS = (60, 61, 62)
TARGETS = {8: 0.02, 30: 0.05}
"""How many times fewer bytes, and the share of the score that may be lost for it."""
WITHOUT = ("baselines.max_plants=0", "evaluate.bootstrap=0")
NONE = "none"


@dataclass(frozen=True)
class Part:
    """A data set.

    Attributes:
        overrides: what follows ``python -m fedpdm.simulate``.
        metric: of the summary; ``rmse`` is better when lower.
        where: of ``summary["test"]``.
        rounds: of the run.
        tried: the candidates that are compared.
        like: the data set whose choice for the largest target is taken over.
    """

    overrides: tuple[str, ...]
    metric: str
    where: str
    rounds: int
    tried: tuple[str, ...] = ()
    like: str | None = None

    @property
    def higher_is_better(self) -> bool:
        return self.metric != "rmse"

    def lost(self, score: float, full: float) -> float:
        """Return the share of a score that is lost; negative if it became better."""
        return (full - score) / full * (1 if self.higher_is_better else -1)


FOUR, LOW, SIGN = "4 bits, error feedback", "PowerSGD, rank 1 up, sign down", "sign"
PARTS = {
    "FD001": Part(
        ("experiment=cmapss_rul",), "rmse", "global", 100,
        (FOUR, LOW, "PowerSGD, rank 2 up, sign down", "top-k, 5 %", "8 bits up, sign down",
         "4 bits, error feedback, buckets of 64", "4 bits, buckets of 64",
         "PowerSGD, rank 4 up, 8 bits down", "PowerSGD, rank 4"),
    ),
    "fleet": Part(
        (), "average_precision", "mean_site", 10,
        (FOUR, LOW, "top-k, 5 %", "top-k, 1.5 %", "PowerSGD, rank 4", SIGN),
    ),
    "FD001, failure": Part(
        ("experiment=cmapss_failure",), "average_precision", "global", 100, (FOUR, LOW, SIGN),
    ),
    "fleet, 40 rounds": Part(("rounds=40",), "average_precision", "mean_site", 40, like="fleet"),
}  # fmt: skip


def both(up: str, down: str, *settings: str) -> tuple[str, ...]:
    """Return the overrides for one method each way."""
    return (
        f"transforms=[{up},{down}]", f"transforms.{up}.direction=up",
        f"transforms.{down}.direction=down", *settings,
    )  # fmt: skip


def topk(share: float) -> tuple[str, ...]:
    return ("transforms=topk", f"transforms.topk.share={share:g}")


BITS_4 = ("transforms=quantise", "transforms.quantise.bits=4")
FEEDBACK = "transforms.quantise.error_feedback=true"
RANK_1 = ("transforms.powersgd.rank=1",)
RANK_4 = ("transforms.powersgd.rank=4",)
CANDIDATES: dict[str, tuple[str, ...]] = {
    "4 bits, error feedback": (*BITS_4, FEEDBACK),
    "4 bits, error feedback, buckets of 64": (*BITS_4, FEEDBACK, "transforms.quantise.bucket=64"),
    "4 bits, buckets of 64": (*BITS_4, "transforms.quantise.bucket=64"),
    "PowerSGD, rank 1 up, sign down": both("powersgd", "sign", *RANK_1),
    "PowerSGD, rank 2 up, sign down": both("powersgd", "sign"),
    "top-k, 5 %": topk(0.05),
    "top-k, 1.5 %": topk(0.015),
    "PowerSGD, rank 4": ("transforms=powersgd", *RANK_4),
    "sign": ("transforms=sign",),
    "8 bits up, sign down": both("quantise", "sign"),
    "PowerSGD, rank 4 up, 8 bits down": both("powersgd", "quantise", *RANK_4),
}


@dataclass(frozen=True)
class Line:
    """A line of the table: a data set, a method, and its seeds."""

    part: str
    name: str
    overrides: tuple[str, ...]
    choosing: bool = False

    def job(self, seed: int) -> Job:
        words = (*PARTS[self.part].overrides, *self.overrides, *WITHOUT)
        return Job(f"compression-{self.part.replace(', ', '-')}", words, seed)

    @property
    def stated(self) -> str:
        return self.job(0).stated

    def entry(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is stored of these very settings, by seed."""
        kind = "choosing" if self.choosing else "reported"
        found = stored.get(self.part, {}).get(kind, {}).get(self.name, {})
        return dict(found.get("seeds", {})) if found.get("command") == self.stated else {}


def choosing() -> Iterator[Line]:
    """Yield what is compared on validation data."""
    for part, settings in PARTS.items():
        if settings.tried:
            yield Line(part, NONE, (), choosing=True)
        for name in settings.tried:
            yield Line(part, name, CANDIDATES[name], choosing=True)


def factor(line: Mapping[str, Any], full: Mapping[str, Any], what: str = "total") -> float:
    """Return how many times fewer bytes there are, mean of the seeds that both have."""
    seeds = line.keys() & full.keys()
    return fmean(full[s][what] / line[s][what] for s in seeds) if seeds else 0.0


def chosen(stored: Mapping[str, Any]) -> dict[str, dict[int, tuple[str, str]]]:
    """Return for each data set and target the candidate with the best validation score, and of what
    bytes it saves as many: ``total``, or, where no candidate can, of a ``round`` after the first.
    """
    found: dict[str, dict[int, tuple[str, str]]] = {}
    for part, settings in PARTS.items():
        if settings.like in found and max(TARGETS) in found[settings.like]:
            name, _ = found[settings.like][max(TARGETS)]
            found[part] = {max(TARGETS): (name, "total")}
        lines = {
            line.name: line.entry(stored)
            for line in choosing()
            if line.part == part and line.entry(stored)
        }
        full = lines.pop(NONE, {})
        for target in TARGETS:
            for what in ("total", "round"):
                able = {
                    name: fmean(kept["validation"] for kept in seeds.values())
                    for name, seeds in lines.items()
                    if factor(seeds, full, what) >= target
                }
                if able:
                    best = (max if settings.higher_is_better else min)(able, key=able.__getitem__)
                    found.setdefault(part, {})[target] = (best, what)
                    break
    return found


def reported(stored: Mapping[str, Any]) -> Iterator[Line]:
    """Yield what is measured: no compression, what was chosen, and as few bytes by fewer rounds."""
    for part, targets in chosen(stored).items():
        yield Line(part, NONE, ())
        for name in dict.fromkeys(name for name, _ in targets.values()):
            yield Line(part, name, CANDIDATES[name])
        for rounds in dict.fromkeys(max(1, PARTS[part].rounds // t) for t in targets):
            yield Line(part, f"{NONE}, {rounds} rounds", (f"rounds={rounds}",))


def measured(line: Line, job: Job) -> dict[str, Any]:
    """Return what is kept of a run; one that chooses keeps no test score."""
    summary, settings = job.summary(), PARTS[line.part]
    with History.open(job.folder) as history:
        last = history.rounds()[-1]
    kept = {
        "validation": summary["validation"]["best"],
        "up": summary["bytes"]["up"],
        "down": summary["bytes"]["down"],
        "total": summary["bytes"]["up"] + summary["bytes"]["down"],
        "round": last.bytes_up + last.bytes_down,
        "seconds": summary["seconds"]["training"],
        "commit": job.commit,
    }
    if not line.choosing:
        kept["score"] = summary["test"][settings.where][settings.metric]
    return kept


def load() -> dict[str, Any]:
    """Return what is stored: by data set, kind, and method."""
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def store(line: Line, seed: int, kept: Mapping[str, Any]) -> None:
    """Keep a run's numbers beside those of other seeds."""
    stored = load()
    seeds = {**line.entry(stored), str(seed): dict(kept)}
    kind = "choosing" if line.choosing else "reported"
    stored.setdefault(line.part, {}).setdefault(kind, {})[line.name] = {
        "command": line.stated, "seeds": seeds,
    }  # fmt: skip
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS, stored)


def run(lines: Sequence[Line], seeds: Sequence[int], at_once: int) -> None:
    """Run what is missing; the first seed of every line comes before the second of any."""
    for seed in seeds:
        todo = {line.job(seed): line for line in lines if str(seed) not in line.entry(load())}
        for job, seconds in finish(list(todo), at_once):
            store(todo[job], seed, measured(todo[job], job))
            show()
            print(f"{todo[job].part}, {todo[job].name}, seed {seed}: {seconds:.0f} s", flush=True)


def show() -> None:
    """Write the page."""
    stored = load()
    PAGE.write_text(page(stored, list(reported(stored)), chosen(stored)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--parts", default=";".join(PARTS), help="separated by semicolons")
    options = parser.parse_args(arguments)
    parts = options.parts.split(";")
    if not options.show:
        run([line for line in choosing() if line.part in parts], CHOOSING, options.jobs)
        run([line for line in reported(load()) if line.part in parts], SEEDS, options.jobs)
    show()


if __name__ == "__main__":
    main()

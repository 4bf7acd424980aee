"""What is gained by not waiting for slow sites? Servers on a virtual clock, with a tenth slow.

    python -m benchmarks.clock            runs what is missing, then the table of the page
    python -m benchmarks.clock --seeds 0  one seed only
    python -m benchmarks.clock --show     the table of what there is

Thirty small sites train an mlp; three of them, drawn from the seed, are ten times slower. FedAvg
waits for all; the others do not. The score is average precision on validation windows over all
sites. Each setting is as its yaml says: nothing was tuned. The time to FedAvg's score is when the
mean of three evaluations in a row first reaches the best single one that FedAvg had with this seed:
who is evaluated more often gains nothing by it. It can be stopped and started: finished runs are
kept in ``runs/evidence``, half-finished ones are resumed.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.predictions.runs import ROOT, Job, finish
from fedpdm.storage import write_json

RESULTS = ROOT / "benchmarks" / "results" / "clock.json"
PAGE = ROOT / "docs" / "asynchronous.md"
BEGIN, END = "<!-- made by benchmarks/clock.py -->", "<!-- end -->"
SEEDS = (0, 1, 2)
SITES = ("detroit", "houston", "nagoya", "pune", "rotterdam", "seattle")
COMMON = (
    f"site=[{','.join(SITES)}]", "replicas=5", *(f"sites.{name}.machines=6" for name in SITES),
    "data.days=300", "model=mlp", "engine=serial", "evaluate.bootstrap=0",
    "clock=virtual", "clock.slow_share=0.1",
)  # fmt: skip
NONE = ("baselines.max_plants=0",)
FEDAVG = "FedAvg, waits for all"
SETTINGS: dict[str, tuple[str, ...]] = {
    FEDAVG: ("rounds=20", "baselines.controls=[alone,hgb]"),
    "FedAvg, deadline, late dropped": (
        "server=deadline", "server.seconds=30", "rounds=40", *NONE
    ),
    "FedAvg, deadline, late taken": (
        "server=deadline", "server.seconds=30", "server.late=take", "rounds=40", *NONE
    ),
    "FedBuff, K = 10": ("server=fedbuff", "rounds=90", *NONE),
    "FedAsync": ("server=fedasync", "rounds=250", *NONE),
}  # fmt: skip


def job(name: str, seed: int) -> Job:
    """Return the run of a setting with a seed."""
    place = list(SETTINGS).index(name)
    return Job(f"clock-{place}", (*COMMON, *SETTINGS[name]), seed)


def measured(summary: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return what a run came to: its curve, and what was tested at the end."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["site"]]
    test = summary["test"]
    return {
        "test": test["mean_site"]["average_precision"],
        "baselines": {
            name: found["mean_site"]["average_precision"]
            for name, found in test["baselines"].items()
        },
        "messages": summary["simulated"]["messages"],
        "curve": [
            [round(float(row["simulated_seconds"]), 1), int(float(row["messages_bytes"])),
             round(float(row["average_precision"]), 4)]
            for row in rows
        ],
    }  # fmt: skip


def reached(curve: Sequence[Sequence[float]], target: float) -> Sequence[float] | None:
    """Return the point of a curve at which the mean of three scores first reaches a target."""
    for end in range(3, len(curve) + 1):
        if fmean(score for _, _, score in curve[end - 3 : end]) >= target:
            return curve[end - 1]
    return None


def best(curve: Sequence[Sequence[float]]) -> Sequence[float]:
    """Return the point with the best score, the earliest of equals."""
    return max(curve, key=lambda point: (point[2], -point[0]))


def load() -> dict[str, dict[str, Any]]:
    """Return what is stored, by setting and seed."""
    found: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def table(stored: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the settings side by side in Markdown, each over the seeds that FedAvg has, too."""
    lines = [
        "| server | best validation AP | simulated seconds to it | to FedAvg's score | share of "
        "FedAvg's time | of its bytes | test AP, mean of sites | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    whole = stored.get(FEDAVG, {})
    for name in SETTINGS:
        seeds = sorted(set(stored.get(name, {})) & set(whole))
        if not seeds:
            lines.append(f"| {name} | not measured yet | | | | | | 0 |")
            continue
        found = [stored[name][seed] for seed in seeds]
        tops, aims = ([best(s[seed]["curve"]) for seed in seeds] for s in (stored[name], whole))
        when = [reached(f["curve"], aim[2]) for f, aim in zip(found, aims, strict=True)]
        there = [(at, aim) for at, aim in zip(when, aims, strict=True) if at is not None]
        if name == FEDAVG:
            there = [(aim, aim) for aim in aims]
        time, share, sent = "never", "–", "–"
        if there:
            few = "" if len(there) == len(seeds) else f" ({len(there)} of {len(seeds)} seeds)"
            time = f"{fmean(at[0] for at, _ in there):.0f}{few}"
            share, sent = (spread([at[n] / aim[n] for at, aim in there], 2) for n in (0, 1))
        lines.append(
            f"| {name} | {spread([top[2] for top in tops])} | {fmean(t[0] for t in tops):.0f} "
            f"| {time} | {share} | {sent} | {spread([f['test'] for f in found])} | {len(seeds)} |"
        )
    if whole:
        names = next(iter(whole.values()))["baselines"]
        others = {name: spread([each["baselines"][name] for each in whole.values()])
                  for name in names}  # fmt: skip
        told = ", ".join(f"{name} {score}" for name, score in others.items())
        lines += ["", f"Test AP of baselines, mean of sites: {told}."]
    return "\n".join(lines)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Return a mean and its deviation over seeds."""
    told = f"{fmean(values):.{digits}f}"
    return f"{told} ± {stdev(values):.{digits}f}" if len(values) > 1 else told


def show() -> None:
    """Write the table into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table(load())}\n{END}{after}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--show", action="store_true", help="only the table of what there is")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="separated by commas")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), help="all, if none")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    options = parser.parse_args(arguments)
    wanted = {
        job(name, seed): name
        for seed in map(int, options.seeds.split(","))
        for name in options.settings or SETTINGS
        if not options.show
    }
    for done, seconds in finish(list(wanted), options.jobs):
        stored = load()
        entry = measured(done.summary(), done.folder)
        stored.setdefault(wanted[done], {})[str(done.seed)] = entry
        write_json(RESULTS, stored)
        show()
        print(f"{wanted[done]}, seed {done.seed}: {seconds:.0f} s", flush=True)
    show()


if __name__ == "__main__":
    main()

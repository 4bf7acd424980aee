"""The numbers about predictions: every one is made by this command, and can be made again.

    python benchmarks/evidence.py                  # all; hours on two cores
    python benchmarks/evidence.py fedcmapss rul    # the C-MAPSS table
    python benchmarks/evidence.py fleet ai4i       # some
    python benchmarks/evidence.py plan             # what is left, and how long it may take
    python benchmarks/evidence.py targets          # goals and what was measured
    python benchmarks/evidence.py report           # tables of README and docs again

It can be stopped and started: finished runs are kept in ``runs/evidence``, half-finished
ones are resumed. Results go to ``benchmarks/results/evidence.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.predictions import tables, targets  # noqa: E402
from benchmarks.predictions.cells import settings  # noqa: E402
from benchmarks.predictions.collect import collect  # noqa: E402
from benchmarks.predictions.experiments import (  # noqa: E402
    EXPERIMENTS,
    GROUPS,
    Experiment,
)
from benchmarks.predictions.runs import Job, finish  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "evidence.json"


def jobs(name: str, experiment: Experiment) -> list[Job]:
    """Return the runs of an experiment."""
    return [Job(name, experiment.overrides, seed) for seed in experiment.seeds]


def load() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def store(name: str, experiment: Experiment) -> None:
    """Collect an experiment's runs into the result file, and make the tables again."""
    runs = jobs(name, experiment)
    summaries = [job.summary() for job in runs]
    found = load()
    found[name] = {
        "command": runs[0].stated,
        "settings": settings(experiment.overrides),
        "seeds": list(experiment.seeds),
        "commits": sorted({str(job.commit) for job in runs}),
        "versions": summaries[0]["versions"],
        **collect(summaries, experiment.metric, experiment.also),
    }
    ordered = {key: found[key] for key in EXPERIMENTS if key in found}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")
    tables.write(ROOT, ordered)


def measure(names: list[str], at_once: int) -> None:
    """Run what is missing and store every experiment as soon as its seeds are finished."""
    begun = time.perf_counter()
    todo = {job: name for name in names for job in jobs(name, EXPERIMENTS[name])}
    left = sum(not job.finished for job in todo)
    spent: list[float] = []
    waiting = {name: len(EXPERIMENTS[name].seeds) for name in names}
    print(f"{left} of {len(todo)} runs to do, {at_once} at once", flush=True)
    for job, seconds in finish(list(todo), at_once):
        name = todo[job]
        if seconds:
            spent.append(seconds)
            left -= 1
        value = job.summary()["test"]["global"][EXPERIMENTS[name].metric]
        rest = left * sum(spent) / max(len(spent), 1) / at_once / 60
        print(f"{name} seed {job.seed}: {value:.3f} ({seconds:.0f} s; about {rest:.0f} min left, "
              f"{(time.perf_counter() - begun) / 60:.0f} spent)", flush=True)  # fmt: skip
        waiting[name] -= 1
        if not waiting[name]:
            store(name, EXPERIMENTS[name])


def plan(names: list[str]) -> None:
    """Print what is left to do; seconds as far as a seed of the experiment is known."""
    for name in names:
        experiment = EXPERIMENTS[name]
        runs = jobs(name, experiment)
        known = [job.summary()["seconds"]["total"] for job in runs if job.finished]
        each = f"{sum(known) / len(known):.0f} s each" if known else "time unknown"
        print(f"{name:<18} {len(runs) - len(known)} of {len(runs)} runs left, {each}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help="experiments or groups, plan, targets or report")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    options = parser.parse_args()
    words = [word for word in options.names if word not in ("plan", "targets", "report")]
    names: list[str] = []
    for word in words:
        if word not in EXPERIMENTS and word not in GROUPS:
            parser.error(f"{word} is unknown; there are {', '.join([*GROUPS, *EXPERIMENTS])}")
        names += GROUPS.get(word, (word,))
    names = names or list(EXPERIMENTS)
    if "targets" in options.names:
        print(targets.as_text(tables.current(load())))
    elif "report" in options.names:
        tables.write(ROOT, load())
    elif "plan" in options.names:
        plan(names)
    else:
        measure(names, options.jobs)


if __name__ == "__main__":
    main()

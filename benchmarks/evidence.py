"""The numbers in the README: every one is made by this command, and can be made again.

    python benchmarks/evidence.py              # all; about an hour on two cores
    python benchmarks/evidence.py fleet ai4i   # some

It can be stopped and started: finished seeds are kept in ``runs/evidence``, half-finished
ones are resumed. Results go to ``benchmarks/results/evidence.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "evidence.json"


@dataclass(frozen=True)
class Experiment:
    """A command, repeated over seeds."""

    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    metric: str


FRESH = (10, 11, 12, 13, 14)

EXPERIMENTS = {
    # The generator was designed while looking at seeds 0 to 4, so these are others.
    "fleet": Experiment(("site=detroit,houston",), FRESH, "average_precision"),
    "fleet_unchanging": Experiment(
        ("site=detroit,houston", "sites.detroit.modes_later=null",
         "sites.houston.modes_later=null"),
        FRESH, "average_precision",
    ),
    "fleet_all": Experiment(
        ("site=detroit,houston,seattle,rotterdam,nagoya,pune",), FRESH[:3], "average_precision"
    ),
    "ai4i": Experiment(
        ("data=ai4i", "model=cnn", "partition=type", "rounds=40"),
        (0, 1, 2, 3, 4),
        "average_precision",
    ),
    "cmapss_rul": Experiment(
        ("data=cmapss", "data.subset=FD001", "task=rul", "site=[]", "partition=machine",
         "partition.sites=10"),
        (0, 1, 2), "rmse",
    ),
    "cmapss_failure": Experiment(
        ("data=cmapss", "data.subset=FD001", "task=failure", "task.horizon=30", "data.window=50",
         "site=[]", "partition=machine", "partition.sites=10"),
        (0, 1, 2), "average_precision",
    ),
}  # fmt: skip


def summary_of(name: str, seed: int, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Run, resume or read one seed."""
    folder = ROOT / "runs" / "evidence" / f"{name}-{seed}"
    if not (folder / "summary.json").exists():
        begun = (folder / "manifest.json").exists()
        arguments = [f"resume={folder}"] if begun else [
            *overrides, f"seed={seed}", f"hydra.run.dir={folder}"
        ]  # fmt: skip
        subprocess.run(
            [sys.executable, "-m", "fedpdm.simulate", *arguments],
            cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def spread(values: list[float | None]) -> dict[str, Any]:
    """Return mean, sample deviation and the values themselves."""
    known = [v for v in values if v is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "sd": statistics.stdev(known) if len(known) > 1 else None,
        "values": values,
    }


def collect(summaries: list[dict[str, Any]], metric: str) -> dict[str, Any]:
    """Return the metric of the federation and its baselines: over all, and per plant."""

    def over(read: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        return spread([read(s) for s in summaries])

    arms = sorted({name for s in summaries for name in s["test"]["baselines"]})
    result: dict[str, Any] = {
        "metric": metric,
        "global": {"federated": over(lambda s: s["test"]["global"][metric])},
        "mean_site": {"federated": over(lambda s: s["test"]["mean_site"][metric])},
        "gain_over_alone": {
            site: over(lambda s, site=site: s["gain"].get(site))  # type: ignore[misc]
            for site in summaries[0]["sites"]
        },
        "seconds": over(lambda s: s["seconds"]["total"]),
        "prevalence": over(lambda s: s["test"]["global"].get("prevalence")),
    }
    for arm in arms:
        for scope in ("global", "mean_site"):
            result[scope][arm] = over(
                lambda s, arm=arm, scope=scope: s["test"]["baselines"][arm][scope][metric]  # type: ignore[misc]
            )
    if all("full_windows" in s["test"] for s in summaries):
        result["full_windows"] = {
            metric: over(lambda s: s["test"]["full_windows"][metric]),
            "n": over(lambda s: s["test"]["full_windows"]["n"]),
            "prevalence": over(lambda s: s["test"]["full_windows"].get("prevalence")),
            "short_machines": summaries[0]["test"]["full_windows"]["short_machines"],
        }
    return result


ROWS = {
    "fleet": ("generated, detroit and houston, AP, mean of plants", "mean_site"),
    "fleet_all": ("generated, all six plants, AP, mean of plants", "mean_site"),
    "fleet_unchanging": ("generated, plants that never change, AP, mean of plants", "mean_site"),
    "ai4i": ("AI4I, plants by product type, AP, test rows", "global"),
    "cmapss_failure": ("C-MAPSS FD001, failure within 30 cycles, AP, all test windows", "global"),
    "cmapss_rul": ("C-MAPSS FD001, remaining life, RMSE in cycles", "global"),
}
ARMS = {"trivial": "trivial", "alone": "alone", "federated": "federated", "pooled": "pooled",
        "hgb": "trees"}  # fmt: skip
BEGIN, END = "<!-- made by benchmarks/evidence.py -->", "<!-- end -->"


def readme_table(stored: dict[str, Any]) -> str:
    """Return the README's table of results, in Markdown."""
    lines = [
        f"| experiment | {' | '.join(ARMS.values())} | seeds |",
        "|---|" + "---|" * (len(ARMS) + 1),
    ]
    for name, (title, scope) in ROWS.items():
        if name not in stored:
            continue
        digits = 2 if stored[name]["metric"] == "rmse" else 3
        cells = []
        for arm in ARMS:
            found = stored[name][scope].get(arm)
            cell = "–" if found is None else f"{found['mean']:.{digits}f}"
            if found is not None and found["sd"] and arm != "trivial":
                cell += f" ± {found['sd']:.{digits}f}"
            cells.append(f"**{cell}**" if arm == "federated" else cell)
        lines.append(f"| {title} | {' | '.join(cells)} | {len(stored[name]['seeds'])} |")
    return "\n".join(lines)


def write_readme(stored: dict[str, Any]) -> None:
    """Put the table into the README, between its marks."""
    path = ROOT / "README.md"
    before, rest = path.read_text().split(BEGIN)
    _, after = rest.split(END)
    path.write_text(f"{before}{BEGIN}\n{readme_table(stored)}\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", choices=[[], *EXPERIMENTS], default=[])
    names = parser.parse_args().names or list(EXPERIMENTS)
    for name in names:
        experiment = EXPERIMENTS[name]
        summaries = []
        for seed in experiment.seeds:
            summaries.append(summary_of(name, seed, experiment.overrides))
            print(f"{name} seed {seed}: {summaries[-1]['test']['global'][experiment.metric]:.3f}",
                  flush=True)  # fmt: skip
        stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        stored[name] = {
            "command": "python -m fedpdm.simulate " + " ".join(experiment.overrides),
            "seeds": list(experiment.seeds),
            "versions": summaries[0]["versions"],
            **collect(summaries, experiment.metric),
        }
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(stored, indent=2) + "\n")
        write_readme(stored)
        for arm, values in stored[name]["global"].items():
            print(f"  {arm:<10} {values['mean']:.3f} ± {values['sd'] or 0:.3f}")


if __name__ == "__main__":
    main()

"""Which federated method is best on generated sites? Validation says; no test score is looked at.

    python -m benchmarks.fleet            runs what is missing, then writes the page
    python -m benchmarks.fleet --show     the page again, and what is missing

It can be stopped and started: what ``results/fleet.json`` holds is not measured again. What was
chosen is ``experiment=fleet``; ``python benchmarks/evidence.py fleet fleet_chosen`` tests it with
other seeds, beside all baselines. The page is docs/fleet.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from benchmarks.predictions import cells, tables
from benchmarks.predictions.cells import Cell, mean_of, values
from benchmarks.predictions.runs import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "fleet.json"
PAGE = ROOT / "docs" / "fleet.md"
BEGIN = "<!-- made by benchmarks/fleet.py -->"
SEEDS = (100, 101, 102, 103, 104)
HISTORY = "features=history"
METHODS: dict[str, tuple[str, ...]] = {
    "lstm, its source's settings: the default": (),
    "lstm, `experiment=fleet`": ("experiment=fleet",),
    "lstm, `experiment=fleet`, history": ("experiment=fleet", HISTORY),
    "mlp, history": ("model=mlp", HISTORY, "data.stride=7"),
    "trees, history, every row": ("model=gbdt", HISTORY, "data.stride=1"),
}


def chosen() -> Iterator[Cell]:
    """Yield the methods; of each only validation scores are kept."""
    for name, overrides in METHODS.items():
        command = (*overrides, "site=detroit,houston")
        yield Cell(("choose", "fleet", name), command, SEEDS, choosing=True)


def table(stored: Mapping[str, Any]) -> str:
    """Return validation scores of every method in Markdown."""
    lines = [
        "| method | validation, mean of sites | MB up and down | seconds of training | seeds |",
        "|---|---|---|---|---|",
    ]
    for cell in chosen():
        entry = cell.entry(stored)
        if found := values(entry, "validation"):
            sent, took = (fmean(values(entry, name)) for name in ("bytes", "seconds"))
            lines.append(f"| {cell.path[2]} | {mean_of(found, 3)} | {sent / 1e6:.0f} "
                         f"| {took:.0f} | {len(found)} |")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, write the page, and say what is still missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--show", action="store_true", help="only the page of what there is")
    if not parser.parse_args().show:
        cells.measure(chosen(), RESULTS)
    tables.replace(PAGE, [table(cells.read(RESULTS))], BEGIN)
    for line in cells.open_of(chosen(), RESULTS):
        print(line)


if __name__ == "__main__":
    main()

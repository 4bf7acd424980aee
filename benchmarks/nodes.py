"""Failures within 30 cycles at 5 to 40 nodes on C-MAPSS, beside gossip-lstm-cmapss.

    python -m benchmarks.nodes                          runs what is missing, then writes the page
    python -m benchmarks.nodes --nodes 5 --subsets FD001   some
    python -m benchmarks.nodes --show                   the page again, and what is missing

Average precision over the windows of all test engines, window 50, as there; shorter engines have no
window. Two federated methods are tested: with five seeds on FD001 at 5 and 10 nodes, where the page
also says which one validation engines take, with five other seeds; elsewhere with three seeds, and
none is taken. A published figure is of the best method, too. It can be stopped and started: what
``results/nodes.json`` holds is not measured again. The page is docs/fedcmapss.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from statistics import fmean
from typing import Any

from benchmarks.predictions import cells, tables
from benchmarks.predictions.cells import Cell, mean_of, values
from benchmarks.predictions.experiments import FIVE, SUBSETS
from benchmarks.predictions.runs import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "nodes.json"
PAGE = ROOT / "docs" / "fedcmapss.md"
BEGIN = "<!-- made by benchmarks/nodes.py -->"
NODES = (5, 10, 20, 40)
CHOICE = (100, 101, 102, 103, 104)
"""Seeds of which only validation engines are looked at: one alone chose within its noise."""
METHODS: dict[str, tuple[str, ...]] = {
    "trend, FedSGD": (),
    "trees": ("model=gbdt", "strategy=fedavg", "rounds=30"),
}
"""As experiment=cmapss_failure says, and federated trees on the same windows."""
PUBLISHED = {
    ("FD001", 5): ".946", ("FD001", 10): ".911", ("FD001", 20): ".875", ("FD001", 40): ".809",
    ("FD002", 10): ".558", ("FD003", 10): ".948", ("FD004", 10): ".454",
}  # fmt: skip
"""Of the best federated method; docs/fedcmapss.md names files and conventions."""
ASKED = {("FD001", 5): 0.95, ("FD001", 10): 0.945}


def choose(subset: str, nodes: int) -> Iterator[Cell]:
    """Yield the methods, with seeds of which only validation is looked at, where one is asked."""
    for name, overrides in METHODS.items() if (subset, nodes) in ASKED else ():
        yield Cell(("choose", place(subset, nodes), name), command(subset, nodes, overrides),
                   CHOICE, choosing=True)  # fmt: skip


def tested(subset: str, nodes: int) -> Iterator[Cell]:
    """Yield the methods with the seeds that are tested."""
    seeds = FIVE if (subset, nodes) in ASKED else FIVE[:3]
    for name, overrides in METHODS.items():
        yield Cell(("test", place(subset, nodes), name), command(subset, nodes, overrides), seeds)


def taken(stored: Mapping[str, Any], subset: str, nodes: int) -> str | None:
    """Return the method that validation engines take; None where none is asked, or one is open."""
    compared = list(choose(subset, nodes))
    if not compared or any(cell.missing(stored) for cell in compared):
        return None
    found = {cell.path[2]: fmean(values(cell.entry(stored), "validation")) for cell in compared}
    return max(found, key=lambda method: found[method])


def place(subset: str, nodes: int) -> str:
    return f"{subset} {nodes} nodes"


def command(subset: str, nodes: int, overrides: tuple[str, ...]) -> tuple[str, ...]:
    """Return what follows ``python -m fedpdm.simulate``."""
    return (
        "experiment=cmapss_failure", f"data.subset={subset}", f"partition.sites={nodes}",
        *overrides,
    )  # fmt: skip


def table(stored: Mapping[str, Any]) -> str:
    """Return average precision by subset and number of nodes in Markdown."""
    heads = [f"{name}: {part}" for name in METHODS for part in ("validation", "test", "MB")]
    lines = [
        f"| subset | nodes | {' | '.join(heads)} | validation takes | asked | published | seeds |",
        "|---|---|" + "---|" * (len(heads) + 4),
    ]
    for subset in SUBSETS:
        for nodes in NODES:
            chosen, parts, seeds = taken(stored, subset, nodes), [], 0
            for chooses, tests in zip_longest(choose(subset, nodes), tested(subset, nodes)):
                entry = tests.entry(stored)
                found, sent = values(entry, "average_precision"), values(entry, "bytes")
                seeds = max(seeds, len(found))
                parts += [
                    mean_of(values(chooses.entry(stored), "validation"), 3) if chooses else "–",
                    mean_of(found, 3),
                    f"{fmean(sent) / 1e6:.0f}" if sent else "–",
                ]  # fmt: skip
            if not seeds:
                continue
            asked = ASKED.get((subset, nodes))
            parts += [
                chosen or "–", f"≥ {asked:g}" if asked else "–",
                PUBLISHED.get((subset, nodes), "–"), f"{seeds}",
            ]  # fmt: skip
            lines.append(f"| {subset} | {nodes} | {' | '.join(parts)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, write the page, and say what is still missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--subsets", nargs="+", choices=SUBSETS, default=list(SUBSETS))
    parser.add_argument("--nodes", nargs="+", type=int, choices=NODES, default=list(NODES))
    parser.add_argument("--show", action="store_true", help="only the page of what there is")
    chosen = parser.parse_args()
    listed = [
        cell
        for subset in chosen.subsets
        for nodes in chosen.nodes
        for cell in (*choose(subset, nodes), *tested(subset, nodes))
    ]
    if not chosen.show:
        cells.measure(listed, RESULTS)
    stored = cells.read(RESULTS)
    tables.replace(PAGE, [table(stored)], BEGIN)
    for line in cells.open_of(listed, RESULTS):
        print(line)


if __name__ == "__main__":
    main()

"""Failures within 30 cycles at 5 to 40 nodes on C-MAPSS, beside gossip-lstm-cmapss.

    python -m benchmarks.nodes                          runs what is missing, then writes the page
    python -m benchmarks.nodes --nodes 5 --subsets FD001   some
    python -m benchmarks.nodes --show                   the page again, and what is missing

Average precision over the windows of all test engines, window 50, as there; shorter engines have no
window. Of two federated methods one is taken by validation engines, with five seeds that are shown
nowhere; five others are tested. It can be stopped and started: what ``results/nodes.json`` holds is
not measured again. The page is docs/fedcmapss.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
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
    """Yield the methods, with a seed of which only validation is looked at."""
    for name, overrides in METHODS.items():
        yield Cell(("choose", place(subset, nodes), name), command(subset, nodes, overrides),
                   CHOICE, choosing=True)  # fmt: skip


def tested(stored: Mapping[str, Any], subset: str, nodes: int) -> Cell | None:
    """Return the method that validation engines take; None while one is open."""
    compared = list(choose(subset, nodes))
    if any(cell.missing(stored) for cell in compared):
        return None
    found = {cell.path[2]: fmean(values(cell.entry(stored), "validation")) for cell in compared}
    name = max(found, key=lambda method: found[method])
    chosen = command(subset, nodes, METHODS[name])
    return Cell(("test", place(subset, nodes), name), chosen, FIVE)


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
    names = " | ".join(f"{name}, validation" for name in METHODS)
    lines = [
        f"| subset | nodes | {names} | taken | test AP | asked | published | MB up and down "
        "| seeds |",
        "|---|---|" + "---|" * (len(METHODS) + 6),
    ]
    for subset in SUBSETS:
        for nodes in NODES:
            cell = tested(stored, subset, nodes)
            if cell is None or not (
                found := values(entry := cell.entry(stored), "average_precision")
            ):
                continue
            scores = [
                fmean(values(each.entry(stored), "validation")) for each in choose(subset, nodes)
            ]
            asked = ASKED.get((subset, nodes))
            parts = [
                *(f"{score:.4f}" for score in scores), cell.path[2], mean_of(found, 3),
                f"≥ {asked:g}" if asked else "–", PUBLISHED.get((subset, nodes), "–"),
                f"{fmean(values(entry, 'bytes')) / 1e6:.0f}", f"{len(found)}",
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
    places = [(subset, nodes) for subset in chosen.subsets for nodes in chosen.nodes]
    for subset, nodes in places if not chosen.show else ():
        cells.measure(choose(subset, nodes), RESULTS)
        if cell := tested(cells.read(RESULTS), subset, nodes):
            cells.measure([cell], RESULTS)
    stored = cells.read(RESULTS)
    tables.replace(PAGE, [table(stored)], BEGIN)
    for subset, nodes in places:
        cell = tested(stored, subset, nodes)
        listed = [*choose(subset, nodes), *([] if cell is None else [cell])]
        for line in cells.open_of(listed, RESULTS):
            print(line)


if __name__ == "__main__":
    main()

"""Every method of the catalogue on the same sites: a page of each, with its curve.

    python -m benchmarks.methods            runs what is missing, then writes docs/methods
    python -m benchmarks.methods --show     the pages of what there is
    python -m benchmarks.methods --only ditto moon

Six sites of the generated fleet, ten machines each, ``model=mlp features=history``, twenty rounds,
a method with the arguments of its yaml. Nothing is chosen here: what a method can do with chosen
arguments is on the pages of its kind. It can be stopped and started: what
``results/methods.json`` holds is not measured again.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from benchmarks.predictions import cells
from benchmarks.predictions.cells import Cell, mean_of, values
from benchmarks.predictions.runs import ROOT, finish
from fedpdm.catalogue import GROUPS
from fedpdm.catalogue.methods import Method, methods
from fedpdm.catalogue.page import page_of
from fedpdm.storage import write_bytes

RESULTS = ROOT / "benchmarks" / "results" / "methods.json"
PAGES = ROOT / "docs" / "methods"
SEEDS = (0, 1, 2)
SITES = "detroit,houston,seattle,rotterdam,nagoya,pune"
COMMON = (
    f"site={SITES}", *(f"sites.{name}.machines=10" for name in SITES.split(",")), "model=mlp",
    "features=history", "rounds=20", "engine=serial",
)  # fmt: skip
ASKED = {
    "boosting": ("model=gbdt",), "deadline": ("clock=virtual",), "fedasync": ("clock=virtual",),
    "fedbuff": ("clock=virtual",), "fltrust": ("strategy.root=detroit",),
    "fedbn": ("model=cnn",), "poisson": ("strategy.fraction_train=0.5",),
}  # fmt: skip
"""What a method needs beside its override."""
ELSEWHERE = ("fedntd",)
"""These need three classes or more, which a failure has not."""
SHOWN = (1, 2, 5, 10, 20)
"""Rounds of the curve."""


def cell_of(method: Method) -> Cell:
    """Return the runs of a method."""
    asked = ("attack.sites=1",) if method.group == "attack" else ASKED.get(method.name, ())
    words = [w for w in COMMON if not any(w.split("=")[0] == a.split("=")[0] for a in asked)]
    return Cell(("all", method.group, method.name), (*words, *asked, method.override), SEEDS)


def measure(chosen: list[Method]) -> None:
    """Run what is not stored."""
    stored = cells.read(RESULTS)
    for seed in SEEDS:
        for method in [m for m in chosen if m.name not in ELSEWHERE]:
            cell = cell_of(method)
            if seed not in cell.missing(stored):
                continue
            job = cell.job(seed)
            for _ in finish([job], at_once=1):
                kept = cells.of_run(job, choosing=False)
                kept["average_precision"] = job.summary()["test"]["mean_site"]["average_precision"]
                kept["curve"] = curve(job.folder / "metrics.csv")
                cells.keep(cell, seed, kept, RESULTS)
                print(
                    f"{method.override}, seed {seed}: {kept['average_precision']:.3f}", flush=True
                )


def curve(path: Any) -> dict[str, float]:
    """Return the validation score of some rounds, mean of the sites."""
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row.get("site")]
    scores = {row["round"]: row.get("average_precision") for row in rows}
    return {str(n): float(v) for n in SHOWN if (v := scores.get(str(n)))}


def measured(method: Method, stored: Mapping[str, Any]) -> str:
    """Return what was measured of a method, in Markdown."""
    cell = cell_of(method)
    entry = cell.entry(stored)
    if not (tested := values(entry, "average_precision")):
        if method.name in ELSEWHERE:
            return "Not measured: it needs three classes or more, and a failure has two."
        return "Not measured yet: `python -m benchmarks.methods`."
    seeds = list(entry["seeds"].values())
    lines = [
        f"Six generated sites, {len(tested)} seed{'s' if len(tested) > 1 else ''}, the arguments "
        f"above (`python -m benchmarks.methods`): average precision {mean_of(tested, 3)} on test "
        f"data, mean of the sites; {fmean(values(entry, 'bytes')) / 1e6:.1f} MB.",
        "",
        "| round | " + " | ".join(map(str, SHOWN)) + " |",
        "|---|" + "---|" * len(SHOWN),
        "| validation | " + " | ".join(_at(seeds, str(number)) for number in SHOWN) + " |",
    ]
    return "\n".join(lines)


def _at(seeds: list[Mapping[str, Any]], number: str) -> str:
    known = [seed["curve"][number] for seed in seeds if number in seed.get("curve", {})]
    return f"{fmean(known):.3f}" if known else "–"


def table(listed: list[Method], stored: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the list of methods."""
    yield "# Methods\n"
    yield ("Every method is one override; each has a page, made from its yaml and its docstring by "
           "`python -m benchmarks.methods --show`. `python -m fedpdm.strategies` lists them with "
           "yours. *Differs*: who works differently from FedAvg. *Measured*: average precision on "
           "six generated sites, arguments as in the yaml; seeds differ by more than most methods "
           "do, so it is no ranking (each page says how many there were); a method that was made "
           "for other trouble than these sites have shows it elsewhere. With attacks one of the "
           "six sites is malicious.\n")  # fmt: skip
    for group, about in GROUPS.items():
        yield f"## {group}: {about}\n"
        yield "| override | what it does | differs | measured | MB |"
        yield "|---|---|---|---|---|"
        for method in listed:
            if method.group == group:
                entry = cell_of(method).entry(stored)
                sent = values(entry, "bytes")
                yield (f"| [`{method.override}`]({method.name}.md) | {method.line} | "
                       f"{method.where} | {mean_of(values(entry, 'average_precision'), 3)} | "
                       f"{f'{fmean(sent) / 1e6:.1f}' if sent else '–'} |")  # fmt: skip
        yield ""


def main() -> None:
    """Run what is missing, and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--show", action="store_true", help="only the pages of what there is")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    given, listed = parser.parse_args(), list(methods())
    if not given.show:
        measure([m for m in listed if not given.only or m.name in given.only])
    stored = cells.read(RESULTS)
    PAGES.mkdir(exist_ok=True)
    for page in PAGES.glob("*.md"):
        page.unlink()
    for method in listed:
        page = page_of(method, measured(method, stored))
        write_bytes(PAGES / f"{method.name}.md", page.encode())
    write_bytes(PAGES / "README.md", ("\n".join(table(listed, stored)).rstrip() + "\n").encode())


if __name__ == "__main__":
    main()

"""The tables and the plot of docs/engines.md, from ``benchmarks/results/speed*.json`` alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.work import MODELS

BEGIN, END = "<!-- made by benchmarks/run.py -->", "<!-- end speed -->"
PAGE = Path("docs") / "engines.md"
PLOT = Path("docs") / "img" / "speed.svg"

COLUMNS: dict[str, tuple[str, ...]] = {
    "bare loop": ("floor",),
    "serial": ("serial",),
    "ray, 2 workers": ("ray",),
    "batched": ("batched",),
    "batched, 2 workers": ("batched2",),
    "auto": ("auto",),
    "Flower, 2 actors": ("flower",),
    "pfl-research": ("pfl1", "pfl2"),
}
"""Title and contenders of a column; of several the better one of a cell is shown."""

GPU_COLUMNS: dict[str, tuple[str, ...]] = {
    "bare loop": ("floor-cuda",),
    "serial": ("serial-cuda",),
    "batched": ("batched-cuda",),
    "its kernel alone": ("kernel-cuda",),
}
ALT = (
    "Seconds per round against the number of sites, both axes logarithmic, one panel for each "
    "model: fedpdm's engines, a bare PyTorch loop, Flower's Simulation Runtime and pfl-research."
)

Entry = dict[str, Any]


def best(
    entries: Sequence[Entry],
    model: str,
    sites: int,
    names: Sequence[str],
    by: str = "round_seconds",
) -> Entry | None:
    """Return the quickest of some contenders in a cell."""
    found = [
        e for e in entries
        if (e["model"], e["plants"]) == (model, sites) and e["contender"] in names
        and "failed" not in e
    ]  # fmt: skip
    return min(found, key=lambda e: float(e[by]), default=None)


def seconds(value: float) -> str:
    """Return seconds with two digits that mean something: 0.0098, 0.45, 1.3, 12."""
    for limit, digits in ((0.01, 4), (0.1, 3), (1, 2), (10, 1)):
        if value < limit:
            return f"{value:.{digits}f}"
    return f"{value:.0f}"


def cells(entries: Sequence[Entry]) -> list[tuple[str, int]]:
    """Return the measured cells in the order of models and sizes."""
    found = {(e["model"], e["plants"]) for e in entries}
    return sorted(found, key=lambda cell: (MODELS.index(cell[0]), cell[1]))


def table(entries: Sequence[Entry], columns: dict[str, tuple[str, ...]]) -> str:
    """Return median seconds per round in Markdown; the quickest of a row in bold.

    A column that nobody measured is left out.
    """
    used = {
        title: names for title, names in columns.items()
        if any(e["contender"] in names for e in entries)
    }  # fmt: skip
    lines = [f"| model | sites | {' | '.join(used)} |", "|---|--:|" + "--:|" * len(used)]
    for model, sites in cells(entries):
        row = [best(entries, model, sites, names) for names in used.values()]
        if not any(row):
            continue
        quickest = min(float(e["round_seconds"]) for e in row if e is not None)
        texts = []
        for entry in row:
            text = "–" if entry is None else seconds(entry["round_seconds"])
            if entry is not None and entry["round_seconds"] == quickest:
                text = f"**{text}**"
            texts.append(text)
        lines.append(f"| {model} | {sites:,} | {' | '.join(texts)} |")
    return "\n".join(lines)


def process_table(entries: Sequence[Entry], sites: Sequence[int] = (10, 100)) -> str:
    """Return whole-process seconds and peak memory in Markdown."""
    used = {
        title: names for title, names in COLUMNS.items()
        if any(e["contender"] in names for e in entries)
    }  # fmt: skip
    lines = [f"| model | sites | {' | '.join(used)} |", "|---|--:|" + "--:|" * len(used)]
    for model, count in cells(entries):
        if count not in sites:
            continue
        texts = []
        for names in used.values():
            entry = best(entries, model, count, names, by="process_seconds")
            if entry is None:
                texts.append("–")
                continue
            peak = entry.get("peak_bytes")
            memory = "" if peak is None else f", {peak / 2**20:,.0f} MB"
            texts.append(f"{seconds(entry['process_seconds'])} s{memory}")
        lines.append(f"| {model} | {count:,} | {' | '.join(texts)} |")
    return "\n".join(lines)


def traffic(entries: Sequence[Entry]) -> str:
    """Return in one sentence what a site sends and receives in a round, by model."""
    found = {
        e["model"]: (e["bytes_up"] / e["plants"], e["bytes_down"] / e["plants"])
        for e in sorted(entries, key=lambda e: int(e["plants"])) if e.get("bytes_up")
    }  # fmt: skip
    parts = [
        f"{model} {found[model][0] / 1000:,.0f} and {found[model][1] / 1000:,.0f} kB"
        for model in MODELS if model in found
    ]  # fmt: skip
    return f"A site sends and receives in a round: {', '.join(parts)}." if parts else ""


def origin(stored: dict[str, Any]) -> str:
    """Return in one sentence where numbers were taken, and with what."""
    machine, packages = stored["machine"], dict(stored["versions"].get("ours", {}))
    packages |= {k: v for k, v in stored["versions"].get("pfl", {}).items() if k == "pfl"}
    names = {"flwr": "Flower", "pfl": "pfl-research", "ray": "Ray", "torch": "PyTorch"}
    versions = ", ".join(f"{names[n]} {v}" for n, v in sorted(packages.items()) if n in names)
    where = machine["gpu"] if stored["device"] == "cuda" else machine["processor"]
    return f"{where}; {versions}; {stored['date']}; medians of {stored['repeats']}."


def section(cpu: dict[str, Any] | None, cuda: dict[str, Any] | None) -> str:
    """Return what stands between the page's marks."""
    parts = []
    if cpu is not None:
        rounds = max((e["rounds"] for e in cpu["results"] if "rounds" in e), default=0)
        parts += [
            "Seconds per round, 100 samples a site, batch 32, one epoch, Adam, no evaluation:",
            table(cpu["results"], COLUMNS),
            f"For pfl-research, the faster of one and two processes is shown. {origin(cpu)}",
            f"![{ALT}]({PLOT.relative_to(PAGE.parent).as_posix()})",
            f"Whole process from start to exit, {rounds} rounds, cold, imports included, and peak "
            "memory of all its processes:",
            process_table(cpu["results"]),
            traffic(cpu["results"]),
        ]
    if cuda is not None:
        parts += [
            "On one GPU, seconds per round:",
            table(cuda["results"], GPU_COLUMNS),
            origin(cuda),
        ]
    return "\n\n".join(part for part in parts if part)


def write_page(path: Path, text: str) -> bool:
    """Put the section between its marks; return whether there are such marks."""
    before, found, rest = path.read_text().partition(BEGIN)
    if not found or END not in rest:
        return False
    path.write_text(f"{before}{BEGIN}\n{text}\n{rest[rest.index(END) :]}")
    return True

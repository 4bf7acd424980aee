"""Tables of what ``benchmarks/coverage.py`` measured. Numbers out of bounds are bold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- made by benchmarks/coverage.py -->", "<!-- end -->"
BOUNDS = (0.93, 0.97)
"""Within which a nominal 95 % interval is asked to cover."""
NUMBERS = ("value", "gain", "value, mean of sites", "gain, mean of sites")


def covers(found: Mapping[str, Any]) -> str:
    """Return the table of coverage, and before it how many of the numbers lie within bounds."""
    rows = {tuple(name.split(" | ")): entry for name, entry in found.items() if " | " in name}
    shown: dict[int, list[bool]] = {}
    lines = []
    for (metric, kind, machines, sites), entry in sorted(rows.items(), key=_place):
        parts = []
        for name in NUMBERS:
            share = entry["coverage"].get(name)
            if share is not None:
                shown.setdefault(int(machines), []).append(_fits(share))
            parts.append(_share(share))
        plain = entry["coverage"].get("percentiles")
        none = 1 - max(entry["intervals"].values(), default=0) / entry["trials"]
        width = entry["median_width"].get("value", entry["median_width"].get("gain"))
        parts += ["–" if plain is None else f"{plain:.3f}"]
        parts += ["–" if width is None else f"{width:.3g}", f"{none:.0%}"]
        lines.append(" | ".join((f"| {metric}, {kind}", machines, sites, *parts)) + " |")
    head = [
        "| 95 % intervals hold the truth | machines | sites | value | gain | mean of sites "
        "| its gain | percentiles | width | no interval |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    said = ", ".join(
        f"{sum(fits)} of {len(fits)} with {machines}" for machines, fits in sorted(shown.items())
    )
    return "\n".join([f"Within {BOUNDS[0]} to {BOUNDS[1]} lie {said} machines.", "", *head, *lines])


def twins(found: Mapping[str, Any]) -> str:
    """Return the table of how often an equal predictor is called better or worse."""
    lines = [
        "| equal predictors called surely different | machines | sites | all windows "
        "| mean of sites | any site |",
        "|---|---|---|---|---|---|",
    ]
    rows = {tuple(name.split(" | ")): entry for name, entry in found.items() if " | " in name}
    shares = [0.0]
    for (metric, kind, machines, sites), entry in sorted(rows.items(), key=_place):
        if not entry["twins"]:
            continue
        shares += [p["sure"] / p["judged"] for p in entry["twins"].values() if p["judged"] >= 500]
        parts = [
            f"{part['sure'] / part['judged']:.3f} of {part['judged']}" if part else "–"
            for part in map(entry["twins"].get, ("global", "mean_site", "any site"))
        ]
        lines.append(" | ".join((f"| {metric}, {kind}", machines, sites, *parts)) + " |")
    said = f"Of twins {max(shares):.3f} at most are called surely different (500 or more judged)."
    return "\n".join([said, "", *lines])


def others(found: Mapping[str, Any]) -> str:
    """Return the paired test's table, and how unlike machines are."""
    laws: dict[str, dict[str, float]] = {}
    for name, entry in found.items():
        if "false_claims" in entry:
            law, pairs = name.removeprefix("paired test, ").rsplit(", ", 1)
            laws.setdefault(law, {})[pairs] = entry["false_claims"]
    pairs = list(dict.fromkeys(pair for row in laws.values() for pair in row))
    lines = [
        f"| paired test calls equal settings different | {' | '.join(pairs)} |",
        "|---" * (len(pairs) + 1) + "|",
        *(f"| {law} | {' | '.join(f'{row[p]:.3f}' for p in pairs)} |" for law, row in laws.items()),
    ]
    spread = {
        f"{name.split(' | ')[1]}": entry["truth"]["unlike"]
        for name, entry in found.items()
        if "unlike" in entry.get("truth", {})
    }
    if engines := found.get("engines of C-MAPSS", {}).get("unlike"):
        least, most = min(engines.values()), max(engines.values())
        lines += ["", "Variance of machines' mean squared errors, over their mean squared: "
                  + ", ".join(f"{name} {value:.1f}" for name, value in spread.items())
                  + f"; boosted trees on the engines of the four parts of C-MAPSS {least:.1f} to "
                  f"{most:.1f}."]  # fmt: skip
    return "\n".join(lines)


def show(found: Mapping[str, Any]) -> str:
    """Return the numbers as lines for a terminal."""
    lines = []
    for name, entry in found.items():
        if "coverage" in entry:
            said = "  ".join(f"{key} {share:.3f}" for key, share in entry["coverage"].items())
            lines.append(f"{name}: {said}")
        else:
            lines.append(f"{name}: {entry.get('false_claims', entry.get('unlike'))}")
    return "\n".join(lines)


def tables(found: Mapping[str, Any]) -> str:
    """Return all tables."""
    return "\n\n".join(table(found) for table in (covers, twins, others))


def rewrite(page: Path, found: Mapping[str, Any]) -> None:
    """Put the tables between the marks of a page."""
    head, rest = page.read_text().split(BEGIN)
    page.write_text(f"{head}{BEGIN}\n{tables(found)}\n{END}{rest.split(END, 1)[1]}")


def _place(row: tuple[tuple[str, ...], Any]) -> tuple[Any, ...]:
    metric, kind, machines, sites = row[0]
    return metric, int(machines), int(sites), kind


def _fits(share: float) -> bool:
    return BOUNDS[0] <= round(share, 3) <= BOUNDS[1]


def _share(share: float | None) -> str:
    if share is None:
        return "–"
    return f"{share:.3f}" if _fits(share) else f"**{share:.3f}**"

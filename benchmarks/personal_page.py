"""The table of ``docs/personalisation.md``, from the stored numbers of ``benchmarks.personal``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, Protocol

from scipy.stats import t as student

from benchmarks.predictions.runs import ROOT

PAGE = ROOT / "docs" / "personalisation.md"
BEGIN, END = "<!-- measured by benchmarks.personal -->", "<!-- end -->"
LEAST = 6
"""Seeds from which on an interval is given."""
TITLES = {
    "ai4i": "AI4I by product type (3 sites)",
    "unchanging": "Generated fleet, sites that never change (2 sites)",
    "fleet": "Generated fleet, sites that change half-way (2 sites)",
    "fedcmapss_b": "FedCMAPSS B (one subset per site)",
    "fedcmapss_c": "FedCMAPSS C (FD004 by life)",
    "fedcmapss_d": "FedCMAPSS D (FD004 by operating condition)",
}


class Described(Protocol):
    """What is asked of a benchmark's data."""

    @property
    def seeds(self) -> tuple[int, ...]: ...
    @property
    def metric(self) -> str: ...


def page(stored: Mapping[str, Any], data: Mapping[str, Described]) -> str:
    """Return the page with a new table; the rest stays as it was."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    parts = [part for name in data for part in _table(name, stored.get(name, {}), data[name])]
    return f"{before}{BEGIN}\n\n" + "\n".join(parts) + f"\n{END}{after}"


def _table(name: str, found: Mapping[str, Any], data: Described) -> list[str]:
    average = found.get("fedavg", {}).get("seeds", {})
    if not average:
        return [f"**{TITLES[name]}**: not measured yet.", ""]
    sign, unit = (-1.0, "RMSE") if data.metric == "rmse" else (1.0, "average precision")
    seeds = sorted({seed for each in found.values() for seed in each["seeds"]}, key=int)
    missing = sorted(set(map(str, data.seeds)) - set(seeds), key=int)
    lines = [
        f"**{TITLES[name]}**, {unit}, mean of the sites; seeds {', '.join(seeds)}"
        + (f" (not yet: {', '.join(missing)})" if missing else ""),
        "",
        "| | score | against FedAvg | against the best alone | worst site against it |",
        "|---|--:|--:|--:|--:|",
    ]
    for method in sorted(found, key=lambda name: name != "fedavg"):  # the others in their order
        own = found[method]["seeds"]
        if not own:
            continue
        gains = {"fedavg": [], "best": [], "worst": []}  # type: ignore[var-annotated]
        for seed, entry in own.items():
            if seed not in average:
                continue
            best = average[seed].get("best_alone") or average[seed]["alone"]
            gains["fedavg"] += _gap(
                entry["federated"]["mean"], average[seed]["federated"]["mean"], sign
            )
            gains["best"] += _gap(entry["federated"]["mean"], best["mean"], sign)
            per_site = [
                gap
                for site, value in entry["federated"]["sites"].items()
                for gap in _gap(value, best["sites"].get(site), sign)
            ]
            gains["worst"] += [min(per_site)] if per_site else []
        score = fmean(entry["federated"]["mean"] for entry in own.values())
        cells = ["–" if method == "fedavg" else _said(gains["fedavg"])]
        cells += [_said(gains["best"]), _said(gains["worst"])]
        lines.append(f"| {method} | {score:.3f} | {' | '.join(cells)} |")
    for kind in ("best_alone", "alone", "hgb_alone"):
        known = [each[kind]["mean"] for each in average.values() if kind in each]
        if known:
            lines.append(f"| *{kind.replace('_', ' ')}* | {fmean(known):.3f} | | | |")
    return [*lines, ""]


def _gap(value: float | None, other: float | None, sign: float) -> list[float]:
    return [] if value is None or other is None else [sign * (value - other)]


def _said(gains: Sequence[float]) -> str:
    """Return the mean of paired differences, with a 95 % interval where there are enough."""
    if not gains:
        return "–"
    told = f"{fmean(gains):+.3f}".replace("-", "−")
    if len(gains) < LEAST:
        return told
    half = float(student.ppf(0.975, len(gains) - 1)) * stdev(gains) / len(gains) ** 0.5
    return f"{told} ± {half:.3f}"

"""Is the best federated method at least as good as the best alone? A line of docs/evidence.md each.

The strongest of the three columns alone stands against it, by its mean on test data, which no site
could know. Differences are paired by seed (by fold), plus is better, with 95 % of Student's t.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from scipy.stats import t as student

from benchmarks.predictions.experiments import EXPERIMENTS
from benchmarks.predictions.runs import ROOT

RESULTS = ROOT / "benchmarks" / "results"
ALONE = {"alone": "network alone", "hgb_alone": "trees alone", "best_alone": "best alone"}
FOLDS = "ai4i_fold_"
PERSONAL = {"fleet_chosen": "fleet", "fleet_unchanging": "unchanging", "ai4i": "ai4i",
            "fedcmapss_b": "fedcmapss_b", "fedcmapss_c": "fedcmapss_c",
            "fedcmapss_d": "fedcmapss_d"}  # fmt: skip
"""What ``benchmarks.personal`` calls an experiment; its scores are means of sites."""
TREES = {f"rul_fd00{n}": f"FD00{n}" for n in range(1, 5)}
"""What ``benchmarks.trees`` calls an experiment."""
KNOWN = {"fedcmapss_c": "sites are cut by the life of their engines, which a site alone knows"}
"""Causes that lie in how sites are made."""
FEWEST = 5
"""Pairs from which on an interval is given."""

Pairs = Sequence[float]


def table(stored: Mapping[str, Any]) -> str:
    """Return the table in Markdown, and below it what was not measured.

    Args:
        stored: results by experiment (``tables.current``).
    """
    personal, trees = (
        json.loads((RESULTS / f"{name}.json").read_text()) for name in ("personal", "trees")
    )
    lines: list[str] = []
    unmeasured = []
    for name, found in folded(stored).items():
        if name.startswith("shuffled"):
            continue
        rows = [row(name, found, scope, personal, trees) for scope in ("global", "mean_site")]
        known = [each for each in rows if each]
        lines += known
        if not known:
            unmeasured.append(found["title"])
    return "\n".join([
        "| experiment | strongest alone | federated against it | other federated methods "
        "| if not ahead, why |",
        "|---|---|---|---|---|", *lines, "",
        f"No site was trained alone beside: {'; '.join(unmeasured)}.",
    ])  # fmt: skip


def folded(stored: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return results with titles, all folds of AI4I as one experiment."""
    found: dict[str, dict[str, Any]] = {}
    for name, one in stored.items():
        if not name.startswith(FOLDS):
            found[name] = one | {"title": EXPERIMENTS[name].title}
            continue
        whole = found.setdefault("ai4i_folds", {
            "title": "AI4I, stratified, five folds, AP", "metric": one["metric"],
            "gain_over_alone": {}, "global": {}, "mean_site": {},
        })  # fmt: skip
        parts = [(whole[scope], one[scope]) for scope in ("global", "mean_site")]
        for into, part in [*parts, (whole["gain_over_alone"], one["gain_over_alone"])]:
            for arm, values in part.items():
                into.setdefault(arm, {"values": []})["values"] += values["values"]
    return found


def row(name: str, found: Mapping[str, Any], scope: str, personal: Any, trees: Any) -> str | None:
    """Return a line of the table; None where no site was trained alone."""
    sign, digits = (-1.0, 2) if found["metric"] == "rmse" else (1.0, 3)
    arms = {arm: part["values"] for arm, part in found[scope].items()}
    others = beside(name, scope, personal, trees, sign, digits)
    kinds = {arm: mean for arm in ALONE if (mean := mean_of(arms.get(arm, ()))) is not None}
    where = ", mean of sites" if scope == "mean_site" else ""
    if not kinds:
        if not others:
            return None
        said, cell, gained = "–", "–", []
    else:
        best = max(kinds, key=lambda arm: sign * kinds[arm])
        pairs = gaps(arms["federated"], arms[best], sign)
        said, cell = f"{ALONE[best]} {kinds[best]:.{digits}f}", gain_of(pairs, digits)
        gained = [fmean(pairs)]
    ahead = max([*gained, *(gain for _, gain in others)]) >= 0
    reason = "" if ahead else why(name, found, scope, sign, digits)
    told = "; ".join(text for text, _ in others) or "–"
    return f"| {found['title']}{where} | {said} | {cell} | {told} | {reason} |"


def beside(
    name: str, scope: str, personal: Any, trees: Any, sign: float, digits: int
) -> list[tuple[str, float]]:
    """Return other federated methods with their mean gain over the best alone: text and gain."""
    found = []
    methods = personal.get(PERSONAL.get(name, ""), {}) if scope == "mean_site" else {}
    if methods:
        average = methods["fedavg"]["seeds"]
        each = {
            method: gaps(
                [entry["federated"]["mean"] for entry in own["seeds"].values()],
                [(average[seed].get("best_alone") or average[seed]["alone"])["mean"]
                 for seed in own["seeds"]], sign,
            )
            for method, own in methods.items() if method != "fedavg"
        }  # fmt: skip
        most = max(map(len, each.values()))
        method = max((m for m in each if len(each[m]) == most), key=lambda m: fmean(each[m]))
        found.append(
            (f"{method} {gain_of(each[method], digits)} over the best alone", fmean(each[method]))
        )
    if scope == "global" and (own := trees.get(TREES.get(name, ""))):
        scores = [seed["rmse"] for seed in own["seeds"].values()]
        pairs = gaps([s["federated"] for s in scores], [s["alone"] for s in scores], sign)
        found.append((f"federated trees {gain_of(pairs, digits)} over trees alone", fmean(pairs)))
    return found


def why(name: str, found: Mapping[str, Any], scope: str, sign: float, digits: int) -> str:
    """Return what the measured numbers say of a federation that is behind."""
    arms = {arm: mean_of(part["values"]) for arm, part in found[scope].items()}
    kinds = {arm: mean for arm in ALONE if (mean := arms.get(arm)) is not None}
    said = [KNOWN[name]] if name in KNOWN else []
    if kinds:
        best = max(kinds, key=lambda arm: sign * kinds[arm])
        pooled, network = arms.get("pooled"), kinds.get("alone")
        if pooled is not None and sign * (pooled - kinds[best]) <= 5 * 10.0 ** -(digits + 1):
            said.append(
                f"the same network on pooled rows is not ahead either ({pooled:.{digits}f})"
            )
        if best == "hgb_alone" and network is not None:
            said.append(
                f"trees suit these rows better than the network (alone {kinds[best]:.{digits}f} "
                f"to {network:.{digits}f})"
            )
        sites = {site: mean_of(part["values"]) for site, part in found["gain_over_alone"].items()}
        each = [
            f"{site} {signed(gain, digits)}" for site, gain in sites.items() if gain is not None
        ]
        said.append(f"against the best alone of each site: {', '.join(each)}")
    elif (shared := arms.get("hgb")) is not None:
        said.append(f"boosted trees on pooled rows reach no more than {shared:.{digits}f}")
    return "; ".join(said)


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean of the known values; None without any."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def gaps(ours: Sequence[float], theirs: Sequence[float], sign: float) -> list[float]:
    """Return differences by seed; plus is better for ours."""
    return [sign * (a - b) for a, b in zip(ours, theirs, strict=True) if None not in (a, b)]


def gain_of(pairs: Pairs, digits: int) -> str:
    """Return the mean of differences, with an interval or, of few pairs, their number."""
    told = signed(fmean(pairs), digits)
    if len(pairs) < FEWEST:
        return f"{told} ({len(pairs)} seed{'s' if len(pairs) > 1 else ''})"
    half = float(student.ppf(0.975, len(pairs) - 1)) * stdev(pairs) / len(pairs) ** 0.5
    low, high = (signed(fmean(pairs) + end, digits) for end in (-half, half))
    return f"{told} ({low} to {high})"


def signed(value: float, digits: int) -> str:
    """Return a number with its sign."""
    return f"{value:+.{digits}f}".replace("-", "−")

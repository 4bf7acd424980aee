"""The page and the picture of ``benchmarks/when.py``, from its results alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from fedpdm.comparison.statistics import Effect, effect

FACTORS = {
    "change_day": "day of the change",
    "sites": "sites",
    "machines": "machines a site",
    "feature_shift": "shift of sensors between sites",
}
COLUMNS = {
    "federated": "federated", "best_alone": "best alone", "pooled": "pooled network",
    "hgb": "pooled trees",
}  # fmt: skip
TITLE = "# When federation helps\n"
NOTE = """
Made by `python -m benchmarks.when` from `benchmarks/results/when.json`: generated fleets,
average precision, mean of the sites, network and settings of `experiment=fleet`. *Best alone*
is the best kind of model that a site has by itself, in the mean of a fleet: the network,
boosted trees, or the one that its own validation data chooses. *Gain* is the federation's
against it, paired by seed, with the 95 % interval of Student's t over the seeds; it is *sure*
where that leaves 0 out, which one fleet in twenty does by chance. *Change*: the day from which
on repaired machines have other weak parts; never: they keep them. *Shift*: how far a sensor
reads beside another site's, in spreads. Two seeds of one fleet say little; the table by what was
varied has many fleets at each level, and its interval is Student's t over their mean gains. Fleets
share seeds, so it is somewhat too narrow.
"""


def best_kind(cell: Mapping[str, Any]) -> str:
    """Return which kind of model alone has the best mean, or the one that validation chooses."""
    found = {
        kind: [v for seed in cell["seeds"].values() if (v := seed.get(kind)) is not None]
        for kind in ("best_alone", "alone", "hgb_alone")
    }
    return max(found, key=lambda kind: fmean(found[kind]) if found[kind] else -1.0)


def gain(cell: Mapping[str, Any], other: str | None = None) -> Effect | None:
    """Return the federation's gain, paired by seed; None without seeds.

    Args:
        cell: a fleet and its scores.
        other: the predictor it is measured against; None: the best kind alone.
    """
    other = other or best_kind(cell)
    pairs = [
        values["federated"] - values[other]
        for values in cell["seeds"].values()
        if values.get("federated") is not None and values.get(other) is not None
    ]
    return effect(np.array(pairs)) if pairs else None


def verdict(cell: Mapping[str, Any]) -> str | None:
    """Return better, worse or unsure; None where one seed alone says nothing."""
    found = gain(cell)
    if found is None or found.low is None or found.high is None:
        return None
    return "better" if found.low > 0 else "worse" if found.high < 0 else "unsure"


def opening(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return in plain words where the federation helps and where not."""
    judged = [(cell, said) for cell in cells if (said := verdict(cell))]
    if not judged:
        return "Nothing is known yet: it takes two seeds of a cell, and there is none."
    counts = {word: [c for c, said in judged if said == word] for word in ("better", "worse")}
    unsure = len(judged) - sum(map(len, counts.values()))
    lines = [
        f"Of {len(judged)} fleets the federation is surely better than the best model that a site "
        f"has by itself in {len(counts['better'])}, surely worse in {len(counts['worse'])}, and in "
        f"{unsure} it could be chance."
    ]
    over = effect(np.array([_mean(gain(cell)) for cell, _ in judged]))
    lines.append(
        f"Over all fleets the mean gain is {_signed(over)} (95 % over the fleets: "
        f"{_between(over)})."
    )
    for word, chosen in counts.items():
        parts = [part for factor in FACTORS if (part := _only(factor, chosen, judged))]
        if chosen and parts:
            lines.append(f"It is surely {word} only with {' and '.join(parts)}.")
    ordered = sorted((cell for cell, _ in judged), key=lambda cell: _mean(gain(cell)))
    most, least = ordered[-1], ordered[0]
    lines.append(
        f"The largest gain is {_signed(gain(most))} with {described(most)}; the smallest "
        f"{_signed(gain(least))} with {described(least)}."
    )
    pooled = [g.mean for cell in cells if (g := gain(cell, "pooled"))]
    if pooled:
        lines.append(
            f"Against the same network on pooled data it is {fmean(pooled):+.3f} on average."
        )
    trees = [g.mean for cell in cells if (g := gain(cell, "hgb"))]
    if trees:
        lines.append(f"Against boosted trees on pooled data it is {fmean(trees):+.3f} on average.")
    return "\n".join(lines)


def described(cell: Mapping[str, Any]) -> str:
    """Return a cell in words."""
    day = cell["change_day"]
    change = "no change" if day is None else f"a change on day {day}"
    return (
        f"{change}, {cell['sites']} sites, {cell['machines']} machines each and a shift of "
        f"{cell['feature_shift']:g}"
    )


def by_factor(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of mean gains by what was varied; one row a level."""
    lines = [
        "| varied | level | fleets | mean gain | 95 % over the fleets | surely better "
        "| surely worse |",
        "|---|---|---|---|---|---|---|",
    ]
    for factor, title in FACTORS.items():
        for level in _levels(factor, cells):
            own = [cell for cell in cells if cell[factor] == level]
            known = [found.mean for cell in own if (found := gain(cell))]
            said = [verdict(cell) for cell in own]
            over = effect(np.array(known)) if known else None
            lines.append(
                f"| {title} | {_level(level)} | {len(own)} | {_signed(over)} | {_between(over)} "
                f"| {said.count('better')} | {said.count('worse')} |"
            )
    return "\n".join(lines)


def by_cell(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of all cells."""
    lines = [
        f"| change | sites | machines | shift | {' | '.join(COLUMNS.values())} "
        "| gain | 95 % | seeds |",
        "|---" * (len(FACTORS) + len(COLUMNS) + 3) + "|",
    ]
    for cell in cells:
        parts = [_level(cell[factor]) for factor in FACTORS]
        for column in COLUMNS:
            name = best_kind(cell) if column == "best_alone" else column
            known = [v[name] for v in cell["seeds"].values() if v.get(name) is not None]
            parts.append(f"{fmean(known):.3f}" if known else "–")
        found, said = gain(cell), verdict(cell)
        mean = _signed(found)
        parts += [f"**{mean}**" if said in ("better", "worse") else mean, _between(found)]
        lines.append(f"| {' | '.join((*parts, str(len(cell['seeds']))))} |")
    return "\n".join(lines)


def page(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return the whole page."""
    parts = [TITLE, opening(cells)]
    if cells:
        parts += ["\n![gain over the best model alone, by fleet](img/when.svg)", NOTE.rstrip()]
        parts += [
            "\n## By what was varied\n",
            by_factor(cells),
            "\n## All fleets\n",
            by_cell(cells),
        ]
    else:
        parts.append(NOTE.rstrip())
    return "\n".join(parts) + "\n"


def draw(cells: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw gains and their intervals as SVG, the same bytes for the same results.

    A panel for each number of sites and shift; days of the change to the right, a marker for
    each number of machines.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "fedpdm"
    import matplotlib.pyplot as plt

    panels = sorted({(cell["feature_shift"], cell["sites"]) for cell in cells})
    days, machines = _levels("change_day", cells), _levels("machines", cells)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2.2 * len(panels) + 1.2, 3.4), sharey=True, squeeze=False
    )
    for axis, (shift, sites) in zip(axes[0], panels, strict=True):
        axis.axhline(0, color="#999999", linewidth=0.8)
        for place, number in enumerate(machines):
            chosen = [
                (days.index(cell["change_day"]), found) for cell in cells
                if (cell["feature_shift"], cell["sites"]) == (shift, sites)
                and cell["machines"] == number and (found := gain(cell))
            ]  # fmt: skip
            for x, found in chosen:
                at = x + 0.2 * (place - (len(machines) - 1) / 2)
                colour, marker = ("#0072b2", "#d55e00", "#009e73")[place % 3], "os^"[place % 3]
                if found.low is not None:
                    axis.plot([at, at], [found.low, found.high], color=colour, linewidth=1)
                axis.plot(at, found.mean, marker, color=colour, markerfacecolor="white")
        axis.set_xticks(range(len(days)), [_level(day) for day in days])
        axis.set(title=f"{sites} sites, shift {shift:g}", xlabel="day of the change",
                 xlim=(-0.6, len(days) - 0.4))  # fmt: skip
        axis.title.set_fontsize(9)
    axes[0][0].set_ylabel("gain in average precision")
    handles = [
        plt.Line2D([], [], color=("#0072b2", "#d55e00", "#009e73")[k % 3], marker="os^"[k % 3],
                   markerfacecolor="white", linestyle="None", label=f"{number} machines a site")
        for k, number in enumerate(machines)
    ]  # fmt: skip
    figure.legend(
        handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=8
    )
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _only(
    factor: str, chosen: Sequence[Mapping[str, Any]], judged: Iterable[tuple[Any, str]]
) -> str | None:
    """Return the one level that all chosen cells have, if others were judged too."""
    own = _levels(factor, chosen)
    if len(own) != 1 or len(_levels(factor, [cell for cell, _ in judged])) == 1:
        return None
    return f"{FACTORS[factor]}: {_level(own[0])}"


def _levels(factor: str, cells: Sequence[Mapping[str, Any]]) -> list[Any]:
    return sorted(
        {cell[factor] for cell in cells}, key=lambda level: (level is not None, level or 0)
    )


def _level(level: float | None) -> str:
    return "never" if level is None else f"{level:g}"


def _mean(found: Effect | None) -> float:
    return found.mean if found is not None else 0.0


def _between(found: Effect | None) -> str:
    if found is None or found.low is None or found.high is None:
        return "–"
    return f"{found.low:+.3f} to {found.high:+.3f}"


def _signed(found: Effect | None) -> str:
    return "–" if found is None else f"{found.mean:+.3f}"

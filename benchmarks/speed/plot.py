"""The plot of seconds per round against sites."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.report import COLUMNS, best
from benchmarks.speed.work import MODELS

# Markers, dashes and brightness differ, so lines can be told apart without colour.
STYLES = {
    "bare loop": ("#000000", ":", "None"),
    "serial": ("#0072b2", "-", "o"),
    "ray, 2 workers": ("#009e73", "-", "s"),
    "batched": ("#d55e00", "-", "^"),
    "batched, 2 workers": ("#f0e442", "-", "v"),
    "auto": ("#444444", (0, (1, 1)), "x"),
    "Flower, 2 actors": ("#999999", "--", "D"),
    "pfl-research": ("#cc79a7", "-.", "v"),
}


def points(
    entries: Sequence[dict[str, Any]], model: str, names: Sequence[str]
) -> list[tuple[int, float]]:
    """Return (sites, seconds per round) of a line, by sites."""
    sizes = sorted({e["plants"] for e in entries if e["model"] == model})
    found = ((n, best(entries, model, n, names)) for n in sizes)
    return [(n, float(entry["round_seconds"])) for n, entry in found if entry is not None]


def draw(entries: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the plot as SVG, the same bytes for the same entries."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "fedpdm"
    import matplotlib.pyplot as plt

    models = [m for m in MODELS if any(e["model"] == m for e in entries)]
    figure, axes = plt.subplots(
        1, len(models), figsize=(3.0 * len(models) + 1.0, 3.6), sharey=True, squeeze=False
    )
    for axis, model in zip(axes[0], models, strict=True):
        for title, names in COLUMNS.items():
            line = points(entries, model, names)
            if not line:
                continue
            colour, dashes, marker = STYLES[title]
            axis.plot(*zip(*line, strict=True), color=colour, linestyle=dashes, marker=marker,
                      markersize=5, markerfacecolor="white", label=title)  # fmt: skip
        axis.set(title=model, xscale="log", yscale="log", xlabel="sites")
        axis.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes[0][0].set_ylabel("seconds per round")
    handles: dict[str, Any] = {}
    for axis in axes[0]:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=len(handles),
                  frameon=False, fontsize=8)  # fmt: skip
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)

"""The tables of README.md and docs/evidence.md, written between their marks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.predictions import against_alone, targets
from benchmarks.predictions.experiments import EXPERIMENTS, Experiment

ARMS = {"trivial": "trivial", "alone": "alone", "hgb_alone": "trees alone",
        "best_alone": "best alone", "federated": "federated", "pooled": "pooled",
        "hgb": "trees", "minirocket": "MiniRocket", "rules": "rules"}  # fmt: skip
BEGIN, END = "<!-- made by benchmarks/evidence.py -->", "<!-- end -->"
IN_README = ("fleet_chosen", "fleet_unchanging", "ai4i", "failure_fd001", "rul_fd001")
ARMS_IN_README = ("trivial", "best_alone", "federated", "pooled", "hgb", "rules")


def scores(
    stored: Mapping[str, Any],
    names: tuple[str, ...] = tuple(EXPERIMENTS),
    shown: tuple[str, ...] = tuple(ARMS),
) -> str:
    """Return a table of the shown predictors on the named experiments, in Markdown.

    A predictor that none of them has gets no column.
    """
    stored = current(stored)
    names = tuple(name for name in names if name in stored)
    parts = [stored[name][scope] for name in names for scope in EXPERIMENTS[name].scopes]
    arms = {
        arm: title for arm, title in ARMS.items() if arm in shown
        if arm == "federated" or any(has(part.get(arm)) for part in parts)
    }  # fmt: skip
    lines = [
        f"| experiment | {' | '.join(arms.values())} | seeds |",
        "|---|" + "---|" * (len(arms) + 1),
    ]
    for name in names:
        experiment, found = EXPERIMENTS[name], stored[name]
        digits = 2 if found["metric"] == "rmse" else 3
        for scope in experiment.scopes:
            cells = []
            for arm in arms:
                cell = cell_of(found[scope].get(arm), digits, arm != "trivial")
                cells.append(f"**{cell}**" if arm == "federated" else cell)
            where = ", mean of sites" if scope == "mean_site" else ""
            row = f"{experiment.title}{where} | {' | '.join(cells)} | {len(found['seeds'])}"
            lines.append(f"| {row} |")
    return "\n".join(lines)


def is_of(experiment: Experiment, found: Mapping[str, Any]) -> bool:
    """Return whether results were made by the experiment as it is now."""
    command: str = found["command"]
    return command == " ".join(("python -m fedpdm.simulate", *experiment.overrides))


def current(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results that were made by the experiments as they are now."""
    known = {name: stored[name] for name in EXPERIMENTS if name in stored}
    return {name: found for name, found in known.items() if is_of(EXPERIMENTS[name], found)}


def has(found: Mapping[str, Any] | None) -> bool:
    """Return whether there is a value."""
    return found is not None and found["mean"] is not None


def cell_of(found: Mapping[str, Any] | None, digits: int, spread: bool) -> str:
    """Return ``mean ± deviation``; a dash where there is nothing."""
    if found is None or not has(found):
        return "–"
    cell = f"{found['mean']:.{digits}f}"
    return cell + (f" ± {found['sd']:.{digits}f}" if spread and found["sd"] else "")


def write(root: Path, stored: Mapping[str, Any]) -> None:
    """Put the tables between the marks of README.md and docs/evidence.md."""
    replace(root / "README.md", [scores(stored, IN_README, ARMS_IN_README)])
    known = current(stored)
    parts = [targets.as_markdown(known), scores(stored), against_alone.table(known)]
    replace(root / "docs" / "evidence.md", parts)


def replace(path: Path, tables: list[str], begin: str = BEGIN) -> None:
    """Replace what stands between each pair of marks."""
    head, *parts = path.read_text().split(begin)
    if len(parts) != len(tables):
        raise SystemExit(f"{path.name} must have {len(tables)} marks {begin}")
    rest = [part.split(END, 1)[1] for part in parts]
    text = head + "".join(
        f"{begin}\n{table}\n{END}{after}" for table, after in zip(tables, rest, strict=True)
    )
    path.write_text(text)

"""The report on predicted risks and predicted lives: do they mean what they say?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedpdm.evaluation.wording import MISSING, metric, number, percent
from fedpdm.report.curves import coverage, reliability
from fedpdm.tasks import TASKS, Failure, Task

Record = Mapping[str, Any]

NAMED = 24
"""Up to this many sites have a line in the plot of coverage."""
NOT_HERE = "This run holds no numbers about calibration."
HOW = {
    "none": "Risks are as the model gives them (evaluate.calibration=none).",
    "temperature": "Risks were calibrated by a temperature, fitted on validation machines",
    "isotonic": "Risks were calibrated by isotonic regression, fitted on validation machines",
}


def task_of(summary: Record) -> type[Task]:
    """Return the class of a run's task; ``Failure`` for one that is not known here."""
    return TASKS.get(str(summary.get("task")), Failure)


def calibration_section(summary: Record) -> dict[str, Any]:
    """Return what the template shows of calibration; ``reason`` alone where there is none."""
    tested = summary.get("test") or {}
    found = tested.get("calibration")
    curves = {key: points for key, points in (tested.get("reliability") or {}).items() if points}
    if not found or not curves:
        task = task_of(summary)
        without = f"This task {task.predicts} and gives no risk, so there is nothing to calibrate."
        return {"reason": NOT_HERE if task.gives_risks() else without}
    unit = ((tested.get("alarms") or {}).get("time_unit")) or ""
    colours = {
        key: "federated" if len(curves) == 1 else f"site-{i % 6}" for i, key in enumerate(curves)
    }
    sizes = {round(p["n"]) for points in curves.values() for p in points}
    each = number(max(sizes), 0) if max(sizes) - min(sizes) <= 1 else None
    return {
        "reason": None,
        "how": _how(found),
        "plot": reliability(curves, colours),
        "legend": [(_named(key, unit), colours[key]) for key in curves] if len(curves) > 1 else [],
        "each": each,
        "quality": _quality(found, unit),
        "heads": ["Brier, before", "after", "ECE, before", "after"]
        if found.get("fitted")
        else ["Brier score", "Calibration error (ECE)"],
        "bins": [
            (
                _named(key, unit),
                [
                    (
                        f"{percent(p.get('low'))} to {percent(p.get('high'))}",
                        number(p.get("n"), 0),
                        percent(p.get("score")),
                        percent(p.get("share")),
                    )
                    for p in points
                ],
            )
            for key, points in curves.items()
        ],
    }


def _how(found: Record) -> str:
    method = str(found.get("method") or "none")
    text = HOW.get(method, f"Calibration: {method}.")
    if method == "none" or method not in HOW:
        return text
    if not found.get("fitted"):
        return f"Risks were to be calibrated ({method}), but validation data did not allow it."
    if found.get("temperature") is not None:
        text += f" ({number(found['temperature'], 2)}; above 1 makes risks more cautious)"
    return text + "."


def _quality(found: Record, unit: str) -> list[list[str]]:
    """Return rows: which risk, Brier score and calibration error, before and after if fitted."""
    rows = []
    fitted = bool(found.get("fitted"))
    for key, after in (found.get("after") or {}).items():
        before = (found.get("before") or {}).get(key) or {}
        pairs = (before, after) if fitted else (after,)
        rows.append([
            _named(key, unit),
            *(number(part.get("brier"), 4) for part in pairs),
            *(percent(part.get("ece")) for part in pairs),
        ])  # fmt: skip
    return rows


def _named(key: str, unit: str) -> str:
    return "Risk" if key == "label" else f"Risk within {key} {unit}".rstrip()


LIFE = ("rmse", "rmse_uncapped", "mae", "nasa_score", "nasa_score_mean")


def life_section(summary: Record) -> dict[str, Any]:
    """Return what the template shows of remaining life; ``reason`` alone for other tasks."""
    tested = summary.get("test") or {}
    task = task_of(summary)
    if not task.lives:
        return {"reason": f"This task {task.predicts}, not the remaining life."}
    intervals = tested.get("intervals") or {}
    names = [name for name in LIFE if name in (tested.get("global") or {})]
    parts = intervals.get("per_site") or {}
    per_site = tested.get("per_site") or {}
    level = intervals.get("level")
    drawable = [(n, p) for n, p in parts.items() if p.get("coverage") is not None]
    return {
        "reason": None,
        "unit": (summary.get("data") or {}).get("time_unit") or "",
        "heads": [metric(name).short for name in names],
        "level": percent(level, 0),
        "said": _said(intervals, (summary.get("data") or {}).get("time_unit") or ""),
        "rows": [
            (name, [number((part or {}).get(k), metric(k).digits) for k in names],
             _covered(parts.get(name) or {}))
            for name, part in per_site.items()
        ],
        "all": (
            [number(tested["global"].get(k), metric(k).digits) for k in names],
            _covered(intervals),
        ),
        "plot": coverage(drawable, level)
        if level is not None and 0 < len(drawable) <= NAMED
        else None,
    }  # fmt: skip


def _covered(part: Record) -> list[str]:
    ends = part.get("coverage_interval")
    return [
        percent(part.get("coverage"), 0),
        f"{percent(ends[0], 0)} to {percent(ends[1], 0)}" if ends else MISSING,
        number(part.get("width"), 1),
        number(part.get("n"), 0),
    ]


def _said(found: Record, unit: str) -> str:
    if not found or found.get("coverage") is None:
        return "This run has no intervals of remaining life."
    level, share, ends = found["level"], found["coverage"], found.get("coverage_interval")
    text = (
        f"Beside each predicted life stands an interval that promises to hold the true life in "
        f"{percent(level, 0)} of the cases. On test data it held {percent(share, 0)}"
    )
    if ends:
        verdict = (
            "as promised" if ends[0] <= level <= ends[1]
            else "more often than promised" if share > level else "less often than promised"
        )  # fmt: skip
        text += f" ({percent(ends[0])} to {percent(ends[1])} by the luck of the test): "
        text += verdict
    text += f". It is {number(found.get('width'), 1)} {unit} wide on average."
    if found.get("reason"):
        text += f" {str(found['reason'])[:1].upper()}{str(found['reason'])[1:]}."
    return text

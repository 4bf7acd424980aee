"""Section on calibration: do predicted risks and predicted lives mean what they say?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedpdm.evaluation.wording import MISSING, metric, number, percent
from fedpdm.report.curves import coverage, reliability
from fedpdm.report.gain_table import part_of
from fedpdm.report.plots import LISTED
from fedpdm.report.sections import Page, register_section
from fedpdm.tasks import TASKS, Failure, Task

Record = Mapping[str, Any]

HOW = {
    "none": "Risks are as the model gives them (evaluate.calibration=none).",
    "temperature": "Risks were calibrated by a temperature, fitted on validation machines",
    "isotonic": "Risks were calibrated by isotonic regression, fitted on validation machines",
}


def task_of(summary: Record) -> type[Task]:
    """Return the class of a run's task; ``Failure`` for one that is not known here."""
    return TASKS.get(str(summary.get("task")), Failure)


@register_section(
    "quality",
    template="report_quality.html.j2",
    links={"calibration": "Calibration", "life": "Remaining life"},
    order=30,
)
def _quality(page: Page) -> dict[str, Any]:
    """Return whether predicted risks and lives mean what they say."""
    return {"calibration": calibration(page.summary), "life": life(page.summary)}


def calibration(summary: Record) -> dict[str, Any] | None:
    """Return what the template shows of calibration; None where there is none."""
    tested = summary.get("test") or {}
    found = tested.get("calibration")
    curves = {key: points for key, points in (tested.get("reliability") or {}).items() if points}
    if not found or not curves:
        return None
    unit = part_of(tested, "alarms", "time_unit") or ""
    names = {key: _named(key, unit) for key in (*curves, *(found.get("after") or {}))}
    colours = {
        key: "federated" if len(curves) == 1 else f"site-{i % 6}" for i, key in enumerate(curves)
    }
    sizes = {round(p["n"]) for points in curves.values() for p in points}
    return {
        "how": _how(found),
        "plot": reliability(curves, colours),
        "legend": [(names[key], colours[key]) for key in curves] if len(curves) > 1 else [],
        "each": number(max(sizes), 0) if max(sizes) - min(sizes) <= 1 else None,
        "quality": _scores(found, names),
        "heads": ["Brier, before", "after", "ECE, before", "after"]
        if found.get("fitted")
        else ["Brier score", "Calibration error (ECE)"],
        "bins": [(names[key], [_bin(p) for p in points]) for key, points in curves.items()],
    }


def _bin(point: Record) -> list[str]:
    return [
        f"{percent(point.get('low'))} to {percent(point.get('high'))}",
        number(point.get("n"), 0),
        percent(point.get("score")),
        percent(point.get("share")),
    ]


def _how(found: Record) -> str:
    method = str(found.get("method") or "none")
    text = HOW[method]
    if method == "none":
        return text
    if not found.get("fitted"):
        return f"Risks were to be calibrated ({method}), but validation data did not allow it."
    if found.get("temperature") is not None:
        text += f" ({number(found['temperature'], 2)}; above 1 makes risks more cautious)"
    return text + "."


def _scores(found: Record, names: Mapping[str, str]) -> list[list[str]]:
    """Return rows: which risk, Brier score and calibration error, before and after if fitted."""
    times = ("before", "after") if found.get("fitted") else ("after",)
    return [
        [
            names[key],
            *(number(part_of(found, time, key, "brier"), 4) for time in times),
            *(percent(part_of(found, time, key, "ece")) for time in times),
        ]
        for key in found.get("after") or {}
    ]


def _named(key: str, unit: str) -> str:
    return "Risk" if key == "label" else f"Risk within {key} {unit}".rstrip()


LIFE = ("rmse", "rmse_uncapped", "mae", "nasa_score", "nasa_score_mean")


def life(summary: Record) -> dict[str, Any] | None:
    """Return what the template shows of remaining life; None for other tasks."""
    if not task_of(summary).lives:
        return None
    tested = summary.get("test") or {}
    whole, intervals = tested.get("global") or {}, tested.get("intervals") or {}
    metrics = [metric(name) for name in LIFE if name in whole]
    parts, level = intervals.get("per_site") or {}, intervals.get("level")
    drawn = {n: part for n, part in parts.items() if part.get("coverage") is not None}
    unit = part_of(summary, "data", "time_unit") or ""

    def cells(scores: Any, covered: Record) -> list[str]:
        return [*(number(part_of(scores, m.name), m.digits) for m in metrics), *_covered(covered)]

    return {
        "unit": unit,
        "heads": [m.short for m in metrics],
        "level": percent(level, 0),
        "said": _said(intervals, unit),
        "rows": [
            (name, cells(part, parts.get(name) or {}))
            for name, part in (tested.get("per_site") or {}).items()
        ],
        "all": cells(whole, intervals),
        "plot": coverage(drawn, level) if level is not None and 0 < len(drawn) <= LISTED else None,
    }


def _covered(part: Record) -> list[str]:
    ends = part.get("coverage_interval")
    return [
        percent(part.get("coverage"), 0),
        f"{percent(ends[0], 0)} to {percent(ends[1], 0)}" if ends else MISSING,
        _widths(part),
        number(part.get("n"), 0),
    ]


def _widths(part: Record) -> str:
    """Return the mean width within [0, cap], and in brackets before clipping, where known."""
    whole = part.get("width_unclipped")
    return number(part.get("width"), 1) + ("" if whole is None else f" ({number(whole, 1)})")


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
        text += f" ({percent(ends[0])} to {percent(ends[1])} by the luck of the test): {verdict}"
    text += f". It is {number(found.get('width'), 1)} {unit} wide on average"
    if (whole := found.get("width_unclipped")) is not None:
        text += f", and {number(whole, 1)} before its ends are cut off at 0 and at the cap"
    text += "."
    if reason := str(found.get("reason") or ""):
        text += f" {reason[:1].upper()}{reason[1:]}."
    return text

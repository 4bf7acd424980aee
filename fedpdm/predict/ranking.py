"""The machines of new data, the one most at risk first: on the screen, as CSV and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fedpdm.evaluation.locales import marked, written, written_in
from fedpdm.evaluation.wording import number
from fedpdm.report.machines import ACTIONS, machines_page, why
from fedpdm.runs.predictor import Predictor

SHOWN = 40  # machines in the printed table
EXPLAINED = 20  # machines whose sensors are named
Drivers = Mapping[str, Sequence[Mapping[str, Any]]]
"""By machine, what ``Predictor.explain`` says."""


def machines(scored: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return one row per machine: its last time, its score there, and its alarm since when.

    Args:
        scored: what ``Predictor.score`` returned.
        column: the score to show.

    Returns:
        Columns ``machine``, ``time``, ``column``, ``alarm``, ``since`` (the first row of the
        unbroken alarm that lasts until now, else None), ``padded``.
    """
    lines, since = [], []
    for machine, rows in scored.groupby("machine", sort=True):
        last = rows.iloc[-1]
        alarm = rows["alarm"].fillna(False).to_numpy(dtype=bool)
        quiet = np.flatnonzero(~alarm)
        begin = int(quiet[-1]) + 1 if len(quiet) else 0
        since.append(rows["time"].iloc[begin] if alarm[-1] else None)
        lines.append((machine, last["time"], last[column], last["alarm"], last["padded"]))
    frame = pd.DataFrame(lines, columns=["machine", "time", column, "alarm", "padded"])
    frame.insert(4, "since", pd.Series(since, dtype=object))  # keeps None and 3
    return frame


def ranked(predictor: Predictor, scored: pd.DataFrame, drivers: Drivers) -> pd.DataFrame:
    """Return the machines, the one most at risk first, as people read them.

    Args:
        predictor: the model.
        scored: what it says of the rows.
        drivers: by machine, the sensors that drive its score.

    Returns:
        The columns of ``machines``, the score rounded; ``low`` and ``high`` of its interval, if
        there is one; ``why``: sensors in words, ``action``: what to do (empty: no alarm level).
    """
    task = predictor.task
    column, digits = task.score_columns[0], task.score_digits
    lines = machines(scored, column).sort_values(column, ascending=task.alarm_below, kind="stable")
    lines = lines.reset_index(drop=True)
    if "low" in scored:
        ends = scored.groupby("machine", sort=True)[["low", "high"]].last().round(digits)
        lines = lines.join(ends, on="machine")
    lines[column] = lines[column].round(digits)
    lines["why"] = [why(drivers.get(str(name), ())) for name in lines["machine"]]
    lines["action"] = ["" if pd.isna(alarm) else ACTIONS[bool(alarm)] for alarm in lines["alarm"]]
    return lines


def title(predictor: Predictor) -> str:
    """Return what is ranked, and from which level on there is an alarm."""
    task = predictor.task
    said = f"{task.name}, round {predictor.round} of {predictor.run.name}"
    if predictor.threshold is not None:
        level = marked(f"{predictor.threshold:.3g}")
        said += f", alarm at {'≤' if task.alarm_below else '≥'} {level}"
    return said


def print_machines(predictor: Predictor, lines: pd.DataFrame) -> None:
    """Print a table with a line per machine.

    Args:
        predictor: the model.
        lines: what ``ranked`` returned.
    """
    from rich.text import Text

    from fedpdm.report.console import STYLE, console_for, grid_of, say

    task, console = predictor.task, console_for(None)
    column = task.score_columns[0]
    say(console, title(predictor))
    rows = []
    for line in lines.head(SHOWN).to_dict("records"):
        said = "" if pd.isna(line["alarm"]) else "ALARM" if line["alarm"] else "no"
        rows.append([
            Text(f"{line['machine']}{' *' if line['padded'] else ''}"),
            Text(str(line["time"])),
            Text(f"{line[column]:.{task.score_digits}f}"),
            Text(said, style=STYLE["worse"] if said == "ALARM" else ""),
            Text("" if line["since"] is None else str(line["since"])),
        ])  # fmt: skip
    heads = ["machine", "last time", column.replace("_", " "), "alarm", "since"]
    console.print(grid_of(heads, rows, console))
    if len(lines) > SHOWN:
        say(console, f"… and {len(lines) - SHOWN} more machines in the file")
    for line in lines.head(SHOWN).to_dict("records"):
        if line["why"] and line["action"] == ACTIONS[True]:
            say(console, f"inspect {line['machine']}: {line['why']}")
    if lines["padded"].any():
        say(console, f"* fewer rows than the model's window of {predictor.window}: padded")


def page(
    predictor: Predictor, lines: pd.DataFrame, file: str, notes: Sequence[str], locale: str
) -> str:
    """Return the ranking as an HTML page without outside resources.

    Args:
        predictor: the model.
        lines: what ``ranked`` returned.
        file: name of the data.
        notes: what a person should know.
        locale: how it writes numbers and dates.
    """
    column, digits = predictor.task.score_columns[0], predictor.task.score_digits
    with written_in(locale):
        shown = []
        for line in lines.astype({"alarm": object}).to_dict("records"):
            told = {
                "machine": line["machine"],
                "score": number(line[column], digits),
                "alarm": None if pd.isna(line["alarm"]) else bool(line["alarm"]),
                "since": None if line["since"] is None else written(line["since"]),
                "time": f"{written(line['time'])}{', padded' if line['padded'] else ''}",
                "why": line["why"],
            }
            if "low" in line:
                low, high = (number(line[end], digits) for end in ("low", "high"))
                told["interval"] = f"{low} to {high}"
            shown.append(told)
        head = title(predictor)
    return machines_page(
        shown, source=file, title=head, score=column.replace("_", " "), notes=notes,
        padded=f"Padded: fewer rows than the model's window of {predictor.window}."
        if lines["padded"].any() else "", locale=locale,
    )  # fmt: skip

"""The machines of new data, the one most at risk first: as a table on the screen."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fedpdm.runs.predictor import Predictor

SHOWN = 40  # machines in the printed table


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


def print_machines(predictor: Predictor, scored: pd.DataFrame) -> None:
    """Print a table with a line per machine, the one most at risk first."""
    from rich.text import Text

    from fedpdm.report.console import STYLE, console_for, grid_of, say

    task, console = predictor.task, console_for(None)
    column = task.score_columns[0]
    lines = machines(scored, column).sort_values(column, ascending=task.alarm_below, kind="stable")
    title = f"{task.name}, round {predictor.round} of {predictor.run.name}"
    if predictor.threshold is not None:
        title += f", alarm at {'≤' if task.alarm_below else '≥'} {predictor.threshold:.3g}"
    say(console, title)
    rows = []
    for line in lines.head(SHOWN).itertuples(index=False):
        machine, when, value, alarm, since, padded = line
        said = "" if pd.isna(alarm) else "ALARM" if alarm else "no"
        rows.append([
            Text(f"{machine}{' *' if padded else ''}"),
            Text(str(when)),
            Text(f"{value:.{task.score_digits}f}"),
            Text(said, style=STYLE["worse"] if said == "ALARM" else ""),
            Text("" if since is None else str(since)),
        ])  # fmt: skip
    heads = ["machine", "last time", column.replace("_", " "), "alarm", "since"]
    console.print(grid_of(heads, rows, console))
    if len(lines) > SHOWN:
        say(console, f"… and {len(lines) - SHOWN} more machines in the file")
    if lines["padded"].any():
        say(console, f"* fewer rows than the model's window of {predictor.window}: padded")

"""How far labels that the data gives look ahead, measured on the labels themselves.

A label that looks 30 days ahead is 1 for 30 days before each failure. So where the stretches of 1
are longer than the task's horizon and mostly of one length, labels look as far, and rows before a
cut know what comes after it. Where the stretches differ in length they may also say that a fault
is present. Without a horizon the data is said to tell of the present, and one length is only
worth a warning.
"""

from __future__ import annotations

import numpy as np

from fedpdm.data.rows import Ints, Rows, Split
from fedpdm.errors import LeakError


def require_label_reach(site: str, rows: Rows, starts: Ints, reach: float, unit: str) -> list[str]:
    """Refuse labels of the data that look further ahead than ``reach``; warn if they may.

    Args:
        site: the site.
        rows: its rows, machine by machine.
        starts: where each machine begins.
        reach: how far labels are said to look, in the data's time unit.
        unit: its name.

    Raises:
        LeakError: at least three stretches, and half of all, are of one length beyond ``reach``.
    """
    if rows.label is None or not len(rows):
        return []
    training = rows.split == Split.TRAIN
    judged = (rows.split == Split.VALIDATION) | (rows.split == Split.TEST)
    cut = np.logical_or.reduceat(training, starts) & np.logical_or.reduceat(judged, starts)
    if not cut.any():  # whole machines in one part: no label looks into another
        return []
    one, zero = training & (rows.label == 1), training & (rows.label == 0)
    new = np.zeros(len(rows) + 1, dtype=bool)  # a machine begins here
    new[starts], new[-1] = True, True
    begins = np.flatnonzero(one & (new[:-1] | ~np.r_[False, one[:-1]]))
    ends = np.flatnonzero(one & (new[1:] | ~np.r_[one[1:], False]))
    # Whole stretches only: after a 0, and up to a 0 or to the end of a machine that failed.
    whole = ~new[begins] & zero[begins - 1] & (new[ends + 1] | np.r_[zero, False][ends + 1])
    length = (rows.time[ends] - rows.time[begins])[whole]
    if len(length) < 3:
        return []
    step = float(np.median(np.diff(rows.time)[~new[1:-1]]))
    usual = float(np.quantile(length, 0.5, method="lower"))  # one that there is
    alike = np.abs(length - usual) <= 1.5 * step
    if usual <= 1.1 * reach + 2 * step:
        return []
    steady = alike.sum() >= max(3, len(length) / 2)
    # The first row of a stretch lies up to a step after its label could begin.
    ahead = f"{length[alike].max() + step:g}"
    if steady and reach > 0:
        raise LeakError(
            f"{site}: labels look about {ahead} {unit} ahead ({int(alike.sum())} of "
            f"{len(length)} stretches of 1 in training rows are that long), but task.horizon="
            f"{reach:g} leaves out only {reach:g} {unit} before a cut, so training rows know what "
            f"comes after it; set task.horizon={ahead}"
        )
    if steady or reach > 0:
        known = f"longer than task.horizon={reach:g}" if reach > 0 else "and task.horizon is null"
        return [
            f"{site}: labels stay 1 for {usual:g} {unit}, {known}; if they look ahead, "
            f"set task.horizon={ahead}, so that none looks across a cut"
        ]
    return []

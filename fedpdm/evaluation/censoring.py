"""Censoring: lives, ages and ends of the machines behind windows.

Models see windows; alarms, lead times and cut lives are about machines. N windows, R rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedpdm.data.rows import Bools, Floats, Ints, Rows
from fedpdm.data.windows import Windows


@dataclass(frozen=True)
class Censoring:
    """The censoring of N windows of one site.

    Attributes:
        life: (N,) number of the life a window belongs to; a machine's repairs begin new ones.
        machine: (N,) number of its machine.
        time: (N,) time of the window's last row.
        age: (N,) time since the life began, as far back as the rows go.
        left: (N,) time until the failure that ends the life; NaN where none was seen.
    """

    life: Ints
    machine: Ints
    time: Floats
    age: Floats
    left: Floats

    def __len__(self) -> int:
        return len(self.life)

    def take(self, index: Ints | Bools) -> Censoring:
        """Return the censoring at ``index`` (positions or a mask)."""
        return Censoring(*(column[index] for column in vars(self).values()))


NOBODY = Censoring(*np.zeros((2, 0), dtype=np.int64), *np.zeros((3, 0)))
"""The censoring of no windows."""


def censoring_of(rows: Rows, *parts: Windows) -> list[Censoring]:
    """Return what became of the machines behind sets of a site's windows.

    Args:
        rows: all rows of the site, sorted by machine and time.
        parts: windows that end at some of them.

    Raises:
        ValueError: a window ends at none of the rows.
    """
    if len(rows) == 0:
        return [NOBODY for _ in parts]
    names, machine = np.unique(rows.machine, return_inverse=True)
    times, moment = np.unique(rows.time, return_inverse=True)
    key = machine * len(times) + moment
    order = np.argsort(key, kind="stable")
    row_life = machine * (int(rows.life.max()) + 1) + rows.life
    _, first, number = np.unique(row_life, return_index=True, return_inverse=True)
    result = []
    for windows in parts:
        wanted = np.searchsorted(names, windows.machine) * len(times)
        wanted = wanted + np.searchsorted(times, windows.time)
        at = order[np.minimum(np.searchsorted(key[order], wanted), len(key) - 1)]
        found = (rows.machine[at] == windows.machine) & (rows.time[at] == windows.time)
        if not found.all():
            raise ValueError("a window ends at none of the rows")
        result.append(
            Censoring(
                life=number[at],
                machine=machine[at],
                time=rows.time[at],
                age=rows.time[at] - rows.time[first][number[at]],
                left=rows.time_to_failure[at],
            )
        )
    return result


def joined(parts: list[Censoring]) -> Censoring:
    """Return the censoring of several sites as one set; each site's machines are its own."""
    lives = np.cumsum([0, *(int(p.life.max(initial=-1)) + 1 for p in parts)])
    machines = np.cumsum([0, *(int(p.machine.max(initial=-1)) + 1 for p in parts)])
    return Censoring(
        life=np.concatenate([p.life + lives[i] for i, p in enumerate(parts)]),
        machine=np.concatenate([p.machine + machines[i] for i, p in enumerate(parts)]),
        time=np.concatenate([p.time for p in parts]),
        age=np.concatenate([p.age for p in parts]),
        left=np.concatenate([p.left for p in parts]),
    )


def presence(censoring: Censoring) -> Floats:
    """Return (N,) how likely each window is still seen if its life is cut at a random moment.

    A machine that failed at age L, observed only up to a moment C drawn uniformly from its
    life, C ~ U(0, L), shows its window at age t exactly if C >= t, so the window's expected
    presence is P(C >= t) = 1 - t / L. Any mean over the windows of machines that are cut in
    this way, for example the share of healthy windows with an alarm, is in expectation the
    mean over whole lives with these weights. Weighing has less variance than cutting each
    machine once, because it is the average over all cuts. A window whose life's end was not
    seen keeps weight 1: it is cut already.

    With 200 cycles to live and a horizon of 30 cycles, cuts leave (30 / 200)² = 2.3 % of the
    windows within the horizon where whole lives have 15 %. C-MAPSS FD001 has 2.5 % and 15 %.
    """
    known = ~np.isnan(censoring.left)
    length = censoring.age + censoring.left
    share = np.divide(censoring.left, length, out=np.zeros(len(censoring)), where=length > 0)
    return np.asarray(np.where(known, share, 1.0))

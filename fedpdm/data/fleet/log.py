"""A generated site's log of events, and what it says about each row.

The same function turns the log into labels whether the site was just generated or is read
back from files, so both give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedpdm.data.fleet.life import FAILURE, RUNNING, Course
from fedpdm.data.rows import Bools, Floats, Ints, Strings


@dataclass(frozen=True)
class Log:
    """What a site wrote down: E events, by machine and then by time.

    Attributes:
        machine: (E,) machine ids.
        time: (E,) days.
        failure: (E,) a failure, else planned maintenance.
        downtime: (E,) days that the machine stood still afterwards.
    """

    machine: Strings
    time: Floats
    failure: Bools
    downtime: Floats


def log_of(machines: Sequence[str], courses: list[Course]) -> Log:
    """Return the log of machines, by name and course."""
    found = [
        (name, life)
        for name, course in zip(machines, courses, strict=True)
        for life in course.lives
        if life.end != RUNNING
    ]
    return Log(
        np.array([name for name, _ in found], dtype=np.str_),
        np.array([life.time for _, life in found], dtype=np.float64),
        np.array([life.end == FAILURE for _, life in found], dtype=bool),
        np.array([life.downtime for _, life in found], dtype=np.float64),
    )


def outcomes(machine: Strings, time: Floats, log: Log) -> tuple[Ints, Floats, Floats]:
    """Return ``life``, ``time_to_failure`` and ``observed`` of ``fedpdm.data.rows.Rows``.

    A row's life ends at its machine's first event at or after it. A failure gives the row
    the time until then; planned maintenance censors; without a later event the life was
    watched until the machine's last row. Nothing is rounded.

    Args:
        machine: (R,) rows of a machine stand together, ordered by time.
        time: (R,) days.
        log: events in order.
    """
    life = np.zeros(len(time), dtype=np.int64)
    to_failure, observed = np.full(len(time), np.nan), np.zeros(len(time))
    for name, part in blocks(machine).items():
        mine, events = time[part], log.machine == name
        when, failed = log.time[events], log.failure[events]
        following = np.searchsorted(when, mine, side="left")
        life[part] = following
        ended = following < len(when)
        at = np.append(when, mine[-1])[following]
        left = np.maximum(at - mine, 0.0)
        observed[part] = left
        to_failure[part] = np.where(ended & np.append(failed, False)[following], left, np.nan)
    return life, to_failure, observed


def blocks(machine: Strings) -> dict[str, slice]:
    """Return where in (R,) machine ids, which stand together, each machine's rows are."""
    if len(machine) == 0:
        return {}
    starts = np.flatnonzero(np.append(True, machine[1:] != machine[:-1])).tolist()
    ends = [*starts[1:], len(machine)]
    return {str(machine[a]): slice(a, b) for a, b in zip(starts, ends, strict=True)}


def soon(to_failure: Floats, observed: Floats, horizon: float) -> tuple[Bools, Bools]:
    """Return (R,) whether a failure follows within ``horizon`` days, and whether that is known."""
    fails = ~np.isnan(to_failure)
    positive = fails & (np.where(fails, to_failure, np.inf) <= horizon)
    return np.asarray(positive), np.asarray(fails | (observed >= horizon))

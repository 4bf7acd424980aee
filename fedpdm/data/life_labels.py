"""From a log of events to lives: when each row's machine fails, or how long it was watched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedpdm.data.rows import Bools, Floats, Ints, Strings


@dataclass(frozen=True)
class Events:
    """E events in any order: (E,) machine ids, (E,) times, and (E,) which are failures.

    An event that is no failure (a repair, a replacement) ends a life without one.
    """

    machine: Strings
    time: Floats
    failure: Bools


def lives(machine: Strings, time: Floats, events: Events) -> tuple[Ints, Floats, Floats]:
    """Return ``life``, ``time_to_failure`` and ``observed`` of ``fedpdm.data.rows.Rows``.

    A row's life ends at the first event of its machine at or after the row; the first row
    after an event starts a new life. A failure gives its row the time until then. A repair
    censors: the life was watched until the repair and did not fail. Without a later event
    the life was watched until the machine's last row. A failure and a repair at the same
    time count as the failure, which the repair answered.

    Args:
        machine: (R,) sorted.
        time: (R,) sorted within each machine.
        events: the site's log; events of machines without rows are passed over.

    Returns:
        (R,) int64, (R,) float64 with NaN where no failure ends the life, (R,) float64.
    """
    life = np.zeros(len(time), dtype=np.int64)
    to_failure = np.full(len(time), np.nan)
    observed = np.zeros(len(time))
    names, starts = np.unique(machine, return_index=True)
    ends = np.append(starts[1:], len(time))
    order = np.lexsort((~events.failure, events.time))
    for name, start, end in zip(names, starts, ends, strict=True):
        own = order[events.machine[order] == name]
        when, fails = events.time[own], events.failure[own]
        mine = time[start:end]
        following = np.searchsorted(when, mine, side="left")
        life[start:end] = following
        ended = following < len(when)
        if len(when):
            at = np.minimum(following, len(when) - 1)
            gap = when[at] - mine
            observed[start:end] = np.where(ended, gap, mine[-1] - mine)
            to_failure[start:end] = np.where(ended & fails[at], gap, np.nan)
        else:
            observed[start:end] = mine[-1] - mine
    # Dates counted in days carry rounding of about 1e-12: a failure after exactly the
    # horizon must lie within it.
    return life, np.round(to_failure, 9), np.round(observed, 9)

"""From a log of events to lives: when each row's machine fails, or how long it was watched."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

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


def machine_slices(machine: Strings) -> dict[str, slice]:
    """Return where in (R,) machine ids, of which equal ones stand together, each one's rows are."""
    starts = np.flatnonzero(np.r_[len(machine) > 0, machine[1:] != machine[:-1]]).tolist()
    return {str(machine[a]): slice(a, b) for a, b in pairwise([*starts, len(machine)])}


def lives(
    machine: Strings, time: Floats, events: Events, digits: int | None = 9
) -> tuple[Ints, Floats, Floats]:
    """Return ``life``, ``time_to_failure`` and ``observed`` of ``fedpdm.data.rows.Rows``.

    A row's life ends at the first event of its machine at or after the row; the first row
    after an event starts a new life. A failure gives its row the time until then. A repair
    censors: the life was watched until the repair and did not fail. Without a later event
    the life was watched until the machine's last row. A failure and a repair at the same
    time count as the failure, which the repair answered.

    Args:
        machine: (R,) rows of a machine stand together.
        time: (R,) sorted within each machine.
        events: the site's log; events of machines without rows are passed over.
        digits: decimals to round to. Dates counted in days carry rounding of about 1e-12: a
            failure after exactly the horizon must lie within it. None: as they are.

    Returns:
        (R,) int64, (R,) float64 with NaN where no failure ends the life, (R,) float64.
    """
    life = np.zeros(len(time), dtype=np.int64)
    to_failure = np.full(len(time), np.nan)
    observed = np.zeros(len(time))
    order = np.lexsort((~events.failure, events.time))
    named = events.machine[order]
    for name, part in machine_slices(machine).items():
        own = order[named == name]
        when, fails = events.time[own], events.failure[own]
        mine = time[part]
        life[part] = following = np.searchsorted(when, mine, side="left")
        # The last row ends the life that no event ends.
        gap = np.append(when, mine[-1])[following] - mine
        observed[part] = gap
        to_failure[part] = np.where(np.append(fails, False)[following], gap, np.nan)
    if digits is None:
        return life, to_failure, observed
    return life, np.round(to_failure, digits), np.round(observed, digits)

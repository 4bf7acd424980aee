"""Alarms as a maintenance crew sees them: episodes, false alarms per month, lead times.

Rows are not what wakes people up. Alarms of one life that follow each other closely are
one episode; each failure is warned of in time, late, or not at all. N windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpdm.data.rows import Bools, Floats, Ints
from fedpdm.evaluation.censoring import Censoring

CURVE = 30
"""Points of the curve of false alarms against lead time."""
_PERIODS = {
    "days": (30.0, "machine-month of 30 days"),
    "hours": (720.0, "machine-month of 720 hours"),
    "cycles": (1000.0, "1,000 machine-cycles"),
}


@dataclass(frozen=True)
class Watch:
    """How alarms are counted.

    Attributes:
        horizon: an alarm says that the machine fails within this time.
        cooldown: an alarm at most this long after the last one belongs to its episode.
        sustained: windows in a row that must be in alarm before a crew acts on it.
    """

    horizon: float
    cooldown: float
    sustained: int = 2


@dataclass(frozen=True)
class Watched:
    """N windows in the order of life and time, and what can be known of them at once."""

    censoring: Censoring
    begins: Bools
    exposure: float

    @staticmethod
    def of(censoring: Censoring) -> tuple[Watched, Ints]:
        """Return the windows in order, and (N,) the order."""
        order = np.lexsort((censoring.time, censoring.life))
        sorted_ = censoring.take(order)
        begins = np.ones(len(order), dtype=bool)
        begins[1:] = sorted_.life[1:] != sorted_.life[:-1]
        steps = np.diff(sorted_.time)[~begins[1:]]
        step = float(np.median(steps)) if len(steps) else 0.0
        exposure = float(steps.sum()) + step * float(begins.sum())
        return Watched(sorted_, begins, exposure), order


def period(time_unit: str) -> tuple[float, str]:
    """Return the time over which false episodes are counted, and what it is called."""
    return _PERIODS.get(time_unit, (1000.0, f"1,000 machine-{time_unit}"))


def episodes(watched: Watched, alarm: Bools, watch: Watch) -> tuple[Ints, Bools]:
    """Return (E,) the first window of each episode, and which episodes are false.

    Alarms of a life that are at most ``cooldown`` apart are one episode; one that goes on
    counts again after each horizon, for then what it said has not come true, or has been
    acted on. An episode is false if none of its alarms has a failure within the horizon.

    Args:
        watched: N windows in order.
        alarm: (N,) in the same order.
        watch: how alarms are counted.
    """
    at = np.flatnonzero(alarm)
    if len(at) == 0:
        return at, np.zeros(0, dtype=bool)
    time, life = watched.censoring.time[at], watched.censoring.life[at]
    slack = 1e-9 * max(1.0, watch.horizon)
    chain = np.ones(len(at), dtype=bool)
    chain[1:] = (life[1:] != life[:-1]) | (np.diff(time) > watch.cooldown + slack)
    begin = time[np.flatnonzero(chain)][np.cumsum(chain) - 1]
    block = np.floor((time - begin + slack) / watch.horizon)
    first = chain.copy()
    first[1:] |= block[1:] != block[:-1]
    number = np.cumsum(first) - 1
    true = _within(watched, watch)[at]
    return at[first], np.bincount(number, weights=true) == 0


def lead_times(watched: Watched, alarm: Bools, watch: Watch) -> tuple[Floats, Bools]:
    """Return (F,) time from the first sustained alarm to each failure, and which had any alarm.

    A failure counts if a window within the horizon before it was looked at. The lead time is
    that of the first window within the horizon from which on ``sustained`` windows in a row
    are in alarm (fewer, where the life ends before); NaN where there is none.
    """
    life = watched.censoring.life
    first, where = failures(watched, watch), warnings(watched, alarm, watch)
    leads = np.full(len(first), np.nan)
    leads[np.searchsorted(life[first], life[where])] = watched.censoring.left[where]
    return leads, np.isin(life[first], life[_within(watched, watch) & alarm])


def failures(watched: Watched, watch: Watch) -> Ints:
    """Return (F,) the first window within the horizon before each failure."""
    at = np.flatnonzero(_within(watched, watch))
    return at[np.unique(watched.censoring.life[at], return_index=True)[1]]


def warnings(watched: Watched, alarm: Bools, watch: Watch) -> Ints:
    """Return the first window of the sustained alarm before each failure that has one in time."""
    run = sustained(alarm, watched.begins, watch.sustained)
    at = np.flatnonzero(_within(watched, watch) & run)
    return at[np.unique(watched.censoring.life[at], return_index=True)[1]]


def _within(watched: Watched, watch: Watch) -> Bools:
    """Return (N,) which windows have a failure within the horizon."""
    return np.asarray(np.nan_to_num(watched.censoring.left, nan=np.inf) <= watch.horizon)


def sustained(alarm: Bools, begins: Bools, length: int) -> Bools:
    """Return (N,) where ``length`` alarms in a row begin, or all that are left of the life."""
    last = np.append(begins[1:], True) if len(begins) else begins
    run = alarm
    for _ in range(length - 1):
        run = alarm & (np.append(run[1:], True) | last)
    return run


def count_alarms(
    censoring: Censoring, alarm: Bools, watch: Watch, time_unit: str
) -> dict[str, Any]:
    """Return episodes, false ones per machine-month, lead times and event recall.

    Args:
        censoring: of N windows.
        alarm: (N,) which of them are in alarm.
        watch: how alarms are counted.
        time_unit: of the data, for example ``days``.
    """
    watched, order = Watched.of(censoring)
    return _count(watched, alarm[order], watch, time_unit)


def _count(watched: Watched, alarm: Bools, watch: Watch, time_unit: str) -> dict[str, Any]:
    span, unit = period(time_unit)
    first, false = episodes(watched, alarm, watch)
    leads, warned = lead_times(watched, alarm, watch)
    known = leads[~np.isnan(leads)]
    rate = float(false.sum()) * span / watched.exposure if watched.exposure > 0 else None
    return {
        "episodes": len(first),
        "false_episodes": int(false.sum()),
        "false_per_period": rate,
        "period": unit,
        "exposure": watched.exposure,
        "failures": len(leads),
        "event_recall": float(warned.mean()) if len(warned) else None,
        "lead_time": {
            "median": float(np.median(known)) if len(known) else None,
            "p10": float(np.quantile(known, 0.1)) if len(known) else None,
            "known": len(known),
        },
    }


def alarm_curve(
    censoring: Censoring, scores: Floats, watch: Watch, time_unit: str, points: int = CURVE
) -> list[dict[str, float | None]]:
    """Return what other thresholds would do: false episodes against lead and event recall.

    The thresholds lie at shares of windows in alarm from 0.1 % to 80 %, evenly on a
    logarithmic scale. Keys ``threshold``, ``false_per_period``, ``median_lead``, ``event_recall``.
    """
    if len(scores) == 0:
        return []
    shares = np.geomspace(0.8, max(0.001, 1 / len(scores)), points)
    levels = np.unique(np.quantile(scores, 1 - shares, method="higher"))
    watched, order = Watched.of(censoring)
    result: list[dict[str, float | None]] = []
    for level in levels.tolist():
        found = _count(watched, scores[order] >= level, watch, time_unit)
        result.append({
            "threshold": level,
            "false_per_period": found["false_per_period"],
            "median_lead": found["lead_time"]["median"],
            "event_recall": found["event_recall"],
        })  # fmt: skip
    return result

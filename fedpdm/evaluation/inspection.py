"""Which machines to inspect now, in which order, and what drives their risk.

"Now" is the last window of each machine. A machine is in alarm since the first window of the
unbroken run of windows in alarm that ends now. Shapes: N windows of a site.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpdm.data.rows import Floats, Floats32, Ints, Strings
from fedpdm.evaluation.attribution import badness, reference, shapley
from fedpdm.tasks import Task

DRIVERS = 3
"""Sensors that are named."""
SLIGHT = 0.05
"""A sensor with a smaller share is not named."""


@dataclass(frozen=True)
class Now:
    """A machine at its last window.

    Attributes:
        site: whose it is.
        position: of the window among the site's.
        machine: its name.
        time: of the window.
        score: calibrated risk, or remaining life.
        alarm: whether it is in alarm; None where no level is known.
        begun: position of the window since which it is; None if it is not.
        since: time of that window.
    """

    site: str
    position: int
    machine: str
    time: float
    score: float
    alarm: bool | None
    begun: int | None
    since: float | None


def now(
    site: str, machine: Strings, time: Floats, scores: Floats, level: float | None, task: Task
) -> list[Now]:
    """Return the machines of a site, the one most at risk first.

    Args:
        site: its name.
        machine: (N,) whose the windows are, those of a machine in the order of time.
        time: (N,) of their last rows.
        scores: (N,) or (N, H) what is shown of them, calibrated.
        level: alarm from this risk on (remaining life: up to it); None raises none.
        task: what is predicted.
    """
    shown = np.asarray(scores, dtype=np.float64).reshape(len(machine), -1)[:, 0]
    sign = -1.0 if task.alarm_below else 1.0
    alarm = np.zeros(len(shown), dtype=bool) if level is None else sign * shown >= sign * level
    end = np.ones(len(shown), dtype=bool)
    end[:-1] = machine[1:] != machine[:-1]
    last = np.flatnonzero(end)
    found = []
    for position in last[np.argsort(-sign * shown[last], kind="stable")]:
        since = None
        if alarm[position]:
            mine = np.flatnonzero(machine[: position + 1] == machine[position])
            quiet = np.flatnonzero(~alarm[mine])
            since = int(mine[quiet[-1] + 1 if len(quiet) else 0])
        found.append(Now(
            site, int(position), str(machine[position]), float(time[position]),
            float(shown[position]), None if level is None else bool(alarm[position]), since,
            None if since is None else float(time[since]),
        ))  # fmt: skip
    return found


def explain(
    at: Ints,
    windows: Callable[[Ints], Floats32],
    machine: Strings,
    bad: Floats,
    raw: Callable[[Floats32], Floats],
    task: Task,
    groups: Mapping[str, Ints],
    seed: int,
) -> list[list[dict[str, Any]]]:
    """Return for each of some windows the sensors that drive its score up, the first one most.

    Args:
        at: (M,) their positions among N.
        windows: gives the windows at some of N positions; those of a machine are in the order of
            time.
        machine: (N,) whose they are.
        bad: (N,) how bad each is (``attribution.badness``).
        raw: gives the uncalibrated scores of windows.
        task: what is predicted.
        groups: positions of the model's inputs by sensor (``attribution.inputs_of``).
        seed: of the draws.
    """
    if not len(at):
        return []
    x, against = windows(at), reference(windows, machine, bad, at)
    values = shapley(lambda z: badness(task, raw(z)), x, against, groups, seed)
    each = zip(values, x, against, strict=True)
    return [drivers(own, window, calm, groups) for own, window, calm in each]


def drivers(
    values: Floats, x: Floats32, calm: Floats32, groups: Mapping[str, Ints]
) -> list[dict[str, Any]]:
    """Return the sensors that drive a score up most.

    Args:
        values: (G,) Shapley values.
        x: (…, C) the window.
        calm: (…, C) its reference.
        groups: positions of inputs by sensor.
    """
    up, names = np.clip(values, 0, None), list(groups)
    share = up / up.sum() if up.any() else up
    found = []
    for group in np.argsort(-share, kind="stable")[:DRIVERS]:
        if share[group] < SLIGHT:
            break
        own = groups[names[group]][0]  # the reading itself, or the first statistic of it
        higher = float(np.mean(x[..., own]) - np.mean(calm[..., own])) > 0
        found.append({"sensor": names[group], "share": float(share[group]),
                      "reads": "higher" if higher else "lower"})  # fmt: skip
    return found

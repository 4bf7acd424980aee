"""Which machines to inspect now, in which order, and what drives their risk.

"Now" is the last window of each machine. A machine is in alarm since the first window of the
unbroken run of windows in alarm that ends now. Shapes: N windows of a site.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpdm.data.rows import Bools, Floats, Floats32, Ints
from fedpdm.data.windows import Windows
from fedpdm.evaluation.attribution import badness, inputs_of, reference, shapley
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
        since: time since which it is; None if it is not.
    """

    site: str
    position: int
    machine: str
    time: float
    score: float
    alarm: bool | None
    since: float | None


def now(site: str, windows: Windows, scores: Floats, level: float | None, task: Task) -> list[Now]:
    """Return the machines of a site, the one most at risk first.

    Args:
        site: its name.
        windows: N windows of the site, those of a machine in the order of time.
        scores: (N,) or (N, H) what is shown of them, calibrated.
        level: alarm from this risk on (remaining life: up to it); None raises none.
        task: what is predicted.
    """
    shown = np.asarray(scores, dtype=np.float64).reshape(len(windows), -1)[:, 0]
    sign = -1.0 if task.alarm_below else 1.0
    alarm = np.zeros(len(shown), dtype=bool) if level is None else sign * shown >= sign * level
    end = np.ones(len(shown), dtype=bool)
    end[:-1] = windows.machine[1:] != windows.machine[:-1]
    last = np.flatnonzero(end)
    return [
        Now(
            site, int(position), str(windows.machine[position]), float(windows.time[position]),
            float(shown[position]), None if level is None else bool(alarm[position]),
            _since(windows, alarm, position),
        )
        for position in last[np.argsort(-sign * shown[last], kind="stable")]
    ]  # fmt: skip


def explain(
    machines: Sequence[Now],
    windows: Windows,
    raw: Callable[[Floats32], Floats],
    task: Task,
    sensors: Sequence[str],
    inputs: Sequence[str],
    seed: int,
) -> list[list[dict[str, Any]]]:
    """Return for each machine of a site the sensors that drive its score up, the first one most.

    Args:
        machines: of one site.
        windows: the site's N windows.
        raw: gives the uncalibrated scores of windows.
        task: what is predicted.
        sensors: names of the readings.
        inputs: names of the model's inputs.
        seed: of the draws.
    """
    at = np.array([machine.position for machine in machines], dtype=np.int64)
    if not len(at):
        return []
    against = reference(windows.x, windows.machine, badness(task, raw(windows.x)), at)
    groups = inputs_of(sensors, inputs)
    values = shapley(lambda x: badness(task, raw(x)), windows.x[at], against, groups, seed)
    return [
        drivers(own, windows.x[position], calm, groups)
        for position, own, calm in zip(at, values, against, strict=True)
    ]


def _since(windows: Windows, alarm: Bools, position: int) -> float | None:
    if not alarm[position]:
        return None
    mine = np.flatnonzero(windows.machine[: position + 1] == windows.machine[position])
    quiet = np.flatnonzero(~alarm[mine])
    return float(windows.time[mine[quiet[-1] + 1 if len(quiet) else 0]])


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

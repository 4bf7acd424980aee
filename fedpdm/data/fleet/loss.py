"""Missing data of a generated site: single readings, outages, dead sensors, link failures.

None of it looks at wear, so what is missing says nothing about a failure to come.
Shapes: M machines, S steps, F sensors.
"""

from __future__ import annotations

import numpy as np

from fedpdm.data.fleet.settings import Dials, SiteSpec
from fedpdm.data.rows import Bools

DEAD_DAYS = 30.0  # until a dead sensor is replaced
LINK_DAYS = 1.5  # mean length of a failure of the data link


def lost_readings(spec: SiteSpec, dials: Dials, features: int) -> Bools:
    """Return (M, S, F) which readings are lost, all but those of the data link."""
    lost = np.zeros((spec.profile.machines, spec.steps, features), dtype=bool)
    for index, machine in enumerate(lost):
        generator = spec.generator(index, "missing")
        machine |= generator.random(machine.shape) < dials.missing
        _outages(machine, dials.outages, dials.outage_hours / 24 / spec.step_days, generator)
        if dials.dropout:
            generator = spec.generator(index, "dropout")
            _outages(machine, dials.dropout, DEAD_DAYS / spec.step_days, generator)
    return lost


def link_down(spec: SiteSpec, machine: int) -> list[tuple[int, int]]:
    """Return from which step to which (excluded) a machine's data link is down.

    The weight of ``communication`` beside the other scenarios is the number of failures per
    typical life; they come at any time, whatever the machine's state.
    """
    scenarios, step_days = spec.profile.scenarios, spec.step_days
    rate = scenarios[-1] / sum(scenarios[:-1]) / spec.profile.life_days
    if rate == 0:
        return []
    generator = spec.generator(machine, "link")
    found, now = [], generator.exponential(1 / rate)
    while now < spec.steps * step_days:
        lasts = generator.exponential(LINK_DAYS)
        first = int(np.ceil(now / step_days))
        last = min(int(np.ceil((now + lasts) / step_days)), spec.steps)
        if last > first:  # shorter ones fall between two readings
            found.append((first, last))
        now += lasts + generator.exponential(1 / rate)
    return found


def _outages(
    machine: Bools, share: float, mean_steps: float, generator: np.random.Generator
) -> None:
    """Mark outages in (S, F) of one machine, in place.

    One begins with a chance such that ``share`` is lost, and lasts a geometric number of steps.
    """
    length = max(mean_steps, 1.0)
    begins = np.argwhere(generator.random(machine.shape) < share / length)
    for step, feature in begins:
        machine[step : step + generator.geometric(1 / length), feature] = True

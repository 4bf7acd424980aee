"""Readings that get lost: one by one, in outages, with dead sensors; rows, with the data link.

None of it looks at wear, so what is missing says nothing about a failure to come.
Shapes: M machines, S steps, F sensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedpdm.data.fleet.profile import SiteProfile
from fedpdm.data.rows import Bools
from fedpdm.seeding import numpy_generator

DEAD_DAYS = 30.0  # until somebody replaces a dead sensor
LINK_DAYS = 1.5  # mean length of a failure of the data link


@dataclass(frozen=True)
class Loss:
    """How readings get lost.

    Attributes:
        missing: share of readings lost one by one.
        outages: share lost because a sensor is out for a while.
        outage_days: mean length of an outage.
        dropout: share lost to sensors that are dead for ``DEAD_DAYS`` on average.
    """

    missing: float
    outages: float
    outage_days: float
    dropout: float

    def lost(self, site: str, seed: int, machines: int, shape: tuple[int, int], step_days: float
             ) -> Bools:  # fmt: skip
        """Return (M, S, F) which readings are lost, all but those of the data link."""
        lost = np.zeros((machines, *shape), dtype=bool)
        for index, machine in enumerate(lost):
            generator = numpy_generator(seed, "fleet", site, index, "missing")
            machine |= generator.random(shape) < self.missing
            _outages(machine, self.outages, self.outage_days / step_days, generator)
            if self.dropout:
                generator = numpy_generator(seed, "fleet", site, index, "dropout")
                _outages(machine, self.dropout, DEAD_DAYS / step_days, generator)
        return lost


def link_down(
    profile: SiteProfile, site: str, seed: int, machine: int, steps: int, step_days: float
) -> list[tuple[int, int]]:
    """Return from which step to which (excluded) a machine's data link is down.

    The weight of ``communication`` beside the other scenarios is the number of failures per
    typical life; they come at any time, whatever the machine's state.
    """
    rate = profile.scenarios[-1] / sum(profile.scenarios[:-1]) / profile.life_days
    if rate == 0:
        return []
    generator = numpy_generator(seed, "fleet", site, machine, "link")
    found, now = [], generator.exponential(1 / rate)
    while now < steps * step_days:
        lasts = generator.exponential(LINK_DAYS)
        first = int(np.ceil(now / step_days))
        last = min(int(np.ceil((now + lasts) / step_days)), steps)
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

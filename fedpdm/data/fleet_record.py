"""Everything there is to know about one generated plant: what it sees, and the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedpdm.data.fleet_assets import KINDS, MODES, NAMES
from fedpdm.data.fleet_calendar import Calendar
from fedpdm.data.fleet_dials import Dials
from fedpdm.data.fleet_life import FAILURE, Life
from fedpdm.data.fleet_log import Log, log_of
from fedpdm.data.fleet_loss import Loss, link_down
from fedpdm.data.fleet_physics import operate
from fedpdm.data.fleet_plant import SCENARIOS, Plant
from fedpdm.data.rows import Bools, Floats, Ints, Strings


@dataclass(frozen=True)
class Latent:
    """The truth behind a plant's rows, for checking; no model sees it.

    R rows, in the order of the plant's ``Rows``; K modes.

    Attributes:
        modes: K names.
        wear: (R, K) wear as a share of what the part bears: it fails at 1.
        mode: (R,) which mode ends the row's life; -1 where no failure was seen.
        scenarios: names of the ways in which a life can go.
        scenario: (R,) which of them the row's life goes.
        kinds: names of the kinds of machine.
        kind: (R,) which of them the row's machine is.
        load: (R,) share of the rating.
        regime: (R,) which recipe runs.
        link_down: (R,) whether the data link has failed: no reading arrives.
    """

    modes: tuple[str, ...]
    wear: Floats
    mode: Ints
    scenarios: tuple[str, ...]
    scenario: Ints
    kinds: tuple[str, ...]
    kind: Ints
    load: Floats
    regime: Ints
    link_down: Bools


@dataclass(frozen=True)
class Record:
    """One generated plant.

    Attributes:
        features: F names.
        machine: (R,) sorted.
        time: (R,) days, rising within a machine.
        values: (R, F) readings, NaN where lost.
        log: what the plant wrote down.
        around: its exogenous series.
        latent: the truth behind each row.
        lives: the truth behind each life, by machine, with its number.
        machines: names by number; also of those that never ran.
        expected: how many readings there would be if none got lost.
    """

    features: tuple[str, ...]
    machine: Strings
    time: Floats
    values: Floats
    log: Log
    around: Calendar
    latent: Latent
    lives: list[tuple[str, int, Life]]
    machines: Strings
    expected: int


def record(
    plant: Plant, site: str, seed: int, steps: int, step_days: float, dials: Dials, loss: Loss
) -> Record:
    """Generate a plant that has been adapted to the dials (``fleet_adapt.adapt``)."""
    told = operate(plant, site, seed, steps, step_days, dials)
    running = np.stack([course.running for course in told.courses])
    present = ~np.isnan(told.values)
    lost = loss.lost(site, seed, plant.machines, told.values.shape[1:], step_days)
    down = np.zeros(running.shape, dtype=bool)
    for machine in range(plant.machines):
        for first, last in link_down(plant, site, seed, machine, steps, step_days):
            down[machine, first:last] = True
    lost |= down[..., None]
    told.values[lost] = np.nan
    mode = np.full(running.shape, -1, dtype=np.int64)
    scenario = np.zeros(running.shape, dtype=np.int64)
    for machine, course in enumerate(told.courses):
        for life in course.lives:
            part = slice(life.begin, life.begin + life.steps)
            scenario[machine, part] = life.scenario
            if life.end == FAILURE:
                mode[machine, part] = life.mode
    names = machine_names(site, plant.machines)
    latent = Latent(
        modes=MODES,
        wear=np.concatenate([course.wear[course.running] for course in told.courses]),
        mode=mode[running],
        scenarios=SCENARIOS,
        scenario=scenario[running],
        kinds=KINDS,
        kind=np.repeat(told.kinds, running.sum(axis=1)),
        load=told.load[running],
        regime=told.regime[running],
        link_down=down[running],
    )
    return Record(
        features=NAMES,
        machine=np.repeat(names, running.sum(axis=1)),
        time=np.broadcast_to(told.around.time, running.shape)[running],
        values=told.values[running],
        log=log_of(names.tolist(), told.courses),
        around=told.around,
        latent=latent,
        lives=[
            (str(name), number, life)
            for name, course in zip(names, told.courses, strict=True)
            for number, life in enumerate(course.lives)
        ],
        machines=names,
        expected=int(present[running].sum()),
    )


def machine_names(site: str, machines: int) -> Strings:
    """Return (M,) names: ``detroit-m001`` …"""
    width = max(3, len(str(machines)))
    return np.array([f"{site}-m{index:0{width}d}" for index in range(1, machines + 1)])

"""Everything there is to know about one generated site: what it sees, and the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedpdm.data.fleet.assets import KINDS, MODES, NAMES
from fedpdm.data.fleet.calendar import Calendar
from fedpdm.data.fleet.dials import Dials
from fedpdm.data.fleet.life import FAILURE, Life
from fedpdm.data.fleet.log import Log, log_of
from fedpdm.data.fleet.loss import Loss, link_down
from fedpdm.data.fleet.physics import operate
from fedpdm.data.fleet.profile import SCENARIOS, SiteProfile
from fedpdm.data.rows import Floats, Ints, Strings


@dataclass(frozen=True)
class Latent:
    """The truth behind a site's rows, for checking; no model sees it.

    R rows, in the order of the site's ``Rows``; K modes.

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


@dataclass(frozen=True)
class LinkFailure:
    """A failure of a machine's data link: no row arrives in ``begin <= time < end``.

    Attributes:
        machine: its id.
        begin, end: days.
        rows: how many rows got lost; none while the machine stood still anyway.
    """

    machine: str
    begin: float
    end: float
    rows: int


@dataclass(frozen=True)
class Record:
    """One generated site.

    Attributes:
        features: F names.
        machine: (R,) sorted.
        time: (R,) days, rising within a machine.
        values: (R, F) readings, NaN where lost.
        log: what the site wrote down.
        around: its exogenous series.
        latent: the truth behind each row.
        lives: the truth behind each life, by machine, with its number.
        links: failures of data links, by machine and time.
    """

    features: tuple[str, ...]
    machine: Strings
    time: Floats
    values: Floats
    log: Log
    around: Calendar
    latent: Latent
    lives: list[tuple[str, int, Life]]
    links: list[LinkFailure]


def record(
    profile: SiteProfile,
    site: str,
    seed: int,
    steps: int,
    step_days: float,
    dials: Dials,
    loss: Loss,
) -> Record:
    """Generate a site that has been adapted to the dials (``fleet_adapt.adapt``)."""
    told = operate(profile, site, seed, steps, step_days, dials)
    running = np.stack([course.running for course in told.courses])
    names = machine_names(site, profile.machines)
    links = []
    arrived = running.copy()
    for machine in range(profile.machines):
        for first, last in link_down(profile, site, seed, machine, steps, step_days):
            lost = int(arrived[machine, first:last].sum())
            arrived[machine, first:last] = False
            links.append(
                LinkFailure(str(names[machine]), first * step_days, last * step_days, lost)
            )
    gone = loss.lost(site, seed, profile.machines, told.values.shape[1:], step_days)
    told.values[gone] = np.nan
    mode = np.full(running.shape, -1, dtype=np.int64)
    scenario = np.zeros(running.shape, dtype=np.int64)
    for machine, course in enumerate(told.courses):
        for life in course.lives:
            part = slice(life.begin, life.begin + life.steps)
            scenario[machine, part] = life.scenario
            if life.end == FAILURE:
                mode[machine, part] = life.mode
    latent = Latent(
        modes=MODES,
        wear=np.concatenate(
            [course.wear[rows] for course, rows in zip(told.courses, arrived, strict=True)]
        ),
        mode=mode[arrived],
        scenarios=SCENARIOS,
        scenario=scenario[arrived],
        kinds=KINDS,
        kind=np.repeat(told.kinds, arrived.sum(axis=1)),
        load=told.load[arrived],
        regime=told.regime[arrived],
    )
    return Record(
        features=NAMES,
        machine=np.repeat(names, arrived.sum(axis=1)),
        time=np.broadcast_to(told.around.time, arrived.shape)[arrived],
        values=told.values[arrived],
        log=log_of(names.tolist(), told.courses),
        around=told.around,
        latent=latent,
        lives=[
            (str(name), number, life)
            for name, course in zip(names, told.courses, strict=True)
            for number, life in enumerate(course.lives)
        ],
        links=links,
    )


def machine_names(site: str, machines: int) -> Strings:
    """Return (M,) names: ``detroit-m001`` …"""
    width = max(3, len(str(machines)))
    return np.array([f"{site}-m{index:0{width}d}" for index in range(1, machines + 1)])

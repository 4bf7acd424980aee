"""The full record of one generated site: what the site sees, and the truth behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedpdm.data.fleet.calendar import Calendar
from fedpdm.data.fleet.life import FAILURE, RUNNING, Course, Life
from fedpdm.data.fleet.loss import link_down, lost_readings
from fedpdm.data.fleet.physics import operate
from fedpdm.data.fleet.settings import Dials, SiteSpec
from fedpdm.data.rows import Events, Floats, Ints, Strings


@dataclass(frozen=True)
class Log(Events):
    """What a site wrote down: E events, by machine and then by time; all but failures are services.

    Attributes:
        downtime: (E,) days that the machine stood still afterwards.
    """

    downtime: Floats


@dataclass(frozen=True)
class Latent:
    """The truth behind a site's rows, for checking; no model sees it.

    R rows, in the order of the site's ``Rows``; K modes.

    Attributes:
        wear: (R, K) wear as a share of what the part bears: it fails at 1.
        mode: (R,) which of ``MODES`` ends the row's life; -1 where no failure was seen.
        scenario: (R,) which of ``SCENARIOS`` the row's life goes by.
        kind: (R,) which of ``KINDS`` the row's machine is.
        load: (R,) share of the rating.
        regime: (R,) which recipe runs.
    """

    wear: Floats
    mode: Ints
    scenario: Ints
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
        machine: (R,) sorted.
        time: (R,) days, rising within a machine.
        values: (R, F) readings, NaN where lost.
        log: what the site wrote down.
        around: its exogenous series.
        latent: the truth behind each row.
        lives: the truth behind each life, by machine, with its number.
        links: failures of data links, by machine and time.
    """

    machine: Strings
    time: Floats
    values: Floats
    log: Log
    around: Calendar
    latent: Latent
    lives: list[tuple[str, int, Life]]
    links: list[LinkFailure]


def record(spec: SiteSpec, dials: Dials) -> Record:
    """Generate a site that has been adapted to the dials (``fedpdm.data.fleet.adapt``)."""
    told = operate(spec, dials)
    arrived = np.stack([course.running for course in told.courses])
    mode = np.full(arrived.shape, -1, dtype=np.int64)
    scenario = np.zeros(arrived.shape, dtype=np.int64)
    names = machine_names(spec.name, spec.profile.machines)
    links = []
    for machine, (name, course) in enumerate(zip(names, told.courses, strict=True)):
        for first, last in link_down(spec, machine):
            lost = int(arrived[machine, first:last].sum())
            arrived[machine, first:last] = False
            links.append(LinkFailure(name, first * spec.step_days, last * spec.step_days, lost))
        for life in course.lives:
            part = slice(life.begin, life.begin + life.steps)
            scenario[machine, part] = life.scenario
            if life.end == FAILURE:
                mode[machine, part] = life.mode
    told.values[lost_readings(spec, dials, told.values.shape[2])] = np.nan
    rows, lives = arrived.sum(axis=1), lives_of(names, told.courses)
    return Record(
        machine=np.repeat(np.array(names), rows),
        time=np.broadcast_to(told.around.time, arrived.shape)[arrived],
        values=told.values[arrived],
        log=log_of(lives),
        around=told.around,
        latent=Latent(
            wear=np.concatenate(
                [course.wear[here] for course, here in zip(told.courses, arrived, strict=True)]
            ),
            mode=mode[arrived],
            scenario=scenario[arrived],
            kind=np.repeat(told.kinds, rows),
            load=told.load[arrived],
            regime=told.regime[arrived],
        ),
        lives=lives,
        links=links,
    )


def machine_names(site: str, machines: int) -> list[str]:
    """Return M names: ``detroit-m001`` …"""
    width = max(3, len(str(machines)))
    return [f"{site}-m{index:0{width}d}" for index in range(1, machines + 1)]


def lives_of(machines: list[str], courses: list[Course]) -> list[tuple[str, int, Life]]:
    """Return the lives of machines, by name and course, each with its number."""
    return [
        (name, number, life)
        for name, course in zip(machines, courses, strict=True)
        for number, life in enumerate(course.lives)
    ]


def log_of(lives: Sequence[tuple[str, int, Life]]) -> Log:
    """Return the log of machines from their lives, in order."""
    ended = [(name, life) for name, _, life in lives if life.end != RUNNING]
    return Log(
        np.array([name for name, _ in ended], dtype=np.str_),
        np.array([life.time for _, life in ended], dtype=np.float64),
        np.array([life.end == FAILURE for _, life in ended], dtype=bool),
        np.array([life.downtime for _, life in ended], dtype=np.float64),
    )

"""The latent state of one generated machine: wear, failures, repairs and maintenance.

Every machine has a latent wear per failure mode. Wear grows with load and temperature, at a
speed drawn for every life, and by shocks; the life ends when one mode's wear crosses
its own random limit. A repair resets all of it. A scenario bends the wear of the life's weak
part; what sensors show, and what is called a failure, follow from the wear alone.

    progressive   grows steadily
    sudden        jumps, part of the way through a life, and then needs days, not weeks
    intermittent  grows in bouts, and hardly shows between them
    depletion     something is used up in proportion to the work done; shows early and evenly

(The fifth scenario, ``communication``, is one of the data link: ``fedpdm.data.fleet.loss``.)

Shapes: S steps of the site's calendar, K modes. Time in days.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fedpdm.data.fleet.assets import LIFE, MODES, WEAK
from fedpdm.data.fleet.calendar import Calendar
from fedpdm.data.fleet.settings import SCENARIOS, SiteProfile, SiteSpec
from fedpdm.data.rows import Bools, Floats

# How much each mode's wear speeds up with load, and per 10 °C as an exponent.
LOAD_EXPONENT = np.array([1.6, 1.4, 1.8, 0.8, 1.2, 0.6])
HEAT_RATE = np.array([0.08, 0.05, 0.12, 0.30, 0.22, 0.10])
QUALITY = 0.2  # log-normal spread of wear speed between lives
SOUND = (0.15, 0.65)  # speed of the parts that are not a life's weak one, relative to it
LIMIT = 0.02  # log-normal spread of the wear at which a part breaks
SHOCK_EVERY = 40.0  # days between shocks of one mode
SHOCK = 0.02  # mean wear of a shock
STEEPNESS = 7.0  # wear w shows as (exp(7 w) - 1) / (exp(7) - 1)
DOWNTIME = (0.5, 3.0)  # days of repair
SERVICE_DOWNTIME = (0.1, 0.5)  # … and of a planned service

SUDDEN_AT, SUDDEN_JUMP = (0.15, 0.8), (0.6, 0.9)  # wear before; share of the rest lost at once
SUDDEN_DAYS = (1.0, 4.0)  # from the jump to the failure
BOUT_DAYS, REST_DAYS = 1.5, 2.5
BOUT_SPEED = (BOUT_DAYS + REST_DAYS) / BOUT_DAYS  # nothing in between: the mean is 1
REST_SHOWS = 0.05  # share of the signature that shows between bouts
DEPLETES = tuple(MODES.index(mode) for mode in ("cooling", "lubrication", "filter"))
DEPLETION_STEEPNESS = 3.0

FAILURE, MAINTENANCE, RUNNING = "failure", "maintenance", "running"


@dataclass(frozen=True)
class Life:
    """One life of a machine: steps ``begin`` … ``begin + steps - 1``.

    Attributes:
        end: what ended it: a failure, planned maintenance, or nothing (still running).
        time: when, in days; of the last step where nothing ended it.
        downtime: days of standing still after it.
        mode: position in ``MODES`` of what failed, or of the weak part where nothing did.
        scenario: position in ``SCENARIOS``.
        onset: wear of the weak part at which a sudden life jumped; NaN for others.
    """

    begin: int
    steps: int
    end: str
    time: float
    downtime: float
    mode: int
    scenario: int
    onset: float


@dataclass(frozen=True)
class Course:
    """What became of one machine.

    Attributes:
        running: (S,) false during repairs and services.
        wear: (S, K) as a share of what the part of this life can bear.
        shown: (S, K) wear as it shows.
        lives: in order, without gaps but for downtimes.
    """

    running: Bools
    wear: Floats
    shown: Floats
    lives: list[Life]


def pace(profile: SiteProfile, load: Floats, around: Calendar) -> Floats:
    """Return (M, S, K) speed of wear, 1 in the regime that the site's machines are built for.

    With shifts or closed days, the mean wear of the planned load is the normal one.

    Args:
        profile: the site's settings.
        load: (M, S) share of the rating.
        around: the site's calendar.
    """
    strain = (load / profile.load)[..., None] ** LOAD_EXPONENT
    if profile.shifts or profile.holidays:
        strain = strain / ((around.planned / profile.load)[:, None] ** LOAD_EXPONENT).mean(axis=0)
    heat = np.exp((around.ambient - profile.ambient_c)[:, None] / 10 * HEAT_RATE)
    return np.asarray(strain * heat)


def live(
    spec: SiteSpec, machine: int, kind: int, speed_of_wear: Floats, load: Floats,
    time: Floats, generator: np.random.Generator,
) -> Course:  # fmt: skip
    """Return the lives of one machine.

    Args:
        spec: the site.
        machine: its number, for keys.
        kind: position in ``KINDS``.
        speed_of_wear: (S, K) from ``pace``, per step.
        load: (S,) share of the rating.
        time: (S,) days.
        generator: the machine's own.
    """
    steps, modes = speed_of_wear.shape
    profile, step_days = spec.profile, spec.step_days
    speed_of_wear = speed_of_wear / LIFE[kind]
    depletion = step_days / profile.life_days / LIFE[kind] * load / load.mean()
    # Shocks are drawn per step before lives are cut, so that they do not depend on them.
    count = generator.poisson(step_days / SHOCK_EVERY, size=speed_of_wear.shape)
    shocks = count * generator.exponential(SHOCK, size=speed_of_wear.shape)
    # Scenarios and services draw from generators of their own: a fleet without them is the same.
    script = spec.generator(machine, "scenario")
    service = spec.generator(machine, "service")
    phase = service.uniform(0.0, profile.service_days) if profile.service_days else np.inf
    nothing = np.zeros((steps, modes))
    course = Course(np.zeros(steps, dtype=bool), nothing, nothing.copy(), [])
    begin = 0
    while begin < steps:
        weak, scenario = _weak_part(profile, float(time[begin]), kind, generator, script)
        speed, limit, age, repair = _quality(weak, generator)
        growth = speed * speed_of_wear[begin:] + shocks[begin:]
        if SCENARIOS[scenario] == "depletion":
            growth[:, weak] = speed[weak] * depletion[begin:]
        bouts = None
        if SCENARIOS[scenario] == "intermittent":
            bouts = _bouts(steps - begin, step_days, script)
            growth[:, weak] *= np.where(bouts, BOUT_SPEED, 0.0)
        grown = np.cumsum(growth, axis=0)
        if not course.lives:
            grown += age * speed / speed[weak]  # the site is older than its record
        onset = np.nan
        if SCENARIOS[scenario] == "sudden":
            onset = _jump(grown, limit, weak, step_days, script)
        strain = (grown / limit).max(axis=1)  # (S - begin,) rises
        alive = int(np.searchsorted(strain, 1.0))
        due = _next_service(profile, phase, float(time[begin]))
        serviced = int(np.ceil(due / step_days)) - begin if due <= time[-1] else steps
        end, when, mode, down = RUNNING, float(time[-1]), weak, 0.0
        if serviced < min(alive, steps - begin):
            end, when, alive = MAINTENANCE, due, serviced
            down = service.uniform(*SERVICE_DOWNTIME)
        elif begin + alive < steps:
            end, when, down = FAILURE, _crossing(strain, alive, time[begin:], step_days), repair
            mode = int(np.argmax(grown[alive] / limit))
        part = slice(begin, begin + alive)
        course.running[part] = True
        course.wear[part], course.shown[part] = grown[:alive] / limit, grown[:alive]
        if SCENARIOS[scenario] in ("intermittent", "depletion"):
            course.shown[part, weak] = _appearance(grown[:alive, weak], bouts)
        course.lives.append(Life(begin, alive, end, when, down, mode, scenario, onset))
        # Where a step is longer than a repair, time must still go on.
        begin = max(begin + alive + 1, int(np.ceil((when + down) / step_days)))
    return course


def _weak_part(
    profile: SiteProfile, day: float, kind: int, generator: np.random.Generator,
    script: np.random.Generator,
) -> tuple[int, int]:  # fmt: skip
    """Draw which mode is the weak part of a life that begins on ``day``, and its scenario."""
    changed = profile.change_day is not None and day >= profile.change_day
    shares = np.array(profile.modes_later if changed else profile.modes) * WEAK[kind]
    if shares.sum() == 0:  # the site names nothing that this kind can fail of
        shares = WEAK[kind]
    weak = int(generator.choice(len(shares), p=shares / shares.sum()))
    story: Floats = np.array(profile.scenarios[:-1]) / sum(profile.scenarios[:-1])
    scenario = int(script.choice(len(story), p=story)) if story[0] < 1 else 0
    if SCENARIOS[scenario] == "depletion" and weak not in DEPLETES:
        weak = int(script.choice(DEPLETES))
    return weak, scenario


def _quality(weak: int, generator: np.random.Generator) -> tuple[Floats, Floats, float, float]:
    """Draw how good the parts of a life are.

    Returns:
        (K,) speed of wear, (K,) the wear at which a part breaks, the share of a life that the
        machine has behind it where the record begins, and the days that a repair takes.
    """
    speed: Floats = np.asarray(generator.uniform(SOUND[0], SOUND[1], size=len(MODES)))
    speed[weak] = 1.0
    speed *= float(np.exp(generator.normal(0.0, QUALITY)))
    limit = np.exp(generator.normal(0.0, LIMIT, size=len(MODES)))
    return speed, limit, generator.uniform(0.0, 0.9), generator.uniform(*DOWNTIME)


def _crossing(strain: Floats, alive: int, time: Floats, step_days: float) -> float:
    """Return when, between two steps, a life that lasts ``alive`` steps ends in its failure.

    Args:
        strain: (S - begin,) wear as a share of the limit: 1 is crossed at step ``alive``.
        alive: steps of the life.
        time: (S - begin,) days.
        step_days: days between steps.
    """
    before = strain[alive - 1] if alive else 0.0
    crossing = min(max((1.0 - before) / (strain[alive] - before), 0.0), 1.0)
    when = time[alive] - step_days * (1 - crossing)
    if alive:  # rounding must not put a failure before the last row that leads to it
        when = max(when, time[alive - 1])
    return float(when)


def _bouts(steps: int, step_days: float, generator: np.random.Generator) -> Bools:
    """Return (S,) whether an intermittent fault is in one of its bouts."""
    bouts, now, on = np.zeros(steps, dtype=bool), 0.0, bool(generator.random() < 0.5)
    while now < steps:
        lasts = generator.exponential(BOUT_DAYS if on else REST_DAYS) / step_days
        bouts[int(now) : int(np.ceil(now + lasts))] |= on
        now, on = now + lasts, not on
    return bouts


def _jump(
    grown: Floats, limits: Floats, weak: int, step_days: float, generator: np.random.Generator
) -> float:
    """Let the weak part break in, in place: a jump, and then days. Return the wear before it."""
    at, share, days = (generator.uniform(*r) for r in (SUDDEN_AT, SUDDEN_JUMP, SUDDEN_DAYS))
    step = int(np.searchsorted((grown / limits).max(axis=1), at))
    if step == len(grown):
        return float("nan")
    limit = limits[weak]
    before = min(float(grown[step, weak]), limit)
    jumped = before + share * (limit - before)
    rest = (limit - jumped) / max(days / step_days, 1.0)
    grown[step:, weak] = jumped + rest * np.arange(1, len(grown) - step + 1)
    return float(before / limit)


def _appearance(wear: Floats, bouts: Bools | None) -> Floats:
    """Return (S,) the steady wear that would show as much as this wear does.

    Args:
        wear: (S,) of the weak part.
        bouts: (S,) when an intermittent fault shows; None: something is used up.
    """
    if bouts is None:
        steep = DEPLETION_STEEPNESS
        visible = np.expm1(steep * wear) / np.expm1(steep) * np.expm1(STEEPNESS)
    else:
        visible = np.expm1(STEEPNESS * wear) * np.where(bouts[: len(wear)], 1.0, REST_SHOWS)
    return np.asarray(np.log1p(visible) / STEEPNESS)


def _next_service(profile: SiteProfile, phase: float, now: float) -> float:
    """Return when the next planned service is due after ``now``; infinity: never."""
    if not profile.service_days:
        return np.inf
    due = max(math.floor((now - phase) / profile.service_days) + 1, 0)
    return phase + due * profile.service_days

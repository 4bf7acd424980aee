"""Sensor readings of generated machines from wear, load, heat, instruments and noise.

Wear moves several sensors, late and steeply, in a pattern that belongs to the mode; load,
heat, drifting instruments and noise move the same sensors without meaning anything.

Shapes: M machines, S steps of the site's calendar, K modes, F sensors. Time in days.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedpdm.data.fleet.assets import AMBIENT, LACKS, LEVEL, RESPONSE, SENSORS, draw_kinds
from fedpdm.data.fleet.calendar import Calendar, calendar, loads, persistent, regimes
from fedpdm.data.fleet.life import STEEPNESS, Course, live, pace
from fedpdm.data.fleet.settings import Dials, SiteProfile, SiteSpec
from fedpdm.data.rows import Floats, Ints

# Harmless disturbances in spreads, each the twin of a failure mode: they move the same
# sensors, in other proportions, and come and go within days. So a single reading tells
# little; what tells is a pattern of several, and learning it takes examples.
# fmt: off
DISTURBANCES = (
    # days  vib   kurt  temp  amps   oil  sound  flow   rpm    kW  hall
    (1.5, ( 3.2,  2.1,  0.0,  1.4,  0.0,  2.1,  0.0, -0.7,  1.0, 0.0)),  # hard, uneven material
    (4.0, ( 0.0,  0.0,  2.8,  0.4,  0.0,  0.0, -3.9,  0.0,  0.4, 0.0)),  # low water pressure
    (8.0, ( 0.0,  0.0,  0.9, -0.7, -3.5,  1.4,  0.0,  0.0, -0.7, 0.0)),  # thin oil
    (1.0, ( 0.5,  0.0,  0.7,  3.5,  0.0,  0.0,  0.0, -3.2,  0.7, 0.0)),  # low grid voltage
)
RECIPE = ( 0.6,  0.4,  0.0,  0.8,  0.0,  0.6,  0.0,  1.2,  0.0, 0.0)  # lightest to heaviest
# fmt: on
NOMINAL_LOAD = 0.75
IDLE_SHARE = 0.4  # share of a fault's signature that shows without load
FAST_NOISE = 0.15  # in spreads: of a single reading,
SLOW_NOISE = 0.10  # of a process that forgets within days,
DRIFT = 0.10  # and of an instrument that drifts over weeks
SLOW_DAYS, DRIFT_DAYS = 1.0, 12.0
MACHINE_OFFSET, SITE_OFFSET = 0.10, 0.25  # in spreads: how instruments differ,
SITE_GAIN = 0.04  # log-normal
SHIFT_GAIN = 0.1  # log-normal gain per unit of heterogeneity.feature_shift
CALIBRATED_DAYS = 180.0  # between two calibrations of a drifting instrument
CONCEPT_DAYS = 180.0  # in which concept_drift changes signatures by its log-normal factor
BLOCK = 16  # machines at a time, so that memory does not grow with the site
TABLE = {
    key: np.array([getattr(sensor, key) for sensor in SENSORS])
    for key in ("level", "spread", "load", "heat", "wear")
}


@dataclass(frozen=True)
class Telemetry:
    """What a site's machines did on its whole calendar.

    Attributes:
        around: what the site is exposed to.
        values: (M, S, F) readings in the sensors' units; NaN for sensors a machine lacks.
        courses: each machine's lives and wear.
        load: (M, S) share of the rating.
        regime: (M, S) which recipe runs.
        kinds: (M,) positions in ``KINDS``.
    """

    around: Calendar
    values: Floats
    courses: list[Course]
    load: Floats
    regime: Ints
    kinds: Ints


def operate(spec: SiteSpec, dials: Dials) -> Telemetry:
    """Run a site's machines over its calendar.

    A machine's draws are keyed by its number, so more machines leave the others alone.
    """
    profile, machines = spec.profile, range(spec.profile.machines)
    whole = spec.generator()
    around = calendar(spec, whole)
    bias = SITE_OFFSET * whole.normal(size=len(SENSORS))
    gain = np.exp(profile.calibration * SITE_GAIN * whole.normal(size=len(SENSORS)))
    gain[AMBIENT] = 1.0
    shift, shift_gain = _shift(dials.feature_shift, spec)
    gain *= shift_gain
    changing, creep = _concept(dials.concept_drift, spec, around.time)
    kinds = draw_kinds(profile.assets, spec.generators(machines, "asset"))
    values = np.empty((len(machines), spec.steps, len(SENSORS)))
    load = np.empty((len(machines), spec.steps))
    regime = np.empty((len(machines), spec.steps), dtype=np.int64)
    courses: list[Course] = []
    for first in range(0, len(machines), BLOCK):
        numbers = machines[first : first + BLOCK]
        block = slice(numbers.start, numbers.stop)
        each = spec.generators(numbers)
        load[block], regime[block], lived = run(spec, around, kinds, numbers, each)
        shown = np.stack([course.shown for course in lived])
        reading = _faults(profile, shown, load[block], kinds[block])
        if dials.concept_drift:
            reading *= changing
            reading += creep
        if profile.regimes > 1:
            place = regime[block] / (profile.regimes - 1) - 0.5
            reading += place[..., None] * np.array(RECIPE)
        reading += (load[block][..., None] - NOMINAL_LOAD) / 0.1 * TABLE["load"]
        _disturb(reading, spec.step_days, each)
        reading += (around.ambient[:, None] - 20) / 10 * TABLE["heat"]
        if profile.assets[0] < sum(profile.assets):
            reading += LEVEL[kinds[block], None]
        if dials.sensor_drift:
            drawn = spec.generators(numbers, "sensor drift")
            reading += dials.sensor_drift * _uncalibrated(around.time, drawn)
        noise = profile.noise * _noise(spec, each)
        own = np.stack([g.normal(size=(1, len(SENSORS))) for g in each])
        offset = profile.calibration * (MACHINE_OFFSET * own + bias)
        offset[..., AMBIENT] = 0.0
        offset[..., :AMBIENT] += shift[:AMBIENT]
        values[block] = TABLE["level"] + TABLE["spread"] * gain * (reading + noise + offset)
        courses += lived
    values[..., :AMBIENT] = np.maximum(values[..., :AMBIENT], 0.0)
    values[np.broadcast_to(LACKS[kinds][:, None], values.shape)] = np.nan
    return Telemetry(around, values, courses, load, regime, kinds)


def run(
    spec: SiteSpec, around: Calendar, kinds: Ints, numbers: range,
    each: list[np.random.Generator],
) -> tuple[Floats, Ints, list[Course]]:  # fmt: skip
    """Return (M, S) load, (M, S) recipe and the course of the machines ``numbers``."""
    recipe = np.stack([regimes(spec, g) for g in spec.generators(numbers, "regime")])
    load = loads(spec, around, recipe, each)
    wearing = pace(spec.profile, load, around) * spec.step_days / spec.profile.life_days
    courses = [
        live(spec, number, int(kinds[number]), wearing[place], load[place], around.time, generator)
        for place, (number, generator) in enumerate(zip(numbers, each, strict=True))
    ]
    return load, recipe, courses


def _faults(profile: SiteProfile, shown: Floats, load: Floats, kinds: Ints) -> Floats:
    """Return (M, S, F) what wear adds to the readings, in spreads."""
    # A fault shows more under load; past its limit a part would be broken.
    visible = np.expm1(STEEPNESS * np.minimum(shown, 1.25)) / np.expm1(STEEPNESS)
    visible = visible * (IDLE_SHARE + (1 - IDLE_SHARE) * load / profile.load)[..., None]
    return np.asarray(visible @ TABLE["wear"].T * RESPONSE[kinds, None, None])


def _disturb(reading: Floats, step_days: float, each: list[np.random.Generator]) -> None:
    """Add the harmless disturbances to (M, S, F) readings, in place."""
    for days, pattern in DISTURBANCES:
        white = np.stack([g.normal(size=(reading.shape[1], 1)) for g in each])
        reading += persistent(white, step_days / days) * np.array(pattern)


def _noise(spec: SiteSpec, each: list[np.random.Generator]) -> Floats:
    """Return (M, S, F) noise: of single readings, within days, and drifting over weeks."""
    shape = (spec.steps, len(SENSORS))
    fast, slow, drift = (np.stack([g.normal(size=shape) for g in each]) for _ in range(3))
    slow = persistent(slow, spec.step_days / SLOW_DAYS)
    drift = persistent(drift, spec.step_days / DRIFT_DAYS)
    return np.asarray(FAST_NOISE * fast + SLOW_NOISE * slow + DRIFT * drift)


def _shift(amount: float, spec: SiteSpec) -> tuple[Floats, Floats]:
    """Return (F,) offsets in spreads and (F,) gains of a site's sensors."""
    generator = spec.generator("feature shift")
    offset = amount * generator.normal(size=len(SENSORS))
    gain = np.exp(amount * SHIFT_GAIN * generator.normal(size=len(SENSORS)))
    gain[AMBIENT] = 1.0  # a thermometer in the hall is no part of a machine
    return offset, gain


def _concept(amount: float, spec: SiteSpec, time: Floats) -> tuple[Floats, Floats]:
    """Return (S, F) how faults show, relative to day 0, and (S, F) how far all levels crept."""
    generator = spec.generator("concept drift")
    how, far = generator.normal(size=(2, 1, len(SENSORS)))
    elapsed = amount * time[:, None] / CONCEPT_DAYS
    creep = 0.5 * elapsed * far
    creep[:, AMBIENT] = 0.0
    return np.exp(elapsed * how), creep


def _uncalibrated(time: Floats, each: list[np.random.Generator]) -> Floats:
    """Return (M, S, F) how far instruments have drifted since they were last calibrated."""
    slope = np.stack([g.normal(size=(1, len(SENSORS))) for g in each])
    phase = np.stack([g.uniform(0, CALIBRATED_DAYS, size=(1, len(SENSORS))) for g in each])
    slope[..., AMBIENT] = 0.0
    since = (time[:, None] + phase) % CALIBRATED_DAYS
    return np.asarray(slope * since / 100.0)

"""How generated machines wear, fail, are repaired, and what their sensors show.

Every machine has a latent wear per failure mode. Wear grows with load and temperature, at
a speed drawn anew for every life, and by shocks; the life ends when one mode's wear
crosses its own random limit. A repair resets all of it. Wear moves several sensors, late
and steeply, in a pattern that belongs to the mode; load, heat, drifting instruments and
noise move the same sensors without meaning anything.

Shapes: M machines, S steps of the plant's calendar, K modes, F sensors. Time in days.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedpdm.data.fleet_plant import Plant
from fedpdm.data.rows import Bools, Floats, Ints
from fedpdm.keys import numpy_generator


@dataclass(frozen=True)
class Sensor:
    """One sensor: its level at nominal load and 20 °C, and what moves it.

    Attributes:
        name: name with unit.
        level: reading of a healthy machine, in the sensor's unit.
        spread: a change that means something, in the same unit; all else is in spreads.
        load: response to load, per 0.1 of the rating.
        heat: response to the hall temperature, per 10 °C.
        wear: (K,) response at the end of a life that ends by each of ``MODES``.
    """

    name: str
    level: float
    spread: float
    load: float
    heat: float
    wear: tuple[float, ...]


# fmt: off
SENSORS = (
    #                               level spread load  heat   bearing align drive cool lubric filter
    Sensor("vibration_rms_mm_s",        3.2, 0.35,  0.3,  0.0,( 5.2,  5.6,  2.0,  0.0,  1.8,  0.0)),
    Sensor("vibration_kurtosis",        3.3, 0.30,  0.1,  0.0,( 5.0, -1.5,  0.6,  0.0,  1.0,  0.0)),
    Sensor("bearing_temperature_c",    58.0, 3.00,  0.4,  0.6,( 2.4,  2.0,  1.0,  4.8,  3.2,  1.2)),
    Sensor("motor_current_a",          62.0, 4.00,  0.6,  0.1,( 0.8,  1.6,  4.8,  0.8,  1.8,  1.0)),
    Sensor("oil_pressure_bar",          3.6, 0.22, -0.1, -0.8,( 0.0,  0.0,  0.0, -1.0, -4.8,  4.4)),
    Sensor("acoustic_emission_db",     48.0, 3.00,  0.2,  0.0,( 4.0,  0.0,  0.8,  0.0,  4.0,  1.0)),
    Sensor("coolant_flow_l_min",       36.0, 1.80,  0.1,  0.1,( 0.0,  0.0,  0.0, -5.2,  0.0,  0.0)),
    Sensor("shaft_speed_rpm",        1480.0, 8.00, -0.3,  0.0,( 0.0,  0.0, -4.4, -0.4, -0.8, -0.8)),
    Sensor("power_kw",                 34.0, 2.40,  0.7,  0.1,( 0.6,  1.6,  3.0,  1.0,  1.6,  2.0)),
    Sensor("ambient_temperature_c",    20.0, 1.00,  0.0, 10.0,( 0.0,  0.0,  0.0,  0.0,  0.0,  0.0)),
)

# Harmless disturbances in spreads, each the twin of a failure mode: they move the same
# sensors, in other proportions, and come and go within days. So a single reading tells
# little; what tells is a pattern of several, and learning it takes examples.
DISTURBANCES = (
    # days  vib   kurt  temp  amps   oil  sound  flow   rpm    kW  hall
    (1.5, ( 3.2,  2.1,  0.0,  1.4,  0.0,  2.1,  0.0, -0.7,  1.0, 0.0)),  # hard, uneven material
    (4.0, ( 0.0,  0.0,  2.8,  0.4,  0.0,  0.0, -3.9,  0.0,  0.4, 0.0)),  # low water pressure
    (8.0, ( 0.0,  0.0,  0.9, -0.7, -3.5,  1.4,  0.0,  0.0, -0.7, 0.0)),  # thin oil
    (1.0, ( 0.5,  0.0,  0.7,  3.5,  0.0,  0.0,  0.0, -3.2,  0.7, 0.0)),  # low grid voltage
)
# fmt: on
AMBIENT = len(SENSORS) - 1

NOMINAL_LOAD = 0.75
LOAD_EXPONENT = np.array(
    [1.6, 1.4, 1.8, 0.8, 1.2, 0.6]
)  # how much each mode's wear speeds up with load
HEAT_RATE = np.array([0.08, 0.05, 0.12, 0.30, 0.22, 0.10])  # … and per 10 °C, as an exponent
QUALITY = 0.2  # log-normal spread of wear speed between lives
SOUND = (0.15, 0.65)  # speed of the parts that are not a life's weak one, relative to it
LIMIT = 0.02  # log-normal spread of the wear at which a part breaks
SHOCK_EVERY = 40.0  # days between shocks of one mode
SHOCK = 0.02  # mean wear of a shock
STEEPNESS = 7.0  # wear w shows as (exp(7 w) - 1) / (exp(7) - 1)
IDLE_SHARE = 0.4  # share of a fault's signature that shows without load
DOWNTIME = (0.5, 3.0)  # days of repair

FAST_NOISE = 0.15  # in spreads: of a single reading,
SLOW_NOISE = 0.10  # of a process that forgets within days,
DRIFT = 0.10  # and of an instrument that drifts over weeks
SLOW_DAYS, DRIFT_DAYS = 1.0, 12.0
MACHINE_OFFSET, PLANT_OFFSET = 0.10, 0.25  # in spreads: how instruments differ,
PLANT_GAIN = 0.04  # log-normal
LOAD_NOISE, LOAD_DAYS = 0.08, 2.0  # share of the load; orders come and go
WEATHER, WEATHER_DAYS = 2.5, 3.0  # °C


@dataclass(frozen=True)
class Telemetry:
    """What a plant's machines did on its whole calendar.

    Attributes:
        time: (S,) days.
        values: (M, S, F) readings in the sensors' units.
        running: (M, S) false during repairs.
        life: (M, S) number of the machine's life.
        time_to_failure: (M, S) days to the failure that ends the life; NaN where none does.
        wear: (M, S, K) latent wear as a share of what the part of this life can bear.
        mode: (M, S) which of ``MODES`` ends the life; -1 where none does.
    """

    time: Floats
    values: Floats
    running: Bools
    life: Ints
    time_to_failure: Floats
    wear: Floats
    mode: Ints


def operate(plant: Plant, site: str, seed: int, steps: int, step_days: float) -> Telemetry:
    """Run a plant's machines for ``steps`` steps.

    A machine's draws are keyed by its number, so more machines leave the others alone.
    """
    time: Floats = np.arange(steps, dtype=np.float64) * step_days
    whole = numpy_generator(seed, "fleet", site)
    each = [numpy_generator(seed, "fleet", site, number) for number in range(plant.machines)]
    weather = persistent(whole.normal(size=(1, steps, 1)), step_days / WEATHER_DAYS)[0, :, 0]
    ambient = _ambient(plant, time) + WEATHER * weather
    orders = np.stack([g.normal(size=(steps, 1)) for g in each])
    orders = persistent(orders, step_days / LOAD_DAYS)[:, :, 0]
    load = np.clip(_load(plant, time) * (1 + LOAD_NOISE * orders), 0.05, 1.6)  # (M, S)
    pace = _pace(plant, load, ambient) * step_days / plant.life_days
    lives = [
        _live(plant, pace[number], time, step_days, each[number])
        for number in range(plant.machines)
    ]
    running, life, to_failure, wear, shown, mode = (
        np.stack(column) for column in zip(*lives, strict=True)
    )
    values = _sense(plant, load, ambient, shown, step_days, whole, each)
    return Telemetry(time, values, running, life, to_failure, wear, mode)


def persistent(white: Floats, forgotten: float) -> Floats:
    """Turn (M, S, F) white noise into AR(1) noise of unit variance.

    Args:
        white: standard normal draws.
        forgotten: step length as a share of the correlation time.
    """
    keep = float(np.exp(-forgotten))
    result = np.empty_like(white)
    result[:, 0] = white[:, 0]
    fresh = np.sqrt(1 - keep**2) * white
    for step in range(1, white.shape[1]):
        result[:, step] = keep * result[:, step - 1] + fresh[:, step]
    return result


def _ambient(plant: Plant, time: Floats) -> Floats:
    """Return (S,) hall temperature without weather: warmest in mid July at three o'clock."""
    yearly = np.cos(2 * np.pi * (time - 196) / 365)
    daily = np.cos(2 * np.pi * (time - 15 / 24))
    return plant.ambient_c + plant.ambient_yearly_c * yearly + plant.ambient_daily_c * daily


def _load(plant: Plant, time: Floats) -> Floats:
    """Return (S,) planned load as a share of the rating: day 0 is a Monday."""
    daily = 1 + plant.daily_cycle * np.cos(2 * np.pi * (time - 13 / 24))
    weekend = np.floor(time) % 7 >= 5
    return plant.load * daily * np.where(weekend, 1 - plant.weekend, 1.0)


def _pace(plant: Plant, load: Floats, ambient: Floats) -> Floats:
    """Return (M, S, K) speed of wear, 1 in the regime that the plant's machines are built for."""
    strain = (load / plant.load)[..., None] ** LOAD_EXPONENT
    heat = np.exp((ambient - plant.ambient_c)[:, None] / 10 * HEAT_RATE)
    return np.asarray(strain * heat)


def _live(
    plant: Plant, pace: Floats, time: Floats, step_days: float, generator: np.random.Generator
) -> tuple[Bools, Ints, Floats, Floats, Floats, Ints]:
    """Return the lives of one machine: ``Telemetry``'s columns, and (S, K) wear as it shows."""
    steps, modes = pace.shape
    # Shocks are drawn per step before lives are cut, so that they do not hang on them.
    count = generator.poisson(step_days / SHOCK_EVERY, size=pace.shape)
    shocks = count * generator.exponential(SHOCK, size=pace.shape)
    running, life = np.zeros(steps, dtype=bool), np.zeros(steps, dtype=np.int64)
    to_failure, mode = np.full(steps, np.nan), np.full(steps, -1, dtype=np.int64)
    wear, shown = np.zeros((steps, modes)), np.zeros((steps, modes))
    begin, number = 0, 0
    while begin < steps:
        weak = generator.choice(modes, p=plant.shares(float(time[begin])))
        speed: Floats = np.asarray(generator.uniform(SOUND[0], SOUND[1], size=modes))
        speed[weak] = 1.0
        speed *= float(np.exp(generator.normal(0.0, QUALITY)))
        limit = np.exp(generator.normal(0.0, LIMIT, size=modes))
        age = generator.uniform(0.0, 0.9)  # the plant is older than its record
        repair = generator.uniform(*DOWNTIME)
        grown = np.cumsum(speed * pace[begin:] + shocks[begin:], axis=0)
        grown += (age if number == 0 else 0.0) * speed / speed[weak]
        strain = (grown / limit).max(axis=1)  # (S - begin,) rises
        alive = int(np.searchsorted(strain, 1.0))
        part = slice(begin, begin + alive)
        running[part], life[part] = True, number
        wear[part], shown[part] = grown[:alive] / limit, grown[:alive]
        begin += alive
        number += 1
        if begin >= steps:
            break
        before = strain[alive - 1] if alive else 0.0
        crossing = min(max((1.0 - before) / (strain[alive] - before), 0.0), 1.0)
        failed = time[begin] - step_days * (1 - crossing)
        to_failure[part] = np.maximum(failed - time[part], 0.0)
        mode[part] = int(np.argmax(grown[alive] / limit))
        # Where a step is longer than a repair, time must still go on.
        begin = max(begin + 1, int(np.ceil((failed + repair) / step_days)))
    return running, life, to_failure, wear, shown, mode


def _sense(
    plant: Plant, load: Floats, ambient: Floats, shown: Floats, step_days: float,
    whole: np.random.Generator, each: list[np.random.Generator],
) -> Floats:  # fmt: skip
    """Return (M, S, F) readings."""
    shape = (load.shape[1], len(SENSORS))
    table = {
        key: np.array([getattr(sensor, key) for sensor in SENSORS])
        for key in ("level", "spread", "load", "heat", "wear")
    }
    # A fault shows more under load; past its limit a part would be broken.
    visible = np.expm1(STEEPNESS * np.minimum(shown, 1.25)) / np.expm1(STEEPNESS)
    visible = visible * (IDLE_SHARE + (1 - IDLE_SHARE) * load / plant.load)[..., None]
    reading = visible @ table["wear"].T
    reading += (load[..., None] - NOMINAL_LOAD) / 0.1 * table["load"]
    for days, pattern in DISTURBANCES:
        white = np.stack([g.normal(size=(shape[0], 1)) for g in each])
        reading += persistent(white, step_days / days) * np.array(pattern)
    reading += (ambient[:, None] - 20) / 10 * table["heat"]
    fast = np.stack([g.normal(size=shape) for g in each])
    slow = persistent(np.stack([g.normal(size=shape) for g in each]), step_days / SLOW_DAYS)
    drift = persistent(np.stack([g.normal(size=shape) for g in each]), step_days / DRIFT_DAYS)
    noise = plant.noise * (FAST_NOISE * fast + SLOW_NOISE * slow + DRIFT * drift)
    own = np.stack([g.normal(size=(1, shape[1])) for g in each])
    offset = plant.calibration * (MACHINE_OFFSET * own + PLANT_OFFSET * whole.normal(size=shape[1]))
    gain = np.exp(plant.calibration * PLANT_GAIN * whole.normal(size=shape[1]))
    offset[..., AMBIENT], gain[AMBIENT] = 0.0, 1.0
    values = table["level"] + table["spread"] * gain * (reading + noise + offset)
    values[..., :AMBIENT] = np.maximum(values[..., :AMBIENT], 0.0)
    return np.asarray(values)

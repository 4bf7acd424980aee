"""Kinds of generated machines: their sensors and failure modes.

All kinds share one list of sensors, so all sites of a federation share one feature space:
the instruments sit on the drive train (motor, coupling, bearings, oil and coolant circuit)
that a pump has like a conveyor. A kind of machine differs in its levels, in how strongly a
fault shows, in what it fails of, in how long it lives, and in the sensors it lacks: those
are missing in all its rows, and become the mean after scaling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fedpdm.data.rows import Bools, Floats, Ints

MODES = ("bearing", "alignment", "drive", "cooling", "lubrication", "filter")
"""Ways in which a machine wears out, the same physics in every site."""


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
# fmt: on
NAMES = tuple(sensor.name for sensor in SENSORS)
AMBIENT = len(SENSORS) - 1


@dataclass(frozen=True)
class Asset:
    """One kind of machine, in relation to the general rotating machine of ``SENSORS``.

    Attributes:
        level: by sensor, how far its healthy reading is off, in spreads.
        response: how strongly faults show, relative.
        weak: by mode, how prone it is to it; 1 where none is given, 0: cannot happen.
        life: how long it lives, relative to the site's ``life_days``.
        lacks: sensors that it does not have.
    """

    level: Mapping[str, float] = field(default_factory=dict)
    response: float = 1.0
    weak: Mapping[str, float] = field(default_factory=dict)
    life: float = 1.0
    lacks: tuple[str, ...] = ()


# fmt: off
ASSETS: dict[str, Asset] = {
    "rotating": Asset(),  # a general rotating machine, with every sensor
    "pump": Asset(  # centrifugal: flow and seals
        {"vibration_rms_mm_s": -1.0, "motor_current_a": -1.5, "coolant_flow_l_min": 3.0},
        weak={"bearing": 2, "lubrication": 2, "filter": 2, "drive": 0.5},
    ),
    "spindle": Asset(  # of machining: quiet when sound, loud when worn
        {"vibration_rms_mm_s": -3.0, "acoustic_emission_db": 2.0, "shaft_speed_rpm": 4.0,
         "bearing_temperature_c": -1.0},
        weak={"bearing": 3, "drive": 2, "cooling": 1.5, "filter": 0.3},
        response=1.15, life=0.8,
    ),
    "fan": Asset(  # of ventilation or cooling: belt, no oil circuit, no coolant
        {"vibration_rms_mm_s": 1.5, "motor_current_a": -4.0, "power_kw": -4.0},
        weak={"alignment": 3, "bearing": 2, "drive": 1.5, "filter": 2, "cooling": 0,
              "lubrication": 0},
        response=0.9, life=1.2,
        lacks=("oil_pressure_bar", "coolant_flow_l_min", "acoustic_emission_db"),
    ),
    "compressor": Asset(  # screw: hot, oil flooded
        {"bearing_temperature_c": 3.0, "oil_pressure_bar": 3.0, "power_kw": 3.0,
         "motor_current_a": 3.0},
        weak={"lubrication": 3, "cooling": 3, "filter": 2, "alignment": 0.5},
        life=1.1,
    ),
    "conveyor": Asset(  # belt: geared motor, dust, shocks
        {"vibration_rms_mm_s": 2.0, "shaft_speed_rpm": -3.0, "acoustic_emission_db": 1.5},
        weak={"drive": 3, "alignment": 2, "bearing": 2, "lubrication": 1, "cooling": 0,
              "filter": 0},
        response=0.9, life=0.9,
        lacks=("oil_pressure_bar", "coolant_flow_l_min"),
    ),
}
# fmt: on
KINDS = tuple(ASSETS)

# Each kind's numbers as arrays: A kinds, K modes, F sensors.
LEVEL: Floats = np.array([[a.level.get(name, 0.0) for name in NAMES] for a in ASSETS.values()])
RESPONSE: Floats = np.array([asset.response for asset in ASSETS.values()])
WEAK: Floats = np.array([[float(a.weak.get(m, 1)) for m in MODES] for a in ASSETS.values()])
LIFE: Floats = np.array([asset.life for asset in ASSETS.values()])
LACKS: Bools = np.array([[name in asset.lacks for name in NAMES] for asset in ASSETS.values()])


def draw_kinds(weights: tuple[float, ...], generators: list[np.random.Generator]) -> Ints:
    """Return (M,) kinds of machine, one draw from each machine's own generator."""
    shares: Floats = np.array(weights) / sum(weights)
    edges = np.cumsum(shares)
    drawn = [int(np.searchsorted(edges, g.random(), side="right")) for g in generators]
    return np.minimum(np.array(drawn, dtype=np.int64), int(np.flatnonzero(shares)[-1]))

"""Settings of the generator: a site (``conf/site/NAME.yaml``), archetypes, the whole fleet.

``archetype: machine_shop`` gives a site the settings that are typical of its industry; its own
yaml takes precedence. The numbers are round ones in a plausible range, not survey results.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any

import numpy as np

from fedpdm.data.fleet.assets import KINDS, MODES
from fedpdm.errors import ConfigError
from fedpdm.seeding import numpy_generator

SCENARIOS = ("progressive", "sudden", "intermittent", "depletion", "communication")
"""How a failure comes about; the last is one of the data link, and no machine fails."""

SIZES = {"small": (10, 20), "medium": (20, 40), "large": (40, 60), "very_large": (60, 100)}
"""Machines of a site by size class: from, to."""
MIXED = {"small": 0.3, "medium": 0.4, "large": 0.2, "very_large": 0.1}
"""How common each class is where ``size: mixed``."""

CHANGE = (0.2, 0.8)
"""Shares of the record between which a change of weak parts is drawn."""

# fmt: off
_BUNDLES: dict[str, Any] = {
    "archetype":        ("machine_shop", "process_plant", "water_works", "cold_chain", "warehouse"),
    "industry":         ("metalworking", "chemical",      "water",       "food",       "logistics"),
    "size":             ("medium",       "large",         "small",       "medium",     "large"),
    "life_days":        (60,             70,              80,            65,           60),
    "load":             (0.7,            0.85,            0.65,          0.7,          0.65),
    "daily_cycle":      (0.05,           0.03,            0.25,          0.12,         0.1),
    "weekend":          (0.8,            0.0,             0.1,           0.05,         0.5),
    "shifts":           (2,              3,               0,             0,            3),
    "holidays":         (10,             0,               0,             0,            6),
    "regimes":          (3,              1,               1,             2,            2),
    "service_days":     (120,            180,             0,             150,          0),
    "ambient_c":        (22,             26,              15,            18,           20),
    "ambient_daily_c":  (2,              4,               4,             3,            5),
    "ambient_yearly_c": (4,              6,               9,             10,           9),
    "assets": {
        "pump":         (2,              6,               9,             2,            0),
        "spindle":      (6,              0,               0,             0,            0),
        "fan":          (1,              2,               1,             3,            2),
        "compressor":   (1,              3,               0,             6,            1),
        "conveyor":     (0,              0,               0,             0,            8),
    },
    "modes": {
        "bearing":      (3,              2,               2,             1,            2),
        "alignment":    (2,              1,               1,             1,            3),
        "drive":        (2,              0,               1,             0,            4),
        "cooling":      (1,              3,               0,             4,            0),
        "lubrication":  (1,              3,               2,             3,            1),
        "filter":       (0,              3,               4,             1,            0),
    },
    "scenarios": {
        "progressive":  (6,              7,               5,             6,            5),
        "sudden":       (2,              1,               0,             1,            3),
        "intermittent": (1,              0,               1,             0,            2),
        "depletion":    (1,              3,               4,             2,            0),
        "communication": (0,             1,               2,             1,            1),
    },
}
# fmt: on
ARCHETYPES: dict[str, dict[str, Any]] = {
    str(name): {
        key: {part: row[column] for part, row in rows.items()}
        if isinstance(rows, dict)
        else rows[column]
        for key, rows in _BUNDLES.items()
    }
    for column, name in enumerate(_BUNDLES["archetype"])
}
"""The settings that each archetype stands for, by its name."""


def _number(default: float | None, low: float, high: float = math.inf) -> Any:
    """Return a field that takes numbers between ``low`` and ``high``."""
    return field(default=default, metadata={"range": (low, high)})


def _weights(names: tuple[str, ...], what: str, default: tuple[float, ...]) -> Any:
    """Return a field that takes a weight for each of ``names``; each of them is a ``what``."""
    return field(default=default, metadata={"weights": (names, what)})


@dataclass(frozen=True)
class SiteProfile:
    """One site's regime. Degradation works alike everywhere; this is what differs.

    Attributes:
        industry: a word for reports.
        machines: how many machines there are.
        life_days: typical time from a repair to the next failure, in days.
        load: mean load as a share of the rating.
        daily_cycle: how far the load swings over a day, as a share of ``load``.
        weekend: share of the load that is missing on Saturday and Sunday.
        ambient_c: mean hall temperature, °C.
        ambient_daily_c: amplitude of its daily swing, °C.
        ambient_yearly_c: amplitude of its yearly swing, °C.
        noise: measurement and process noise, as a multiple of the usual one.
        calibration: spread of gains and offsets between sites and machines, likewise.
        modes: weight of each of ``MODES`` (all, in that order): how often it is the weak part.
        change_day: from this day of the record on, repaired machines come back with the weak
            parts of ``modes_later``: other products, other suppliers. None: drawn from the seed
            and the site's name, anywhere in the middle of the record (``CHANGE``).
        modes_later: the weights from then on; all 0 for no change.
        archetype: name of the bundle of settings (``ARCHETYPES``) that the others start from.
        size: class that ``machines`` is drawn from (``SIZES``, or ``mixed``); empty: as given.
        assets: weight of each kind of machine (``KINDS``, in that order).
        scenarios: weight of each of ``SCENARIOS``: how a life goes. The weight of
            ``communication`` counts failures of the data link per life.
        shifts: eight-hour shifts of a working day from six o'clock on; 0: no shifts.
        holidays: closed days per year.
        regimes: how many products or recipes a machine changes between.
        service_days: days between planned services, which renew a machine; 0: none.
    """

    industry: str = "general"
    machines: int = _number(20, 1)
    life_days: float = _number(65.0, 1)
    load: float = _number(0.75, 0.1, 1.5)
    daily_cycle: float = _number(0.15, 0, 1)
    weekend: float = _number(0.2, 0, 1)
    ambient_c: float = _number(20.0, -40, 60)
    ambient_daily_c: float = _number(3.0, 0, 30)
    ambient_yearly_c: float = _number(5.0, 0, 40)
    noise: float = _number(1.0, 0)
    calibration: float = _number(1.0, 0)
    modes: tuple[float, ...] = _weights(MODES, "way of failing", (1.0,) * len(MODES))
    change_day: float | None = _number(None, 0)
    modes_later: tuple[float, ...] = _weights(MODES, "way of failing", (0.0,) * len(MODES))
    archetype: str = field(default="", metadata={"names": tuple(ARCHETYPES)})
    size: str = field(default="", metadata={"names": (*SIZES, "mixed")})
    assets: tuple[float, ...] = _weights(KINDS, "kind of machine", (1.0, *(0.0,) * 5))
    scenarios: tuple[float, ...] = _weights(SCENARIOS, "scenario", (1.0, *(0.0,) * 4))
    shifts: int = _number(0, 0, 3)
    holidays: int = _number(0, 0, 200)
    regimes: int = _number(1, 1, 10)
    service_days: float = _number(0.0, 0)


@dataclass(frozen=True)
class Dials:
    """Settings of the whole fleet. At rest by default, sites are what their own settings say.

    Attributes:
        missing: share of readings that are missing, one by one.
        outages: share of readings that are missing because a sensor is out for a while.
        outage_hours: mean length of an outage.
        feature_shift: how far the sensors of a site read beside those of another, in
            spreads (a change that means something), beyond what instruments differ anyway.
        label_skew: log-normal spread of ``life_days`` between sites: some fail often.
        quantity_skew: log-normal spread of the number of machines between sites.
        prevalence: wanted share of rows with a failure within ``prevalence_horizon``, or
            None: as ``life_days`` makes it. Sites spread around it with ``label_skew``.
        prevalence_horizon: in days.
        concept_drift: log-normal change of how faults show, per half year.
        sensor_drift: drift of an instrument from calibration to calibration, in spreads
            per 100 days (standard deviation over instruments).
        dropout: share of readings lost to sensors that are dead for a month.
    """

    missing: float = _number(0.0, 0, 0.9)
    outages: float = _number(0.0, 0, 0.9)
    outage_hours: float = _number(36.0, 0)
    feature_shift: float = _number(0.0, 0, 10)
    label_skew: float = _number(0.0, 0, 2)
    quantity_skew: float = _number(0.0, 0, 2)
    prevalence: float | None = _number(None, 0.001, 0.6)
    prevalence_horizon: float = _number(7.0, 0.01, 3650)
    concept_drift: float = _number(0.0, 0, 10)
    sensor_drift: float = _number(0.0, 0, 10)
    dropout: float = _number(0.0, 0, 0.9)


HETEROGENEITY = ("feature_shift", "label_skew", "quantity_skew")
"""The dials that stand below ``data.heterogeneity``."""


@dataclass(frozen=True)
class SiteSpec:
    """All that decides what is generated for one site, but for the dials.

    Attributes:
        name: the site; every draw is keyed by it.
        profile: its settings.
        seed: of every draw.
        steps: how many steps the record has.
        step_days: days between two steps.
    """

    name: str
    profile: SiteProfile
    seed: int
    steps: int
    step_days: float

    @property
    def change_day(self) -> float | None:
        """The day of the change of weak parts, as set or drawn; None where nothing changes."""
        if sum(self.profile.modes_later) <= 0:
            return None
        if self.profile.change_day is not None:
            return self.profile.change_day
        share = float(self.generator("change").uniform(*CHANGE))
        return float(round(share * self.steps * self.step_days))

    def generator(self, *key: str | int) -> np.random.Generator:
        """Return the site's own generator for ``key``."""
        return numpy_generator(self.seed, "fleet", self.name, *key)

    def generators(self, machines: Iterable[int], *key: str) -> list[np.random.Generator]:
        """Return for each of ``machines``, by number, its own generator for ``key``."""
        return [self.generator(machine, *key) for machine in machines]


def dials(heterogeneity: Mapping[str, Any] | None, **others: Any) -> Dials:
    """Return checked dials.

    Args:
        heterogeneity: those of ``HETEROGENEITY``, all optional.
        **others: the remaining fields of ``Dials``.

    Raises:
        ConfigError: an unknown name or a value out of range, by its key (``data.…``).
    """
    given = {} if heterogeneity is None else heterogeneity
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"data.heterogeneity={given} must be a block, e.g. data.heterogeneity.label_skew=0.5"
        )
    for key in given:
        if key not in HETEROGENEITY:
            where = f"data.heterogeneity.{key} does not exist"
            raise ConfigError(_among(where, key, HETEROGENEITY))
    known = {one.name: one for one in fields(Dials)}
    values = {f"heterogeneity.{key}": value for key, value in given.items()} | others
    names = {key: key.removeprefix("heterogeneity.") for key in values}
    return Dials(
        **{names[key]: _checked(f"data.{key}", known[names[key]], values[key]) for key in values}
    )


def site_settings(site: str, settings: Mapping[str, Any] | None) -> SiteProfile:
    """Return the settings of ``site``; what its yaml leaves out keeps its default.

    Raises:
        ConfigError: an unknown key, or a value out of range; names ``sites.SITE.KEY``.
    """
    given = {} if settings is None else settings
    if not isinstance(given, Mapping):
        raise ConfigError(f"sites.{site}={given} must be a block of settings, e.g. machines: 20")
    known = {one.name: one for one in fields(SiteProfile)}
    for key in given:
        if key not in known:
            says = f"sites.{site}.{key} is no setting of a generated site"
            raise ConfigError(
                f"{_among(says, key, [*known, 'costs'])} (a site with files of its own needs "
                "data=files)"
            )
    own = {key: value for key, value in given.items() if value is not None}
    if "archetype" in own:
        name = _checked(f"sites.{site}.archetype", known["archetype"], own["archetype"])
        # Who counts the machines does not ask for a size to be drawn.
        unasked = "size" if "machines" in own else None
        own = {key: value for key, value in ARCHETYPES[name].items() if key != unasked} | own
    return SiteProfile(
        **{key: _checked(f"sites.{site}.{key}", known[key], own[key]) for key in own}
    )


def _checked(where: str, setting: Field[Any], value: Any) -> Any:
    """Return a value as its setting wants it, or raise ConfigError at ``where``."""
    if value is None and setting.default is None:
        return None
    if "range" in setting.metadata:
        low, high = setting.metadata["range"]
        if not isinstance(setting.default, int):
            return number(where, value, low, high)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{where}={value} must be a whole number of at least {low:g}")
        return int(number(where, value, low, high))
    if "weights" in setting.metadata:
        return weights(where, value, *setting.metadata["weights"])
    known = setting.metadata.get("names")
    if known is not None and value not in known:
        raise ConfigError(_among(f"{where}={value} does not exist", value, known))
    return str(value)


def number(where: str, value: object, low: float, high: float = math.inf) -> float:
    """Return a finite number between ``low`` and ``high``, or raise ConfigError at ``where``."""
    allowed = f"at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if not numeric or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type,operator]
        raise ConfigError(f"{where}={value} must be a number, {allowed}")
    return float(value)  # type: ignore[arg-type]


def weights(where: str, value: object, names: tuple[str, ...], what: str) -> tuple[float, ...]:
    """Return one weight per name from a mapping, or raise ConfigError at ``where``.

    Args:
        where: key for the message.
        value: weights by name; names that are left out get 0.
        names: those that exist.
        what: what a name is called in messages.
    """
    if not isinstance(value, Mapping):
        example = f"{{{names[0]}: 2, {names[1]}: 1}}"
        raise ConfigError(f"{where}={value} must give weights by name, e.g. {example}")
    for name in value:
        if name not in names:
            raise ConfigError(_among(f"{where}.{name} is no {what}", name, names))
    found = tuple(number(f"{where}.{name}", value.get(name, 0), 0) for name in names)
    # No life ends by a failed data link: another scenario needs a weight.
    lives = names[:-1] if names == SCENARIOS else names
    if sum(found[: len(lives)]) <= 0:
        raise ConfigError(f"{where}: at least one of {', '.join(lives)} needs a weight above 0")
    return found


def _among(says: str, name: object, known: Sequence[str]) -> str:
    """Return a sentence on an unknown name, with the closest one and all that there are."""
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"{says}{f' (did you mean {close[0]}?)' if close else ''}; there are {', '.join(known)}"


def draw_size(size: str, generator: np.random.Generator) -> int:
    """Return a number of machines for a size class, or for ``mixed`` of a drawn class."""
    drawn = str(generator.choice(list(MIXED), p=list(MIXED.values())))
    low, high = SIZES[drawn if size == "mixed" else size]
    return int(generator.integers(low, high + 1))

"""What a generated plant is like: the settings that ``conf/site/NAME.yaml`` may hold."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from fedpdm.errors import ConfigError

MODES = ("bearing", "alignment", "drive", "cooling", "lubrication", "filter")
"""Ways in which a machine wears out, the same physics in every plant."""


@dataclass(frozen=True)
class Plant:
    """One plant's regime. Degradation works alike everywhere; this is what differs.

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
        calibration: spread of gains and offsets between plants and machines, likewise.
        modes: weight of each of ``MODES`` (all, in that order): how often it is the weak part.
        change_day: from this day of the record on, repaired machines come back with the weak
            parts of ``modes_later``: other products, other suppliers.
        modes_later: the weights from then on; all 0 for no change.
    """

    industry: str = "general"
    machines: int = 20
    life_days: float = 65.0
    load: float = 0.75
    daily_cycle: float = 0.15
    weekend: float = 0.2
    ambient_c: float = 20.0
    ambient_daily_c: float = 3.0
    ambient_yearly_c: float = 5.0
    noise: float = 1.0
    calibration: float = 1.0
    modes: tuple[float, ...] = (1.0,) * len(MODES)
    change_day: float = 0.0
    modes_later: tuple[float, ...] = (0.0,) * len(MODES)

    def shares(self, day: float) -> tuple[float, ...]:
        """Return (K,) how likely each mode is the weak part of a life that begins on ``day``."""
        changed = sum(self.modes_later) > 0 and day >= self.change_day
        weights = self.modes_later if changed else self.modes
        return tuple(weight / sum(weights) for weight in weights)


# Smallest and largest sensible value of every number.
RANGES: dict[str, tuple[float, float]] = {
    "machines": (1, math.inf),
    "life_days": (1, math.inf),
    "load": (0.1, 1.5),
    "daily_cycle": (0, 1),
    "weekend": (0, 1),
    "ambient_c": (-40, 60),
    "ambient_daily_c": (0, 30),
    "ambient_yearly_c": (0, 40),
    "noise": (0, math.inf),
    "calibration": (0, math.inf),
    "change_day": (0, math.inf),
}


def plant_settings(site: str, settings: Mapping[str, Any] | None) -> Plant:
    """Return the settings of ``site``; what its yaml leaves out keeps its default.

    Raises:
        ConfigError: an unknown key, or a value out of range; names ``sites.SITE.KEY``.
    """
    given = {} if settings is None else settings
    if not isinstance(given, Mapping):
        raise ConfigError(f"sites.{site}={given} must be a block of settings, e.g. machines: 20")
    known = [field.name for field in fields(Plant)]
    values: dict[str, Any] = {}
    for key, value in given.items():
        where = f"sites.{site}.{key}"
        if key not in known:
            raise ConfigError(
                f"{where} is no setting of a generated plant{_close(str(key), known)}; there are "
                f"{', '.join(known)} (a plant with files of its own needs data=files)"
            )
        if key == "industry":
            values[key] = str(value)
        elif key == "modes":
            values[key] = _modes(where, value)
        elif key == "modes_later":
            values[key] = _modes(where, value) if value is not None else Plant.modes_later
        elif key == "machines" and (isinstance(value, bool) or not isinstance(value, int)):
            raise ConfigError(f"{where}={value} must be a whole number of at least 1")
        else:
            low, high = RANGES[key]
            values[key] = type(getattr(Plant, key))(number(where, value, low, high))
    return Plant(**values)


def number(where: str, value: object, low: float, high: float = math.inf) -> float:
    """Return a finite number between ``low`` and ``high``, or raise ConfigError at ``where``."""
    allowed = f"at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if not numeric or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type,operator]
        raise ConfigError(f"{where}={value} must be a number, {allowed}")
    return float(value)  # type: ignore[arg-type]


def _modes(where: str, value: object) -> tuple[float, ...]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}={value} must give weights, e.g. {{bearing: 2, cooling: 1}}")
    for mode in value:
        if mode not in MODES:
            raise ConfigError(
                f"{where}.{mode} is no way of failing{_close(str(mode), list(MODES))}; there are "
                f"{', '.join(MODES)}"
            )
    weights = tuple(number(f"{where}.{mode}", value.get(mode, 0), 0) for mode in MODES)
    if sum(weights) <= 0:
        raise ConfigError(f"{where}: at least one of {', '.join(MODES)} needs a weight above 0")
    return weights


def _close(name: str, known: list[str]) -> str:
    match = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {match[0]}?)" if match else ""

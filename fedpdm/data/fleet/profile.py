"""What a generated site is like: the settings that ``conf/site/NAME.yaml`` may hold."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from fedpdm.data.fleet.archetypes import ARCHETYPES, SIZES
from fedpdm.data.fleet.assets import KINDS, MODES, weak_shares
from fedpdm.errors import ConfigError

SCENARIOS = ("progressive", "sudden", "intermittent", "depletion", "communication")
"""How a failure comes about; the last is one of the data link, and no machine fails."""


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
            parts of ``modes_later``: other products, other suppliers.
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
    archetype: str = ""
    size: str = ""
    assets: tuple[float, ...] = (1.0, *(0.0,) * (len(KINDS) - 1))
    scenarios: tuple[float, ...] = (1.0, *(0.0,) * (len(SCENARIOS) - 1))
    shifts: int = 0
    holidays: int = 0
    regimes: int = 1
    service_days: float = 0.0

    def shares(self, day: float, kind: int = 0) -> tuple[float, ...]:
        """Return (K,) how likely each mode is the weak part of a life that begins on ``day``.

        Args:
            day: of the record.
            kind: of the machine, a position in ``KINDS``.
        """
        changed = sum(self.modes_later) > 0 and day >= self.change_day
        return weak_shares(self.modes_later if changed else self.modes, kind)


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
    "shifts": (0, 3),
    "holidays": (0, 200),
    "regimes": (1, 10),
    "service_days": (0, math.inf),
}
WEIGHTS: dict[str, tuple[tuple[str, ...], str]] = {
    "modes": (MODES, "way of failing"),
    "modes_later": (MODES, "way of failing"),
    "assets": (KINDS, "kind of machine"),
    "scenarios": (SCENARIOS, "scenario"),
}
"""Settings that are weights by name: the names, and what one is called."""


def site_settings(site: str, settings: Mapping[str, Any] | None) -> SiteProfile:
    """Return the settings of ``site``; what its yaml leaves out keeps its default.

    Raises:
        ConfigError: an unknown key, or a value out of range; names ``sites.SITE.KEY``.
    """
    given = {} if settings is None else settings
    if not isinstance(given, Mapping):
        raise ConfigError(f"sites.{site}={given} must be a block of settings, e.g. machines: 20")
    known = [field.name for field in fields(SiteProfile)]
    for key in given:
        if key not in known:
            raise ConfigError(
                f"sites.{site}.{key} is no setting of a generated site{_close(str(key), known)}; "
                f"there are {', '.join([*known, 'costs'])} (a site with files of its own needs "
                "data=files)"
            )
    own = {key: value for key, value in given.items() if value is not None}
    if "archetype" in own:
        archetype = _one_of(f"sites.{site}.archetype", own["archetype"], list(ARCHETYPES))
        # Who counts the machines does not ask for a size to be drawn.
        counted = ("size",) if "machines" in own else ()
        own = {k: v for k, v in ARCHETYPES[archetype].items() if k not in counted} | own
    return SiteProfile(**{key: _checked(f"sites.{site}.{key}", key, own[key]) for key in own})


def _checked(where: str, key: str, value: object) -> Any:
    if key in ("industry", "archetype"):
        return str(value)
    if key == "size":
        return _one_of(where, value, [*SIZES, "mixed"])
    if key in WEIGHTS:
        return weights(where, value, *WEIGHTS[key])
    low, high = RANGES[key]
    if isinstance(getattr(SiteProfile, key), int):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{where}={value} must be a whole number of at least {low:g}")
        return int(number(where, value, low, high))
    return number(where, value, low, high)


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
            raise ConfigError(
                f"{where}.{name} is no {what}{_close(str(name), list(names))}; there are "
                f"{', '.join(names)}"
            )
    found = tuple(number(f"{where}.{name}", value.get(name, 0), 0) for name in names)
    # A link that fails makes no life: one of the others must.
    lives = found[:-1] if names == SCENARIOS else found
    if sum(lives) <= 0:
        some = ", ".join(names[: len(lives)])
        raise ConfigError(f"{where}: at least one of {some} needs a weight above 0")
    return found


def _one_of(where: str, value: object, known: list[str]) -> str:
    if value not in known:
        raise ConfigError(
            f"{where}={value} does not exist{_close(str(value), known)}; there are "
            f"{', '.join(known)}"
        )
    return str(value)


def _close(name: str, known: list[str]) -> str:
    match = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {match[0]}?)" if match else ""

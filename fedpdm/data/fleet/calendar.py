"""Outside influences on a generated site: calendar, weather, shifts, orders, recipes.

Exogenous: it moves sensors and wear, and neither moves it. Shapes: M machines, S steps of
the site's calendar. Time in days; day 0 is Monday, the first of January.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedpdm.data.fleet.settings import SiteProfile, SiteSpec
from fedpdm.data.rows import Bools, Floats, Ints

WEATHER, WEATHER_DAYS = 2.5, 3.0  # °C
LOAD_NOISE, LOAD_DAYS = 0.08, 2.0  # share of the load; orders come and go
STANDBY = 0.3  # share of the load outside shifts and on closed days
FIRST_SHIFT, SHIFT_HOURS = 6, 8
REGIME_LOAD, REGIME_DAYS = (0.8, 1.2), 3.0  # lightest and heaviest recipe; how long one runs


@dataclass(frozen=True)
class Calendar:
    """A site's exogenous series: (S,) each.

    Attributes:
        time: days.
        ambient: hall temperature, °C, with weather.
        weather: the weather's part of it.
        planned: load as a share of the rating, before orders and recipes.
        working: whether it is a working hour: within a shift, and not on a closed day.
    """

    time: Floats
    ambient: Floats
    weather: Floats
    planned: Floats
    working: Bools


def calendar(spec: SiteSpec, whole: np.random.Generator) -> Calendar:
    """Draw a site's calendar; ``whole`` is the generator of what all its machines share."""
    profile, step_days = spec.profile, spec.step_days
    time: Floats = np.arange(spec.steps, dtype=np.float64) * step_days
    noise = persistent(whole.normal(size=(1, spec.steps, 1)), step_days / WEATHER_DAYS)[0, :, 0]
    weather = WEATHER * noise
    planned, working = planned_load(profile, time), np.ones(spec.steps, dtype=bool)
    if profile.shifts:
        since = ((time % 1.0) * 24 - FIRST_SHIFT) % 24
        working &= since < SHIFT_HOURS * profile.shifts
    if profile.holidays:
        generator = spec.generator("holidays")
        years = int(time[-1] // 365) + 1
        closed = np.concatenate(
            [365 * year + generator.permutation(365)[: profile.holidays] for year in range(years)]
        )
        working &= ~np.isin(np.floor(time), closed)
    if profile.shifts or profile.holidays:
        planned = np.where(working, planned, np.minimum(planned, STANDBY * profile.load))
    return Calendar(time, hall_temperature(profile, time) + weather, weather, planned, working)


def hall_temperature(profile: SiteProfile, time: Floats) -> Floats:
    """Return (S,) hall temperature without weather: warmest in mid July at three o'clock."""
    yearly = np.cos(2 * np.pi * (time - 196) / 365)
    daily = np.cos(2 * np.pi * (time - 15 / 24))
    return profile.ambient_c + profile.ambient_yearly_c * yearly + profile.ambient_daily_c * daily


def planned_load(profile: SiteProfile, time: Floats) -> Floats:
    """Return (S,) load as a share of the rating, without shifts and closed days."""
    daily = 1 + profile.daily_cycle * np.cos(2 * np.pi * (time - 13 / 24))
    weekend = np.floor(time) % 7 >= 5
    return profile.load * daily * np.where(weekend, 1 - profile.weekend, 1.0)


def loads(
    spec: SiteSpec, around: Calendar, regime: Ints, each: list[np.random.Generator]
) -> Floats:
    """Return (M, S) load: as planned, times orders, times the recipe's weight.

    Args:
        spec: the site.
        around: its calendar.
        regime: (M, S) recipe that each machine runs.
        each: one generator per machine.
    """
    orders = np.stack([g.normal(size=(spec.steps, 1)) for g in each])
    orders = persistent(orders, spec.step_days / LOAD_DAYS)[:, :, 0]
    planned = around.planned * (1 + LOAD_NOISE * orders)
    if spec.profile.regimes > 1:
        planned = planned * np.linspace(*REGIME_LOAD, spec.profile.regimes)[regime]
    return np.clip(planned, 0.05, 1.6)


def regimes(spec: SiteSpec, generator: np.random.Generator) -> Ints:
    """Return (S,) which recipe a machine runs."""
    if spec.profile.regimes == 1:
        return np.zeros(spec.steps, dtype=np.int64)
    changes = generator.random(spec.steps) < -np.expm1(-spec.step_days / REGIME_DAYS)
    drawn = generator.integers(spec.profile.regimes, size=spec.steps)
    since = np.maximum.accumulate(np.where(changes, np.arange(spec.steps), 0))
    return np.asarray(drawn[since], dtype=np.int64)


def persistent(white: Floats, forgotten: float) -> Floats:
    """Turn (M, S, F) white noise into AR(1) noise of unit variance.

    Args:
        white: standard normal draws.
        forgotten: step length as a share of the correlation time.
    """
    keep = float(np.exp(-forgotten))
    # Steps first, so that each of the many small sums runs over memory in one piece.
    result = np.ascontiguousarray(white.transpose(1, 0, 2))
    result[1:] *= np.sqrt(1 - keep**2)
    kept = np.empty_like(result[0])
    for step in range(1, len(result)):
        np.multiply(result[step - 1], keep, out=kept)
        np.add(kept, result[step], out=result[step])
    return np.ascontiguousarray(result.transpose(1, 0, 2))

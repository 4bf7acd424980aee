"""From a site's settings and the fleet's dials to the site that is generated.

Every draw is keyed by the site's name, and none looks at another site: a site is the same
whoever else takes part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import numpy as np

from fedpdm.data.fleet.archetypes import draw_size
from fedpdm.data.fleet.assets import draw_kinds
from fedpdm.data.fleet.dials import Dials
from fedpdm.data.fleet.log import log_of, outcomes, soon
from fedpdm.data.fleet.physics import run, surroundings
from fedpdm.data.fleet.profile import SiteProfile
from fedpdm.errors import ConfigError
from fedpdm.seeding import numpy_generator

MACHINES = 64  # of the sites that a wanted prevalence is tried on
ROUNDS, MISS = 8, 0.1  # tries; how far off, relatively, is still what was asked for
HALVINGS = 12  # further tries between two lives, one too short and one too long


def adapt(
    profile: SiteProfile, dials: Dials, site: str, seed: int, steps: int, step_days: float
) -> SiteProfile:
    """Return ``site`` with its drawn size, and the dials' effect on size and life.

    Raises:
        ConfigError: the wanted prevalence cannot be reached with this site's settings.
    """
    if profile.size:
        drawn = draw_size(profile.size, numpy_generator(seed, "fleet", site, "size"))
        profile = replace(profile, machines=drawn)
    if dials.prevalence is not None:
        shape = replace(profile, industry="", archetype="", size="", machines=MACHINES)
        days = _life_for(
            shape, dials.prevalence, dials.prevalence_horizon, seed, steps, step_days, site
        )
        profile = replace(profile, life_days=days)
    # Both spreads keep their mean over sites.
    if dials.quantity_skew:
        factor = _log_normal(dials.quantity_skew, numpy_generator(seed, "fleet", site, "quantity"))
        profile = replace(profile, machines=max(1, round(profile.machines * factor)))
    if dials.label_skew:
        factor = _log_normal(dials.label_skew, numpy_generator(seed, "fleet", site, "label"))
        profile = replace(profile, life_days=max(1.0, profile.life_days / factor))
    return profile


def _log_normal(spread: float, generator: np.random.Generator) -> float:
    return math.exp(spread * float(generator.normal()) - spread**2 / 2)


def _life_for(
    profile: SiteProfile,
    wanted: float,
    horizon: float,
    seed: int,
    steps: int,
    step_days: float,
    site: str,
) -> float:
    try:
        return _calibrated(profile, wanted, horizon, seed, steps, step_days)
    except ConfigError as error:
        raise ConfigError(f"{site}: {error}") from None


@lru_cache(maxsize=256)
def _calibrated(
    profile: SiteProfile, wanted: float, horizon: float, seed: int, steps: int, step_days: float
) -> float:
    """Return the ``life_days`` at which a share ``wanted`` of rows is before a failure.

    Found by trial on machines of the calibration's own; only latent state is simulated. Life
    is first lengthened by as much as failures are too frequent. Where few lives end within the
    record that leaps to and fro past the wanted share; then the two nearest lives on either
    side of it are halved, on a logarithmic scale.
    """
    days = profile.life_days
    tried: dict[float, float] = {}

    def miss() -> float:
        return min(abs(found / wanted - 1) for found in tried.values())

    for _ in range(ROUNDS):
        found = _prevalence(replace(profile, life_days=days), horizon, seed, steps, step_days)
        tried[days] = found
        if abs(found / wanted - 1) < MISS / 5:
            break
        days = min(max(days * max(found, wanted / 4) / wanted, 1.0), 36_500.0)
    for _ in range(HALVINGS):
        between = _between(tried, wanted)
        if miss() <= MISS or between is None:
            break
        days = between
        tried[days] = _prevalence(replace(profile, life_days=days), horizon, seed, steps, step_days)
    best = min(tried, key=lambda life: abs(tried[life] - wanted))
    if miss() > MISS:
        raise ConfigError(
            f"data.prevalence={wanted:g} cannot be reached within {horizon:g} days "
            f"(data.prevalence_horizon) of a failure: the nearest is {tried[best]:.3g}; ask for "
            "that, or change service_days, data.days or the horizon"
        )
    return best


def _between(tried: Mapping[float, float], wanted: float) -> float | None:
    """Return the middle of the closest neighbours of which one gives too much, one too little."""
    crossing = [
        (long / short, math.sqrt(short * long))
        for short, long in pairwise(sorted(tried))
        if tried[short] > wanted > tried[long]
    ]
    return min(crossing)[1] if crossing else None


def _prevalence(
    profile: SiteProfile, horizon: float, seed: int, steps: int, step_days: float
) -> float:
    """Return the share of rows that a failure follows within ``horizon`` days."""
    site = "calibration"
    _, around = surroundings(profile, site, seed, steps, step_days)
    numbers = range(profile.machines)
    kinds = draw_kinds(
        profile.assets, [numpy_generator(seed, "fleet", site, n, "asset") for n in numbers]
    )
    each = [numpy_generator(seed, "fleet", site, n) for n in numbers]
    _, _, courses = run(profile, site, seed, around, step_days, kinds, numbers, each)
    running = np.stack([course.running for course in courses])
    machine = np.repeat(np.array([str(n) for n in numbers]), running.sum(axis=1))
    time = np.broadcast_to(around.time, running.shape)[running]
    log = log_of([str(n) for n in numbers], courses)
    _, to_failure, observed = outcomes(machine, time, log)
    positive, known = soon(to_failure, observed, horizon)
    return float(positive.sum() / max(known.sum(), 1))

"""Combines a site's settings with the fleet's dials into the site that is generated.

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

from fedpdm.data.fleet.assets import draw_kinds
from fedpdm.data.fleet.calendar import calendar
from fedpdm.data.fleet.physics import run
from fedpdm.data.fleet.record import lives_of, log_of, machine_names
from fedpdm.data.fleet.settings import Dials, SiteSpec, draw_size
from fedpdm.data.rows import rows_with_lives, within_horizon
from fedpdm.errors import ConfigError

MACHINES = 64  # of the sites that a wanted prevalence is tried on
ROUNDS, MISS = 8, 0.1  # tries; how far off, relatively, is still what was asked for
HALVINGS = 12  # further tries between two lives, one too short and one too long


def adapt(spec: SiteSpec, dials: Dials) -> SiteSpec:
    """Return a site with its drawn size, and the dials' effect on size and life.

    Raises:
        ConfigError: the wanted prevalence cannot be reached with this site's settings.
    """
    # Fixed before anything else, so that a trial under another name changes on the same day.
    profile = replace(spec.profile, change_day=spec.change_day)
    if profile.size:
        profile = replace(profile, machines=draw_size(profile.size, spec.generator("size")))
    if dials.prevalence is not None:
        shape = replace(profile, industry="", archetype="", size="", machines=MACHINES)
        trial = replace(spec, name="calibration", profile=shape)
        try:
            days = _life_for(trial, dials.prevalence, dials.prevalence_horizon)
        except ConfigError as error:
            raise ConfigError(f"{spec.name}: {error}") from None
        profile = replace(profile, life_days=days)
    # Both spreads keep their mean over sites.
    if dials.quantity_skew:
        factor = _log_normal(dials.quantity_skew, spec.generator("quantity"))
        profile = replace(profile, machines=max(1, round(profile.machines * factor)))
    if dials.label_skew:
        factor = _log_normal(dials.label_skew, spec.generator("label"))
        profile = replace(profile, life_days=max(1.0, profile.life_days / factor))
    return replace(spec, profile=profile)


def _log_normal(spread: float, generator: np.random.Generator) -> float:
    return math.exp(spread * float(generator.normal()) - spread**2 / 2)


@lru_cache(maxsize=256)
def _life_for(trial: SiteSpec, wanted: float, horizon: float) -> float:
    """Return the ``life_days`` at which a share ``wanted`` of rows is before a failure.

    Found by trial on machines of the calibration's own; only latent state is simulated. Life
    is first lengthened by as much as failures are too frequent. Where few lives end within the
    record that leaps to and fro past the wanted share; then the two nearest lives on either
    side of it are halved, on a logarithmic scale.
    """
    days = trial.profile.life_days
    tried: dict[float, float] = {}

    def miss() -> float:
        return min(abs(found / wanted - 1) for found in tried.values())

    for _ in range(ROUNDS):
        found = tried[days] = _prevalence(trial, days, horizon)
        if abs(found / wanted - 1) < MISS / 5:
            break
        days = min(max(days * max(found, wanted / 4) / wanted, 1.0), 36_500.0)
    for _ in range(HALVINGS):
        between = _between(tried, wanted)
        if miss() <= MISS or between is None:
            break
        tried[between] = _prevalence(trial, between, horizon)
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


def _prevalence(trial: SiteSpec, life_days: float, horizon: float) -> float:
    """Return the share of rows that a failure follows within ``horizon`` days."""
    spec = replace(trial, profile=replace(trial.profile, life_days=life_days))
    around, numbers = calendar(spec, spec.generator()), range(spec.profile.machines)
    kinds = draw_kinds(spec.profile.assets, spec.generators(numbers, "asset"))
    _, _, courses = run(spec, around, kinds, numbers, spec.generators(numbers))
    running = np.stack([course.running for course in courses])
    names = machine_names(spec.name, len(numbers))
    machine = np.repeat(np.array(names), running.sum(axis=1))
    time = np.broadcast_to(around.time, running.shape)[running]
    log = log_of(lives_of(names, courses))
    rows = rows_with_lives((), machine, time, np.empty((len(time), 0)), log, digits=None)
    positive, known = within_horizon(rows, horizon)
    return float(positive.sum() / max(known.sum(), 1))

"""Alarm thresholds, chosen on validation data: for F1, for cost, for a budget of false alarms.

A weight says how much a validation window counts, for example how likely it would be seen
had its machine been cut like those of the test (``fedpdm.evaluation.censoring.presence``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.rows import Floats
from fedpdm.errors import ConfigError

AIMS = ("f1", "cost", "false_alarms")
SCOPES = ("global", "plant")


@dataclass(frozen=True)
class Costs:
    """What a window's outcome costs, in any currency; only ratios matter.

    Attributes:
        missed: of a window before a failure without an alarm.
        false_alarm: of a window with an alarm and no failure to come.
        inspection: of every alarm, false or true.
    """

    missed: float = 50.0
    false_alarm: float = 1.0
    inspection: float = 0.0

    @staticmethod
    def of(given: Mapping[str, object], where: str, base: Costs | None = None) -> Costs:
        """Return ``base`` with what is given.

        Raises:
            ConfigError: an unknown key, or no number of at least 0; names ``where``.
        """
        values: dict[str, float] = dict(vars(base or Costs()))
        for key, value in given.items():
            if key not in values:
                raise ConfigError(f"{where}.{key} is unknown; there are {', '.join(values)}")
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise ConfigError(f"{where}.{key}={value} must be a number of at least 0")
            values[key] = float(value)
        return Costs(**values)


@dataclass(frozen=True)
class Policy:
    """How a threshold is chosen.

    Attributes:
        aim: ``f1`` greatest F1; ``cost`` least expected cost; ``false_alarms`` the lowest
            threshold with at most ``budget`` of the healthy windows in alarm.
        scope: ``global`` one threshold on all sites' validation windows, ``site`` one for
            each site on its own.
        budget: share of healthy windows.
        costs: where a site has none of its own.
        own_costs: by site.
    """

    aim: str = "f1"
    scope: str = "global"
    budget: float = 0.05
    costs: Costs = field(default_factory=Costs)
    own_costs: Mapping[str, Costs] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value, known in (("", self.aim, AIMS), ("_scope", self.scope, SCOPES)):
            if value not in known:
                raise ConfigError(
                    f"evaluate.threshold{name}={value} is unknown; choose {', '.join(known)}"
                )
        if not 0 < self.budget < 1:
            raise ConfigError(
                f"evaluate.false_alarm_budget={self.budget:g} must be above 0 and below 1"
            )

    def costs_of(self, site: str) -> Costs:
        """Return the costs of a site."""
        return self.own_costs.get(site, self.costs)


@dataclass(frozen=True)
class Candidates:
    """What alarms at each possible threshold would do: L levels, ascending, the last silent.

    Attributes:
        level: (L,) thresholds: every score that occurs, and one above them all.
        hits: (L,) weight of windows before a failure at or above the level.
        false: (L,) weight of healthy windows at or above it.
        failures: weight of all windows before a failure.
        healthy: weight of all others.
    """

    level: Floats
    hits: Floats
    false: Floats
    failures: float
    healthy: float

    @staticmethod
    def of(target: NDArray[np.generic], scores: Floats, weights: Floats | None) -> Candidates:
        """Count (N,) 0/1 targets and scores, by (N,) weights."""
        truth = target.astype(bool)
        weight = np.ones(len(truth)) if weights is None else weights
        level, place = np.unique(scores, return_inverse=True)
        parts = []
        for which in (truth, ~truth):
            at = np.bincount(place[which], weights=weight[which], minlength=len(level))
            parts.append(np.append(np.cumsum(at[::-1])[::-1], 0.0))
        silent = np.nextafter(level[-1] if len(level) else 0.0, np.inf)
        hits, false = parts
        return Candidates(np.append(level, silent), hits, false, float(hits[0]), float(false[0]))


def choose(
    policy: Policy,
    target: NDArray[np.generic],
    scores: Floats,
    weights: Floats | None = None,
    site: str | None = None,
) -> float | None:
    """Return the threshold of a policy; alarms are scores at or above it.

    To be called with validation data only.

    Args:
        policy: what the threshold is for.
        target: (N,) 0/1.
        scores: (N,) failure probabilities.
        weights: (N,) at least 0, or None where every window counts alike.
        site: whose costs; None takes the common ones.

    Returns:
        One of the scores, or a number just above them all where silence is best; None where
        the aim cannot be judged: without both classes, for a budget without healthy windows.
    """
    if policy.aim == "false_alarms":
        return within_budget(Candidates.of(target, scores, weights), policy.budget)
    if not 0 < target.astype(np.int64).sum() < len(target):
        return None
    if policy.aim == "cost":
        costs = policy.costs if site is None else policy.costs_of(site)
        return least_cost([(Candidates.of(target, scores, weights), costs)])
    return best_f1(Candidates.of(target, scores, weights))


def best_f1(known: Candidates) -> float | None:
    """Return the lowest threshold of the greatest F1; None where no failure has weight."""
    if known.failures <= 0:
        return None
    f1 = 2 * known.hits / (known.hits + known.false + known.failures)
    return float(known.level[:-1][np.argmax(f1[:-1])])


def within_budget(known: Candidates, budget: float) -> float | None:
    """Return the lowest threshold with at most a share ``budget`` of false alarms."""
    if known.healthy <= 0:
        return None
    fits = known.false <= budget * known.healthy * (1 + 1e-12)
    return float(known.level[np.argmax(fits)])  # false alarms fall as the level rises


def least_cost(sites: list[tuple[Candidates, Costs]]) -> float | None:
    """Return the highest threshold of the least expected cost, summed over sites.

    A window before a failure costs ``missed`` without an alarm, a healthy one ``false_alarm``
    with one, and every alarm ``inspection`` (Spiegel et al., arXiv 1809.10979).
    """
    if not sites:
        return None
    levels = np.unique(np.concatenate([known.level for known, _ in sites]))
    total = np.zeros(len(levels))
    for known, costs in sites:
        at = np.minimum(np.searchsorted(known.level, levels), len(known.level) - 1)
        hits, false = known.hits[at], known.false[at]
        total += costs.missed * (known.failures - hits) + costs.false_alarm * false
        total += costs.inspection * (hits + false)
    least = total <= total.min() * (1 + 1e-12) + 1e-12
    return float(levels[np.flatnonzero(least)[-1]])

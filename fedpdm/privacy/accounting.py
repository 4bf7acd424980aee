"""Counts the privacy budget with dp-accounting's Rényi accountant.

A run releases the same mechanism again and again: a Gaussian mechanism (Dwork and Roth 2014) of
one noise, on a fresh sample each time. Its Rényi divergences add up over releases (Mironov
2017) and give epsilon for a delta. What the sample is worth depends on how it is drawn:

- ``poisson``: every unit is in by itself with probability q; neighbours differ by one unit more
  (Abadi et al. 2016; Mironov, Talwar and Zhang 2019).
- ``fixed``: a cohort of fixed size without replacement; neighbours differ in what one unit holds
  (Wang, Balle and Kasiviswanathan 2019). Such a unit moves a sum of clipped vectors by up to twice
  the bound, so noise counts half.
- ``none``: nothing is gained by sampling; neighbours as in ``fixed``.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from fedpdm.errors import ConfigError

Sampling = Literal["poisson", "fixed", "none"]

MOST_NOISE = 1e5
"""No larger noise multiplier is looked for."""


def library() -> Any:
    """Return dp-accounting.

    Raises:
        ConfigError: it is not installed; says how it is.
    """
    try:
        import dp_accounting
        import dp_accounting.rdp
    except ImportError as error:
        raise ConfigError(
            "privacy needs the package dp-accounting, which counts the budget; install it with "
            f"pip install 'fedpdm[dp]' ({error})"
        ) from None
    return dp_accounting


@dataclass(frozen=True)
class Mechanism:
    """One release.

    Attributes:
        noise: deviation of the noise over the bound that every vector is clipped to.
        sampling: how the vectors that are summed up were drawn.
        units: of how many, for ``fixed``.
        drawn: how many, for ``fixed``; the probability of each, for ``poisson``.
    """

    noise: float
    sampling: Sampling = "none"
    units: int = 1
    drawn: float = 1.0

    @property
    def sensitivity(self) -> float:
        """How far a neighbour can move the sum, in bounds."""
        return 1.0 if self.sampling == "poisson" else 2.0

    def epsilon(self, releases: int, delta: float) -> float | None:
        """Return epsilon after so many releases; None where there is no bound.

        Args:
            releases: how often the mechanism was used.
            delta: probability with which epsilon may not hold.
        """
        return 0.0 if releases == 0 else _epsilon(self, releases, delta)

    def with_epsilon(self, epsilon: float, releases: int, delta: float) -> Mechanism:
        """Return the mechanism with the least noise that keeps to a budget.

        Args:
            epsilon: after all releases.
            releases: how many there will be.
            delta: as in ``epsilon``.

        Raises:
            ConfigError: no noise is enough.
        """

        def spent(noise: float) -> float:
            found = replace(self, noise=noise).epsilon(releases, delta)
            return math.inf if found is None else found

        low, high = 0.0, 1.0
        while spent(high) > epsilon:
            low, high = high, 2 * high
            if high > MOST_NOISE:
                raise ConfigError(
                    f"privacy.epsilon={epsilon:g} at privacy.delta={delta:g} cannot be kept over "
                    f"{releases:,} releases, whatever the noise; raise one of the two"
                )
        while high - low > 5e-4 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if spent(middle) > epsilon else (low, middle)
        return replace(self, noise=high)


@lru_cache(maxsize=1024)
def _epsilon(mechanism: Mechanism, releases: int, delta: float) -> float | None:
    accounting = library()
    if mechanism.noise <= 0:
        return None
    relation = accounting.NeighboringRelation
    neighbours = relation.REPLACE_ONE
    event = accounting.GaussianDpEvent(mechanism.noise / mechanism.sensitivity)
    if mechanism.sampling == "poisson":
        neighbours = relation.ADD_OR_REMOVE_ONE
        event = accounting.PoissonSampledDpEvent(mechanism.drawn, event)
    elif mechanism.sampling == "fixed":
        drawn = round(mechanism.drawn)
        event = accounting.SampledWithoutReplacementDpEvent(mechanism.units, drawn, event)
    with _quiet():
        accountant = accounting.rdp.RdpAccountant(neighboring_relation=neighbours)
        accountant.compose(event, releases)
        found = float(accountant.get_epsilon(delta))
    return found if math.isfinite(found) else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Say nothing of orders that the accountant leaves out: it takes the best of all others."""
    logger = logging.getLogger("absl")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before

"""Selects the sites of a round: a seeded draw, made here and not by Flower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from flwr.serverapp.strategy import Strategy

from fedpdm.errors import ConfigError
from fedpdm.seeding import numpy_generator
from fedpdm.strategies.wrappers import check_sites, unwrap

T = TypeVar("T")


def sample_size(share: float, count: int) -> int:
    """Return how many of ``count`` a share is: max(1, floor(share · count))."""
    return max(1, int(share * count + 1e-9))


def seeded_sample(items: Sequence[T], share: float, seed: int, *key: str | int) -> list[T]:
    """Return max(1, floor(share · n)) of ``items`` in their order, drawn for ``key``."""
    count = sample_size(share, len(items))
    if count >= len(items):
        return list(items)
    chosen = numpy_generator(seed, *key).choice(len(items), size=count, replace=False)
    return [items[i] for i in sorted(chosen)]


SCALER_SITES = 50
"""At most so many sites (seeded) are asked for their sums, as in ``baselines.max_plants``."""


def scaler_sites(sites: Sequence[str], seed: int) -> list[str]:
    """Return the sites whose sums make the shared scaler."""
    return seeded_sample(sites, min(1.0, SCALER_SITES / len(sites)), seed, "scaler")


def fraction_of(strategy: Strategy) -> float:
    """Return the share of the sites that a strategy, or one that it holds, wants in a round.

    Raises:
        ConfigError: it is out of range.
    """
    stating = (layer for layer in unwrap(strategy) if hasattr(layer, "fraction_train"))
    fraction = getattr(next(stating, None), "fraction_train", 1.0)
    number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
    if not number or not 0.0 < fraction <= 1.0:
        raise ConfigError(f"strategy.fraction_train={fraction} must be above 0 and at most 1")
    return float(fraction)


def take_over_sampling(strategy: Strategy, sites: int) -> float:
    """Make a strategy use every node it is shown, and return the fraction it was set to.

    Flower's minimum of two nodes would make it wait for ever with one site. The same goes for
    the strategies that it holds. One with an attribute ``total_sites`` is told how many there
    are behind the sample.

    Args:
        strategy: changed in place.
        sites: how many the federation has.

    Raises:
        ConfigError: the fraction is out of range, or the strategy cannot work with these sites.
    """
    fraction = fraction_of(strategy)
    check_sites(strategy, sample_size(fraction, sites), sites)
    taken_over = {
        "fraction_train": 1.0, "fraction_evaluate": 1.0, "min_train_nodes": 1,
        "min_evaluate_nodes": 1, "min_available_nodes": 1, "total_sites": sites,
    }  # fmt: skip
    for layer in unwrap(strategy):
        for name, value in taken_over.items():
            if hasattr(layer, name):
                setattr(layer, name, value)
    return fraction

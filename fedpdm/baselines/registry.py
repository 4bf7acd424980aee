"""Every control by its name, and their work in pieces that several processes can share.

A new control is a function in ``baselines.py`` or anywhere importable, an entry of ``BASELINES``
and a column of ``standings.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedpdm.baselines.baselines import (
    BaselineInputs,
    alone,
    boosted_trees,
    no_rules,
    no_series,
    pooled,
    rocket,
    rules,
    trivial,
)
from fedpdm.data.rows import Floats, Split
from fedpdm.errors import ConfigError
from fedpdm.evaluation.scoring import Predictions
from fedpdm.evaluation.wording import listing


@dataclass(frozen=True)
class Baseline:
    """A predictor that the shared model is compared with.

    Attributes:
        run: makes its predictions for all sites, or for the one that is named.
        cost: rough time, a site's share of a pooled network's training being 1.
        per_site: whether each site is a piece of work of its own.
        missing: says why it cannot be had here, or None.
    """

    run: Callable[..., Predictions]
    cost: Callable[[BaselineInputs], float] = lambda inputs: 0.01
    per_site: bool = False
    missing: Callable[[BaselineInputs], str | None] = lambda inputs: None


BASELINES: dict[str, Baseline] = {
    "trivial": Baseline(trivial),
    "alone": Baseline(
        alone, lambda inputs: inputs.alone.rounds / inputs.pooled.rounds, per_site=True
    ),
    "pooled": Baseline(pooled, lambda inputs: len(inputs.pool)),
    "hgb": Baseline(boosted_trees, lambda inputs: 0.4 * len(inputs.pool)),
    "minirocket": Baseline(rocket, lambda inputs: 0.2 * len(inputs.pool), missing=no_series),
    "rules": Baseline(rules, missing=no_rules),
}
"""Every control by the name that ``baselines.controls`` and summary.json call it."""


def wanted(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of controls in the order of ``BASELINES``.

    Raises:
        ConfigError: there is no such control.
    """
    unknown = [name for name in names if name not in BASELINES]
    if unknown:
        raise ConfigError(
            f"baselines.controls: {unknown[0]} is unknown; choose some of {', '.join(BASELINES)}"
        )
    return tuple(name for name in BASELINES if name in names)


@dataclass(frozen=True)
class Piece:
    """A piece of work of a baseline: all of it, or one site's part."""

    baseline: str
    site: str | None = None


def left_out(inputs: BaselineInputs) -> dict[str, str]:
    """Return which of the wanted controls cannot be had here, and why."""
    reasons = {name: BASELINES[name].missing(inputs) for name in inputs.controls}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def pieces(inputs: BaselineInputs) -> list[Piece]:
    """Return all work, the longest first, so that two processes finish together."""
    absent = left_out(inputs)
    parts = [
        Piece(name, site)
        for name in inputs.controls
        if name not in absent
        for site in (inputs.names if BASELINES[name].per_site else (None,))
    ]
    return sorted(parts, key=lambda piece: -cost(inputs, piece))


def cost(inputs: BaselineInputs, piece: Piece) -> float:
    """Return roughly how long a piece takes, in units of a site's own training."""
    return BASELINES[piece.baseline].cost(inputs)


def work(inputs: BaselineInputs, todo: Sequence[Piece]) -> dict[str, Floats]:
    """Do pieces of work; return scores by ``baseline/site/SPLIT``."""
    result = {}
    for piece in todo:
        arguments = () if piece.site is None else (piece.site,)
        for site, splits in BASELINES[piece.baseline].run(inputs, *arguments).items():
            for split, scores in splits.items():
                result[f"{piece.baseline}/{site}/{split.name}"] = scores
    return result


def gather(scores: dict[str, Floats]) -> dict[str, Predictions]:
    """Return the predictions of each baseline from what ``work`` made."""
    result: dict[str, Predictions] = {}
    for key, values in scores.items():
        baseline, _, rest = key.partition("/")
        site, _, split = rest.rpartition("/")
        result.setdefault(baseline, {}).setdefault(site, {})[Split[split]] = values
    return result


def diverged(found: Mapping[str, Predictions]) -> dict[str, str]:
    """Return which baselines have scores that are no numbers, and why they are left out."""
    reasons = {}
    for name, predictions in found.items():
        lost = [
            site
            for site, splits in predictions.items()
            if not all(np.isfinite(scores).all() for scores in splits.values())
        ]
        if lost:
            reasons[name] = (
                f"its training diverged (no finite output at {listing(lost, most=3)}); lower "
                "training.learning_rate, or set baselines.training"
            )
    return reasons

"""What the summary of a generated fleet says about each site: counts and shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedpdm.data.fleet.life import FAILURE, MAINTENANCE
from fedpdm.data.fleet.log import soon
from fedpdm.data.fleet.record import Record
from fedpdm.data.fleet.source import FleetSource
from fedpdm.data.rows import Ints, Rows


def near(rows: Rows, horizon: float) -> tuple[int, int]:
    """Return how many rows precede a failure, and of how many that is known."""
    positive, known = soon(rows.time_to_failure, rows.observed, horizon)
    return int((positive & known).sum()), int(known.sum())


def share(near: Sequence[int] | Ints) -> float | None:
    """Return the first of two counts as a share of the second; None of nothing."""
    return float(near[0] / near[1]) if near[1] else None


def counts(source: FleetSource, site: str, made: Record, rows: Rows) -> dict[str, Any]:
    """Return what there is of a site, and what became of it."""
    ended = Counter(life.end for _, _, life in made.lives)
    failed = [life for _, _, life in made.lives if life.end == FAILURE]
    latent, profile = made.latent, source.profile(site)
    assets = Counter(latent.kind[np.unique(made.machine, return_index=True)[1]].tolist())
    running = len(made.time) * source.step_days
    return {
        "rows": len(made.time),
        "machines": profile.machines,
        "life_days": profile.life_days,
        "failures": ended[FAILURE],
        "maintenance": ended[MAINTENANCE],
        "failures_per_machine_year": 365 * len(failed) / running if running else None,
        "link_failures": len(made.links),
        "missing": float(np.isnan(made.values).mean()),
        "by_mode": _named(Counter(life.mode for life in failed), latent.modes),
        "by_scenario": _named(Counter(life.scenario for life in failed), latent.scenarios),
        "assets": _named(assets, latent.kinds),
        "sha256": rows.sha256(),
    }


def _named(counts: Counter[int], names: Sequence[str]) -> dict[str, int]:
    return {name: counts[index] for index, name in enumerate(names) if counts[index]}

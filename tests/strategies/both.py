"""What the tests of strategies of two halves share."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedpdm.testing.federated import Federated
from fedpdm.training.loop import TrainingSettings
from fedpdm.wire.records import from_record
from tests.strategies.quadratics import Bowl

SGD = TrainingSettings(
    local_epochs=2, batch_size=16, learning_rate=0.05, weight_decay=1e-4, clip_norm=1.0,
    optimizer="sgd",
)  # fmt: skip

FAR_APART = {
    "p0": Bowl((1.0, 4.0), (4.0, -3.0)),
    "p1": Bowl((3.0, 0.5), (-5.0, 2.0)),
    "p2": Bowl((0.5, 2.0), (6.0, 5.0)),
}
"""Sites that differ in curvature and in where they would go."""


def memories(run: Federated, key: str, group: str) -> dict[str, dict[str, Any]]:
    """Return what each site of a run remembers, by site."""
    return {
        site: from_record(state[f"strategy.{key}.{group}"])  # type: ignore[arg-type]
        for site, state in run.grid.states.items()
    }


def mean_memory(run: Federated, key: str, group: str) -> dict[str, Any]:
    """Return the mean over all sites; those that were never sampled remember zeros."""
    found, count = list(memories(run, key, group).values()), len(run.grid.sites)
    return {name: np.sum([m[name] for m in found], axis=0) / count for name in found[0]}

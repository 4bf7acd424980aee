"""A transform: sites clip what they send to a length, the server adds noise to the mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedpdm.aggregation.sums import Total
from fedpdm.aggregation.update import Contribution, Update
from fedpdm.transforms.base import Stage, Transform


class ClipAndNoise(Transform):
    """Clips the whole update, all records together, to ``bound``.

    The server remembers how often it drew noise; a site, how often it was clipped.
    """

    stage = Stage.CLIP
    needs_sums = True

    def __init__(self, bound: float, deviation: float) -> None:
        self.bound, self.deviation = bound, deviation

    def encode(
        self, update: Update, state: dict[str, Any], generator: np.random.Generator
    ) -> Update:
        deltas = {name: update.delta(name) for name in update.records}
        squares = (np.sum(np.square(d, dtype=float)) for r in deltas.values() for d in r.values())
        length = float(np.sqrt(sum(squares)))
        if length <= self.bound:
            return update
        before = state.get("clipped", {"times": np.array(0)})
        state["clipped"] = {"times": before["times"] + 1}
        for name, delta in deltas.items():
            shorter = {n: d * (self.bound / length) for n, d in delta.items()}
            update = update.with_delta(shorter, name)
        return update

    def after_sum(
        self,
        totals: dict[str, Total],
        contributions: Sequence[Contribution],
        generator: np.random.Generator,
    ) -> dict[str, Total]:
        self.state["draws"] = self.state.get("draws", 0) + 1
        return {
            record: Total(
                {
                    name: value + total.weight * self.deviation * generator.normal(size=value.shape)
                    for name, value in total.values.items()
                },
                total.weight,
            )
            for record, total in totals.items()
        }

"""FedAsync: every update makes a version at once, mixed into the newest model.

Xie, Koyejo & Gupta 2019, "Asynchronous Federated Optimization", algorithm 1:

    x' = (1 - alpha_t) x + alpha_t w        alpha_t = alpha * s(t)

where w is the model that a site came to from a version t versions ago, and s(t) is constant,
polynomial, (1 + t) ** -a, or a hinge: 1 up to b, and then 1 / (a (t - b) + 1). The paper's local
loss has a term that holds a site near its start: that is strategy=fedprox. Examples have no weight.
A learning rate that falls by rounds falls by versions here.

When to use it: few sites, or updates that come seldom. Versions come as often as updates, so it
costs an evaluation for each (evaluate.fraction bounds it), and no memory at the sites.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedpdm.aggregation.update import Base
from fedpdm.errors import ConfigError
from fedpdm.server.asynchronous import Asynchronous, Group, weighted_buffers
from fedpdm.server.base import Round
from fedpdm.server.staleness import Staleness
from fedpdm.wire.records import Arrays


class FedAsync(Asynchronous):
    """Makes a version of every update.

    Args:
        alpha: share of a fresh update in the new model.
        staleness: constant, polynomial or hinge.
        a: of the staleness weight: how fast it falls.
        b: of the hinge: the staleness up to which updates count in full.

    Raises:
        ConfigError: a value is out of its range.
    """

    def __init__(
        self, alpha: float = 0.6, staleness: str = "polynomial", a: float = 0.5, b: float = 4.0
    ) -> None:
        super().__init__()
        if not 0 < alpha <= 1:
            raise ConfigError(f"server.alpha={alpha} must be above 0 and at most 1")
        self._alpha = alpha
        self._staleness = Staleness(staleness, a, b)

    def wanted(self, round: Round) -> int:
        return 1

    def weight(self, staleness: int) -> float:
        return self._staleness(staleness)

    def merge(self, model: Base, groups: Sequence[Group]) -> Arrays:
        (group,) = groups
        share = self._alpha * group.weight
        return {
            name: (1.0 - share) * array.astype(np.float64) + share * group.sums.mean[name]
            for name, array in model.arrays.items()
        }

    def merge_buffers(self, model: Base, groups: Sequence[Group]) -> Arrays:
        (group,) = groups
        share = self._alpha * group.weight
        if not group.buffers:
            return model.buffers
        return weighted_buffers(model, [(1.0 - share, model.buffers), (share, group.buffers)])

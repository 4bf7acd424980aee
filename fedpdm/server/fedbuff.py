"""FedBuff: a new version for every K updates, whichever sites they come from.

Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous Aggregation" (AISTATS),
algorithm 1. The server keeps sites at work without waiting for any; K updates in the buffer make a
version:

    x' = x + rate * sum_i s(t_i) n_i (w_i - x_i) / sum_i n_i
    s(t) = (1 + t) ** -a

where site i began from version x_i, t_i versions ago, and came to w_i with n_i examples. The sum
is divided by the weights without s, as in the paper: stale updates make the step shorter. Ours
weighs by examples, as FedAvg does, and the paper by 1. With K = all sites that work at once, and
sites that take the same time, it is FedAvg, bit for bit.

When to use it: some sites are far slower than others, and many are at work. It costs no memory at
the sites, and at the server one model for each update in the buffer and each version still worked
on; a version takes K updates down and up.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedpdm.aggregation.update import Base
from fedpdm.errors import ConfigError
from fedpdm.server.asynchronous import Asynchronous, Group, moved
from fedpdm.server.base import Round
from fedpdm.server.staleness import Staleness
from fedpdm.wire.records import Arrays


class FedBuff(Asynchronous):
    """Makes a version of a buffer of updates.

    Args:
        buffer: updates that make a version (K).
        rate: of the server, by which the mean difference is multiplied.
        staleness: constant, polynomial or hinge.
        a: of the staleness weight: how fast it falls.
        b: of the hinge: the staleness up to which updates count in full.

    Raises:
        ConfigError: a value is out of its range.
    """

    def __init__(
        self,
        buffer: int = 10,
        rate: float = 1.0,
        staleness: str = "polynomial",
        a: float = 0.5,
        b: float = 4.0,
    ) -> None:
        super().__init__()
        if buffer < 1:
            raise ConfigError(f"server.buffer={buffer} must be at least 1")
        if not 0 < rate <= 1000:
            raise ConfigError(f"server.rate={rate} must be above 0 and at most 1000")
        self._buffer, self._rate = buffer, rate
        self._staleness = Staleness(staleness, a, b)

    def wanted(self, round: Round) -> int:
        return self._buffer

    def weight(self, staleness: int) -> float:
        return self._staleness(staleness)

    def merge(self, model: Base, groups: Sequence[Group]) -> Arrays:
        return moved(model, groups, self._rate)

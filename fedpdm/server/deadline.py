"""Rounds with a deadline: more sites than needed are asked, and nobody is waited for beyond it.

Over-selection is that of Bonawitz et al. 2019, "Towards Federated Learning at Scale" (MLSys),
section 4: of (1 + extra) times the sampled sites, the first that answer make the round, and it ends
at the deadline whoever has answered. A late update is dropped, or, as in semi-asynchronous rounds
(Wu et al. 2021, SAFA, IEEE Trans. Computers), taken into the round in which it comes:

    x' = x + sum_i s(t_i) n_i (w_i - x_i) / sum_i n_i

with the staleness weight s(t) of an update that is t rounds old. SAFA caches every site's model and
lets sites lag behind; ours keeps nothing of a site. With late=take, a site that has not answered
works on and is not asked again until it has. With no extra sites and a deadline that all keep it is
FedAvg, bit for bit.

When to use it: rounds should have a known length, and few sites are slow. Dropping late updates
leaves slow sites out for good; taking them costs one model at the server for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from flwr.serverapp.strategy import Strategy

from fedpdm.aggregation.update import Base
from fedpdm.errors import ConfigError
from fedpdm.server.asynchronous import Asynchronous, Group, moved
from fedpdm.server.base import Result, Round
from fedpdm.server.clock import Clock
from fedpdm.server.selection import sample_size
from fedpdm.server.staleness import Staleness
from fedpdm.server.virtual_clock import VirtualClock
from fedpdm.transforms.base import Chain
from fedpdm.wire.records import Arrays

LATE = ("drop", "take")


class Deadline(Asynchronous):
    """Ends a round at its deadline, or when enough sites have answered.

    Args:
        seconds: of a round, simulated; it goes on if by then nobody has answered.
        extra: share of further sites that are asked.
        late: drop updates that come later, or take them into the round in which they come.
        staleness: constant, polynomial or hinge.
        a: of the staleness weight: how fast it falls.
        b: of the hinge: the staleness up to which updates count in full.

    Raises:
        ConfigError: a value is out of its range.
    """

    def __init__(
        self,
        seconds: float = 600.0,
        extra: float = 0.0,
        late: str = "drop",
        staleness: str = "polynomial",
        a: float = 0.5,
        b: float = 4.0,
    ) -> None:
        super().__init__()
        if not 0 < seconds <= 1e12:
            raise ConfigError(f"server.seconds={seconds} must be above 0")
        if not 0 <= extra <= 100:
            raise ConfigError(f"server.extra={extra} must be at least 0 and at most 100")
        if late not in LATE:
            raise ConfigError(f"server.late={late} is unknown; choose {' or '.join(LATE)}")
        self._seconds, self._extra, self._late = seconds, extra, late
        self._staleness = Staleness(staleness, a, b)

    def check(self, strategy: Strategy, transforms: Chain, clock: Clock, keep: int | None) -> None:
        # Without late updates nobody works on an old version when a round is committed.
        super().check(strategy, transforms, clock, None if self._late == "drop" else keep)
        if not isinstance(clock, VirtualClock):
            raise ConfigError(
                "server=deadline counts simulated seconds: add clock=virtual, or use "
                "server=synchronous with round_timeout"
            )

    @property
    def _clock(self) -> VirtualClock:
        return cast(VirtualClock, self.services.clock)

    def room(self, sites: int) -> int:
        asked = int(super().room(sites) * (1 + self._extra) + 1e-9)
        return min(sites, asked) + len(self.jobs)  # who is late takes no other's place

    def wanted(self, round: Round) -> int:
        return sample_size(self.services.fraction, len(self.services.dispatcher.roster.sites))

    def weight(self, staleness: int) -> float:
        return self._staleness(staleness)

    def select(self, round: Round) -> list[str]:
        chosen = super().select(round)
        self._end = self._clock.now + self._seconds
        return chosen

    def refill(self, round: Round) -> None:
        """Nobody is asked in the middle of a round, unless nobody is left."""
        if not self.jobs and not self._heard:
            super().refill(round)

    def full(self, round: Round) -> bool:
        newest = round.model.version
        fresh = sum(job["version"] == newest for job, _, _ in self._heard)
        if fresh >= self.wanted(round) or self.hopeless(round):
            return True
        if not self._heard:
            return False
        if not any(job["version"] == newest for job in self.jobs.values()):
            return True
        coming = self._clock.coming()
        if coming is None or coming > self._end:
            self._clock.advance(self._end)
            return True
        return False

    def result(self, round: Round) -> Result:
        if self._late == "drop":
            for site in self.jobs:
                self._clock.give_up(site)
            self.jobs.clear()
        return super().result(round)

    def merge(self, model: Base, groups: Sequence[Group]) -> Arrays:
        return moved(model, groups)

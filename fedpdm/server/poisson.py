"""Synchronous rounds whose sites are drawn one by one: each takes part with the same probability.

Poisson sampling, as the account of ``privacy=central`` assumes it (Abadi et al. 2016; McMahan et
al. 2018): every site is in a round by itself with probability ``strategy.fraction_train``, so the
number of sites differs from round to round, and may be zero. With a fraction of 1 all of them are
in every round.

Use it with ``privacy=central``, which chooses it. Beside ``server=synchronous`` it costs nothing.
"""

from __future__ import annotations

from fedpdm.seeding import numpy_generator
from fedpdm.server.base import Result, Round
from fedpdm.server.synchronous import Synchronous


class Poisson(Synchronous):
    """Draws every site by itself."""

    one_model = True

    def select(self, round: Round) -> list[str]:
        services = self.services
        left_out = services.history.excluded(round.number)
        sites = services.dispatcher.roster.sites
        draws = numpy_generator(services.seed, "poisson", round.number, round.attempt)
        drawn = draws.random(len(sites)) < services.fraction
        return [s for s, chosen in zip(sites, drawn, strict=True) if chosen and s not in left_out]

    def result(self, round: Round) -> Result:
        if not self.collector.updates:
            self.collector.take_nothing()
        return super().result(round)

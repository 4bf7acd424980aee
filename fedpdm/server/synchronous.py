"""Synchronous rounds: a sample of sites trains one version, and all replies make the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flwr.app import Message
from flwr.serverapp.exception import AggregationError

from fedpdm.aggregation.collector import Collector
from fedpdm.aggregation.sums import adds_up
from fedpdm.errors import ConfigError, SiteError
from fedpdm.server.base import Result, Round, Server
from fedpdm.server.finite import with_options
from fedpdm.server.selection import sample_size, seeded_sample
from fedpdm.strategies.base import ServerHalf
from fedpdm.strategies.robust import RobustStrategy
from fedpdm.strategies.wrappers import unwrap
from fedpdm.wire.records import Arrays, from_record


class Synchronous(Server):
    """Waits for every sampled site, or for the round's timeout."""

    one_model = True

    def select(self, round: Round) -> list[str]:
        services = self.services
        left_out = services.history.excluded(round.number)
        sites = [site for site in services.dispatcher.roster.sites if site not in left_out]
        there = services.clock.present(sites)
        share = services.fraction
        if len(there) < len(sites):  # as many as ever, if there are so many
            share = min(1.0, sample_size(share, len(sites)) / len(there))
        key = (round.number, round.attempt)
        return seeded_sample(there, share, services.seed, "sample", *key)

    def submit(self, round: Round, sites: Sequence[str]) -> None:
        self.collector = self.collect(round)
        self.send_model(round, sites, round.model, round.config)

    def collect(self, round: Round) -> Collector:
        """Return what takes the updates of the round's model."""
        halves = self.services.transforms.on_server(round.number, round.attempt)
        adding = adds_up(self.services.strategy)
        return Collector(round.model, round.note, adding, halves, round.accept)

    def apply(self, round: Round, site: str, reply: Message) -> None:
        self.collector.take(site, reply)

    def result(self, round: Round) -> Result:
        collector = self.collector
        # In simulated time all may drop out of a round; several such rounds end the run.
        if collector.answers == 0 and self.services.clock.carrier() is None:
            raise SiteError(f"round {round.number}: every site failed")
        arrays = self._aggregate(round)
        buffers = collector.buffers() or round.model.buffers
        return Result(arrays, buffers, collector.updates, collector.bytes_up)

    @np.errstate(all="ignore")  # what is not finite is refused by the loop
    def _aggregate(self, round: Round) -> Arrays:
        """Return the new parameters, of the dtypes of the old ones."""
        strategy, sent, collector = self.services.strategy, round.model.arrays, self.collector
        new, sums, adding = None, collector.sums(), adds_up(strategy)
        if adding is not None and sums is not None:
            new = adding.combine(round.number, sent, sums)
            if isinstance(adding, ServerHalf):
                self.services.calls.reported |= adding.metrics()
        elif collector.messages():
            new = self._combine(round, collector.messages())
        if new is None:
            round.note("warning", f"no new model in round {round.number}: the last one stays")
            return sent
        if lost := sorted(set(sent) - set(new)):
            raise ConfigError(
                f"strategy {with_options(strategy)} returned no new {lost[0]}: what it combines "
                "must have every tensor that was sent"
            )
        return {name: new[name].astype(old.dtype) for name, old in sent.items()}

    def _combine(self, round: Round, replies: list[Message]) -> Arrays | None:
        """Let the strategy combine replies; it may not be able to if some were refused."""
        name = type(self.services.strategy).__name__
        robust = [e for e in unwrap(self.services.strategy) if isinstance(e, RobustStrategy)]
        for layer in robust:
            names = [each.site for each in self.collector.updates]
            layer.told(round.model.arrays, names, self.services.dispatcher.roster.sites)
        try:
            record = self.services.calls.aggregate_train(round.number, replies)
        except (AggregationError, ValueError, ArithmeticError) as error:
            if len(replies) == len(round.sampled):
                raise ConfigError(
                    f"strategy {with_options(self.services.strategy)} cannot aggregate "
                    f"{len(replies)} updates: {error}"
                ) from error
            round.note("warning", f"{name} could not aggregate the updates that were left: {error}")
            return None
        for layer in robust:
            for site, why in layer.suspected.items():
                round.note("suspected", f"{site}: update left out by {name}, {why}", site)
        for held in unwrap(self.services.strategy):
            meant = getattr(held, "num_sampled_clients", 0)
            if len(replies) < meant:
                round.note(
                    "warning",
                    f"{type(held).__name__} added noise for {meant} sites and combined "
                    f"{len(replies)}: it hides less of each than its settings say",
                )
        return None if record is None else from_record(record)

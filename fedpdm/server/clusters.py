"""Clusters of sites, each with a model of its own: what IFCA, CFL and FL+HC have in common.

A round trains every cluster's model at its own sites and takes the mean of each by itself, as
synchronous rounds do with one model. All models of a round are in one commit, and which site has
which is in the server's state; so the panel, the final test, ``predict --site``, promotion, resume
and rollback use each site's own. The round's weights file holds the model of the largest cluster:
what a site gets that is in none.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedpdm.aggregation.collector import Collector
from fedpdm.aggregation.sums import Total, adds_up, is_weighted_mean
from fedpdm.aggregation.update import Base, Contribution, Update
from fedpdm.errors import ConfigError, SiteError
from fedpdm.evaluation.wording import listing
from fedpdm.server.base import MEMBERS, Result, Round
from fedpdm.server.clock import Clock
from fedpdm.server.selection import fraction_of
from fedpdm.server.synchronous import Synchronous
from fedpdm.transforms.base import Chain
from fedpdm.wire.records import Arrays

NAMES = "names"
"""Key of the state: the names of all models, in their order; one may have no site."""
SHOWN = 6


def cluster(number: int) -> str:
    """Return the name of a cluster, counted from 1."""
    return f"cluster-{number}"


class Clustered(Synchronous):
    """Synchronous rounds of several models."""

    first: int = 1
    """How many models there are at the start."""

    @property
    def key(self) -> str:
        """What a message calls it."""
        return f"server={type(self).__name__.lower()}"

    def check(self, strategy: Strategy, transforms: Chain, clock: Clock, keep: int | None) -> None:
        if not is_weighted_mean(strategy):
            raise ConfigError(
                f"{self.key} takes the mean of each cluster, and {type(strategy).__name__} "
                "combines updates in its own way, with one memory for all: use strategy=fedavg or "
                "fedprox"
            )
        if transforms.hides_values:
            name = next(each.name for each in transforms.transforms if each.hides_values)
            raise ConfigError(
                f"{self.key} adds up each cluster by itself, and transforms.{name} hides all but "
                "the sum over all sites; leave one of the two out"
            )

    @property
    def names(self) -> list[str]:
        """The names of all models."""
        return list(self.state.get(NAMES) or map(cluster, range(1, self.first + 1)))

    @property
    def members(self) -> dict[str, str]:
        """By site, its cluster; a site that has never taken part is not there."""
        return dict(self.state.get(MEMBERS, {}))

    def model(self, round: Round, name: str) -> Base:
        """Return a cluster's model as of the last commit."""
        main, stored = round.model, round.models.get(name)
        if stored is None:
            return self.start(main, name)
        arrays, buffers = ({n: stored[n] for n in part} for part in (main.arrays, main.buffers))
        return Base(main.version, arrays, buffers)

    def start(self, model: Base, name: str) -> Base:
        """Return the model that a cluster starts from."""
        return model

    @abstractmethod
    def assign(self, round: Round, sites: Sequence[str]) -> Mapping[str, str]:
        """Return the cluster that each sampled site trains for in a round."""

    def regroup(self, round: Round, members: dict[str, str]) -> dict[str, str]:
        """Return, by the name of each new cluster, the one whose model it starts from.

        Args:
            round: that has just come to its models.
            members: by site, its cluster; changed in place.
        """
        return {}

    def submit(self, round: Round, sites: Sequence[str]) -> None:
        main, self._up = round.model, 0
        self._assigned = self.assign(round, sites)
        self._models = {name: self.model(round, name) for name in self.names}
        self._parts: dict[str, Collector] = {}
        for name, model in self._models.items():
            if mine := [site for site in sites if self._assigned[site] == name]:
                round.model = model
                super().submit(round, mine)
                self._parts[name] = self.collector
        round.model = main

    def apply(self, round: Round, site: str, reply: Message) -> None:
        self._parts[self._assigned[site]].take(site, reply)

    def result(self, round: Round) -> Result:
        if not any(part.answers for part in self._parts.values()):
            raise SiteError(f"round {round.number}: every site failed")
        main, models, updates = round.model, dict[str, Arrays](), list[Contribution]()
        for name, model in self._models.items():
            part = self._parts.get(name)
            if part is None or not part.answers:
                models[name] = {**model.arrays, **model.buffers}
                continue
            round.model, self.collector = model, part
            found = super().result(round)
            models[name] = {**found.arrays, **found.buffers}
            updates += found.updates
        round.model = main
        before = self.members
        members = before | {each.site: self._assigned[each.site] for each in updates}
        for new, old in self.regroup(round, members).items():
            models[new] = models[old]
        place = {site: n for n, site in enumerate(self.services.dispatcher.roster.sites)}
        members = dict(sorted(members.items(), key=lambda item: place.get(item[0], len(place))))
        updates.sort(key=lambda each: place.get(each.site, len(place)))
        self.state = {**self.state, NAMES: list(models), MEMBERS: members}
        if len(models) > 1 and members != before:
            round.note("clusters", described(members))
        chosen = models[largest(list(models), members)]
        arrays, buffers = ({n: chosen[n] for n in part} for part in (main.arrays, main.buffers))
        size = self._up + sum(part.bytes_up for part in self._parts.values())
        return Result(arrays, buffers, updates, size, models)


class OfUpdates(Clustered):
    """Clusters by the sites' updates of one round, which are kept until it ends.

    The memory is that of an update per sampled site. A new cluster starts from the model of the
    one that it was part of.
    """

    def check(self, strategy: Strategy, transforms: Chain, clock: Clock, keep: int | None) -> None:
        super().check(strategy, transforms, clock, keep)
        if (fraction := fraction_of(strategy)) < 1:
            raise ConfigError(
                f"{self.key} compares the updates of all sites in a round: "
                f"strategy.fraction_train={fraction:g} must be 1"
            )

    def assign(self, round: Round, sites: Sequence[str]) -> Mapping[str, str]:
        members, first = self.members, self.names[0]
        return {site: members.get(site, first) for site in sites}

    def submit(self, round: Round, sites: Sequence[str]) -> None:
        self.deltas: dict[str, NDArray[np.float32]] = {}
        self.examples: dict[str, float] = {}
        super().submit(round, sites)

    def collect(self, round: Round) -> Collector:
        chain = self.services.transforms.on_server(round.number, round.attempt)
        return Collector(
            round.model, round.note, adds_up(self.services.strategy), Watched(chain, self)
        )


class Watched:
    """The server's halves of a round's transforms; accepted updates are looked at on their way.

    Args:
        chain: the transforms, if there are any.
        server: gets every update.
    """

    hides_values = False

    def __init__(self, chain: Chain | None, server: OfUpdates) -> None:
        self._chain, self._server = chain, server

    def decode(self, update: Update) -> Update:
        return update if self._chain is None else self._chain.decode(update)

    def before_sum(self, update: Update) -> Update:
        delta = [np.reshape(array, -1) for array in update.delta().values()]
        self._server.deltas[update.site] = np.concatenate(delta, dtype=np.float32)
        self._server.examples[update.site] = update.examples
        return update if self._chain is None else self._chain.before_sum(update)

    def after_sum(
        self, totals: dict[str, Total], contributions: Sequence[Contribution]
    ) -> dict[str, Total]:
        return totals if self._chain is None else self._chain.after_sum(totals, contributions)


def largest(names: Sequence[str], members: Mapping[str, str]) -> str:
    """Return the cluster that most sites are in, the first of equal ones."""
    sizes = dict.fromkeys(names, 0)
    for name in members.values():
        sizes[name] += 1
    return max(names, key=lambda name: sizes[name])


def described(members: Mapping[str, str]) -> str:
    """Return which site is in which cluster, in one sentence."""
    groups: dict[str, list[str]] = {}
    for site, name in members.items():
        groups.setdefault(name, []).append(site)
    return "; ".join(f"{name}: {listing(groups[name], most=SHOWN)}" for name in sorted(groups))


def cosines(vectors: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Return (K, K) cosine similarities of K vectors; a vector of zeros is like no other."""
    stacked = np.stack(vectors).astype(np.float64)
    norms = np.linalg.norm(stacked, axis=1, keepdims=True)
    unit = np.divide(stacked, norms, out=np.zeros_like(stacked), where=norms > 0)
    found: NDArray[np.float64] = np.clip(unit @ unit.T, -1.0, 1.0)
    return found

"""Base class of servers whose sites work on, while others have brought a new version about.

A site that is free gets the newest version; a version is made of the updates that came since the
last one. Which jobs are under way is state, so a run that was stopped submits them again, from the
version that each began with. Updates of a version are added up in site order, and those of an older
base by their difference from it: the order in which they came changes nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.serverapp.strategy import Strategy

from fedpdm.aggregation.collector import Collector
from fedpdm.aggregation.sums import AddsUp, Sums, adds_up, weighs_by_examples
from fedpdm.aggregation.update import Base
from fedpdm.errors import ConfigError, SiteError
from fedpdm.seeding import numpy_generator
from fedpdm.server.base import Result, Round, Server
from fedpdm.server.clock import Clock
from fedpdm.server.selection import sample_size
from fedpdm.server.virtual_clock import LOST
from fedpdm.strategies.base import ServerHalf
from fedpdm.transforms.base import Chain
from fedpdm.wire.records import Arrays, config_record

Job = dict[str, int]

PATIENCE = 20
"""A version goes on with what it has after so many times as many jobs failed as it needs."""


@dataclass(frozen=True)
class Group:
    """The updates of one base that go into a version.

    Attributes:
        base: the model that their sites began from.
        sums: their weighted sums.
        buffers: their buffers combined, if they sent any.
        weight: the staleness weight that they have in common.
    """

    base: Base
    sums: Sums
    buffers: Arrays | None
    weight: float


class Asynchronous(Server):
    """Keeps a share of the sites at work, each from the version that was the newest at its start.

    ``strategy.fraction_train`` is the share of the sites that work at once.
    """

    in_order = False

    # What a kind of server says -----------------------------------------------------------------

    @abstractmethod
    def wanted(self, round: Round) -> int:
        """Return how many updates make a version."""

    @abstractmethod
    def weight(self, staleness: int) -> float:
        """Return the weight of an update that began so many versions ago."""

    @abstractmethod
    def merge(self, model: Base, groups: Sequence[Group]) -> Arrays:
        """Return what takes the place of the mean of the updates, in float64."""

    # The run ------------------------------------------------------------------------------------

    def check(self, strategy: Strategy, transforms: Chain, clock: Clock, keep: int | None) -> None:
        adding, me, who = adds_up(strategy), type(self).__name__, type(strategy).__name__
        if adding is None or adding.replies or not weighs_by_examples(adding):
            raise ConfigError(
                f"server {me} adds up differences from several versions, weighted by examples; "
                f"{who} needs every single update, records beside them or another weight: choose "
                "strategy=fedavg or fedprox, or server=synchronous"
            )
        for each in transforms.transforms:
            if each.needs_sums or each.hides_values:
                raise ConfigError(
                    f"transforms.{each.name} works on the sum of one version's updates, and server "
                    f"{me} mixes several; leave it out, or choose server=synchronous"
                )
        if keep is not None:
            raise ConfigError(
                f"history.keep={keep}: server {me} needs the versions that sites began from, to "
                "go on where it was stopped; use history.keep=all"
            )

    def restore(self, state: dict[str, Any]) -> None:
        self.state = {"jobs": {}, "given": {}, **state}
        self._lost = list(self.state["jobs"])
        self._heard: list[tuple[Job, str, Message]] = []
        self._bases: dict[int, Base] = {}

    @property
    def jobs(self) -> dict[str, Job]:
        """The jobs under way, by site."""
        jobs: dict[str, Job] = self.state["jobs"]
        return jobs

    def select(self, round: Round) -> list[str]:
        self._heard, self._failed, self._draws = [], 0, 0
        self._broken: set[str] = set()  # they raised an error, and are not asked again so soon
        used = {job["version"] for job in self.jobs.values()}
        self._bases = {version: base for version, base in self._bases.items() if version in used}
        self._bases[round.model.version] = round.model
        return self._free(round)

    def _free(self, round: Round) -> list[str]:
        """Return the sites that are to be given work now, in site order."""
        services, key = self.services, [round.number, round.attempt]
        left_out = services.history.excluded(round.number) | self._broken
        every = services.dispatcher.roster.sites
        idle = [site for site in every if site not in left_out and site not in self.jobs]
        room = self.room(len(every)) - len(self.jobs)
        if room <= 0:
            return []
        there = services.clock.present(idle, wait=not self.jobs)
        if room >= len(there):
            return there
        # The first draw of a round is that of synchronous rounds.
        key += [self._draws] if self._draws else []
        self._draws += 1
        chosen = numpy_generator(services.seed, "sample", *key).choice(
            len(there), size=room, replace=False
        )
        return [there[place] for place in sorted(chosen)]

    def room(self, sites: int) -> int:
        """Return how many of the sites may work at once."""
        return sample_size(self.services.fraction, sites)

    def submit(self, round: Round, sites: Sequence[str]) -> None:
        sent = round.bytes_down
        again = [(site, self.jobs[site]) for site in self._lost]
        self._lost = []
        for job in sorted({tuple(job.values()) for _, job in again}):
            same = [site for site, other in again if tuple(other.values()) == job]
            self._give(round, same, dict(zip(("version", "attempt", "repeat"), job, strict=True)))
        round.bytes_down = sent  # counted when they were first sent
        self._begin(round, sites)

    def _begin(self, round: Round, sites: Sequence[str]) -> None:
        """Give sites the newest version."""
        given, kinds = self.state["given"], dict[int, list[str]]()
        for site in sites:
            key = (round.model.version, round.attempt)
            repeat = given[site][2] + 1 if tuple(given.get(site, ())[:2]) == key else 0
            given[site] = [*key, repeat]
            self.jobs[site] = {"version": key[0], "attempt": key[1], "repeat": repeat}
            kinds.setdefault(repeat, []).append(site)
        for _, same in sorted(kinds.items()):
            self._give(round, same, self.jobs[same[0]])

    def _give(self, round: Round, sites: Sequence[str], job: Job) -> None:
        base = self._base(job["version"])
        # A site's first job from a version draws what it would in synchronous rounds.
        again = {"job": str(job["repeat"])} if job["repeat"] else {}
        config = config_record(server_round=base.version + 1, attempt=job["attempt"], **again)
        self.send_model(round, sites, base, config)

    def _base(self, version: int) -> Base:
        """Return a committed model, from the history after a stop."""
        if version not in self._bases:
            self._bases[version] = self.services.model(version)
        return self._bases[version]

    def next_reply(self, round: Round) -> tuple[str, Message] | None:
        if self.full(round):
            return None
        if self.services.clock.passes():  # all that came at the same time is heard first
            self.refill(round)
        heard = super().next_reply(round)
        if heard is None and self.jobs:  # nobody is waited for any more: those are lost
            self._failed += len(self.jobs)
            self.jobs.clear()
            return self.next_reply(round)
        return heard

    def full(self, round: Round) -> bool:
        """Return whether the version has what it needs, or cannot get it."""
        return len(self._heard) >= self.wanted(round) or self.hopeless(round)

    def hopeless(self, round: Round) -> bool:
        """Return whether too many jobs came to nothing for the version to go on."""
        return self._failed > PATIENCE * max(5, self.wanted(round))

    def refill(self, round: Round) -> None:
        """Give free sites work."""
        more = self._free(round)
        round.sampled = [*round.sampled, *more]
        self._begin(round, more)

    def apply(self, round: Round, site: str, reply: Message) -> None:
        job = self.jobs.pop(site)
        if reply.has_error():
            self._failed += 1
            if reply.error.code != LOST:
                self._broken.add(site)
                round.note("site-failed", f"{site} failed: {reply.error.reason}", site)
        elif site in self.services.history.excluded(round.number):
            round.note("refused", f"{site}: its update is left out after a rollback", site)
        else:
            self._heard.append((job, site, reply))

    def result(self, round: Round) -> Result:
        if not self._heard:
            raise SiteError(f"round {round.number}: every site failed")
        adding = adds_up(self.services.strategy)
        assert adding is not None  # as ``check`` saw to
        place = {site: n for n, site in enumerate(self.services.dispatcher.roster.sites)}
        collectors: dict[int, Collector] = {}
        for job, site, reply in sorted(
            self._heard, key=lambda each: (each[0]["version"], place[each[1]], each[0]["repeat"])
        ):
            version = job["version"]
            if version not in collectors:
                collectors[version] = self._collector(round, version, adding)
            collectors[version].take(site, reply)
        groups = []
        for version, collector in collectors.items():
            if (sums := collector.sums()) is not None:
                weight = self.weight(round.model.version - version)
                base = self._base(version)
                groups.append(Group(base, sums, collector.buffers(), weight))
        updates = [update for each in collectors.values() for update in each.updates]
        bytes_up = sum(each.bytes_up for each in collectors.values())
        late = [round.model.version - job["version"] for job, _, _ in self._heard]
        self.services.calls.reported["staleness"] = float(np.mean(late))
        round.sampled = list(dict.fromkeys(round.sampled))
        arrays, buffers = self._combined(round, groups, adding)
        return Result(arrays, buffers, updates, bytes_up)

    def _collector(self, round: Round, version: int, adding: AddsUp) -> Collector:
        halves = self.services.transforms.on_server(round.number, round.attempt)
        return Collector(self._base(version), round.note, adding, halves)

    @np.errstate(all="ignore")  # what is not finite is refused by the loop
    def _combined(
        self, round: Round, groups: Sequence[Group], adding: AddsUp
    ) -> tuple[Arrays, Arrays]:
        """Return the new parameters and buffers, of the types of the old ones."""
        old = round.model
        if not groups:
            round.note("warning", f"no new model in round {round.number}: the last one stays")
            return old.arrays, old.buffers
        sites = [metrics for group in groups for metrics in group.sums.sites]
        weight = sum(group.sums.weight for group in groups)
        sums = Sums(sites, weight, self.merge(old, groups), {})
        new = adding.combine(round.number, old.arrays, sums)
        if isinstance(adding, ServerHalf):
            self.services.calls.reported |= adding.metrics()
        return (
            {name: new[name].astype(array.dtype) for name, array in old.arrays.items()},
            self.merge_buffers(old, groups),
        )

    def merge_buffers(self, model: Base, groups: Sequence[Group]) -> Arrays:
        """Return the buffers combined: a mean, so that no running variance falls below 0."""
        held = [(g.weight * g.sums.weight, g.buffers) for g in groups if g.buffers]
        if not held:
            return model.buffers
        return weighted_buffers(model, held)


def moved(model: Base, groups: Sequence[Group], rate: float = 1.0) -> Arrays:
    """Return the model moved by the sites' differences, each from its own base.

    x + rate * sum_b s_b W_b (mean_b - x_b) / sum_b W_b over the bases b, where W_b is the weight
    of a base's updates, mean_b their mean, and s_b their staleness weight.
    """
    first = groups[0]
    if len(groups) == 1 and first.base is model and first.weight == rate == 1.0:
        return first.sums.mean  # the same number, to the last digit, as in synchronous rounds
    total = sum(group.sums.weight for group in groups)
    change = {name: np.zeros(array.shape) for name, array in model.arrays.items()}
    for group in groups:
        share = rate * group.weight * group.sums.weight / total
        for name, start in group.base.arrays.items():
            change[name] += share * (group.sums.mean[name] - start)
    return {name: array + change[name] for name, array in model.arrays.items()}


def weighted_buffers(model: Base, held: Sequence[tuple[float, Arrays]]) -> Arrays:
    """Return weighted means of buffers, in the model's types; of whole numbers the maximum."""
    if len(held) == 1:
        return held[0][1]
    total = sum(weight for weight, _ in held)
    found = {}
    for name, old in model.buffers.items():
        arrays = [(weight, buffers[name]) for weight, buffers in held]
        if old.dtype.kind in "iu":
            found[name] = np.maximum.reduce([array for _, array in arrays])
        else:
            mean = sum(weight * array.astype(np.float64) for weight, array in arrays) / total
            found[name] = np.asarray(mean, old.dtype)
    return found

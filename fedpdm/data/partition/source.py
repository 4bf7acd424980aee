"""Divides a data set that is one file, or a pool of generated machines, among sites."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from functools import cached_property
from inspect import get_annotations

import numpy as np

from fedpdm.data.partition.base import Division, Partition
from fedpdm.data.rows import Rows, Split
from fedpdm.data.sources.base import Source
from fedpdm.data.splits.cuts import by_time, drawn_machines, validated_on
from fedpdm.errors import ConfigError
from fedpdm.seeding import numpy_generator


class PartitionedSource(Source):
    """A data set that comes as one file and that a partition divides among sites."""

    def __init__(self, sites: Mapping[str, object], partition: Partition, seed: int) -> None:
        """Prepare; nothing is read before a site is first asked for.

        Args:
            sites: sites to name; empty lets the partition name them.
            partition: which site owns which rows.
            seed: of every draw.
        """
        self.seed, self.names, self.partition = seed, tuple(sites), partition
        self.shares_machines = partition.shares_machines
        self.asked: int | None = getattr(partition, "sites", None)
        """The number of sites that ``partition.sites`` asks for."""

    @abstractmethod
    def read(self) -> Rows:
        """Return the rows of all sites, with the splits that the data prescribes."""

    @cached_property
    def whole(self) -> Rows:
        """The rows of all sites, as ``read`` returned them."""
        return self.read()

    @cached_property
    def division(self) -> Division:
        """Which rows each site owns."""
        generator = numpy_generator(self.seed, "partition", self.name)
        return self.partition.divide(self.whole, self.names, generator)

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.division.sites)

    def rows(self, site: str) -> Rows:
        if site not in self.sites:
            raise ConfigError(
                f"data={self.name} has no site '{site}'; there are {', '.join(self.sites)}"
            )
        return self.whole.take(self.division.sites[site])

    def hold_back(self, rows: Rows, site: str, fraction: float) -> Rows:
        """Mark the machines of a site that are validated on, out of those marked TRAIN.

        A partition may name them (``Division.validation``). Where sites share machines,
        they are drawn once for all sites, so that no site trains on what another
        validates. Else each site draws ``fraction`` of its own.
        """
        key = ("validation", self.name)
        chosen = self.division.validation
        if chosen is None and self.shares_machines:
            chosen = drawn_machines(self.whole, numpy_generator(self.seed, *key), fraction)
        elif chosen is None:
            chosen = drawn_machines(rows, numpy_generator(self.seed, *key, site), fraction)
        return validated_on(rows, chosen)


class RepartitionedSource(PartitionedSource):
    """The machines of all named sites in one pool, which a partition deals among new sites.

    The pool is cut by time once, at the same dates for all machines, and its held-out
    machines are drawn once, before anything is dealt: every partition of the same sites and
    seed tests the same machines in the same weeks, and differs in who owns them only.

    Args:
        source: sites with machines of their own, generated from a seed.
        partition: deals whole machines; where it names no number of sites, to as many as the
            source has.
        seed: of every draw.
        reach: how far past a row its label looks, in the data's time unit.

    The pool lies in memory and its sites are not made on demand (``generated`` is False): as
    with real data, a run looks at all of them, and all of them stand in its split file.
    """

    def __init__(self, source: Source, partition: Partition, seed: int, reach: float) -> None:
        for name in get_annotations(Source):  # name, unit, features, window …
            setattr(self, name, getattr(source, name))
        super().__init__({}, partition, seed)
        self.source, self.reach, self.generated = source, reach, False
        self.families = {}  # whose sites were other ones
        if hasattr(partition, "sites") and self.asked is None:
            self.partition = copy(partition)
            vars(self.partition)["sites"] = len(source.sites)

    def read(self) -> Rows:
        """Return the rows of all machines, cut at common dates."""
        pool = Rows.concatenate([self.source.rows(site) for site in self.source.sites])
        uncut = replace(pool, split=np.full(len(pool), Split.UNUSED, dtype=np.int8))
        generator = numpy_generator(self.seed, "heldout", "pool")
        return by_time(uncut, reach=self.reach, generator=generator, site=self.name)

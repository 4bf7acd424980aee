"""Generated machines, pooled and divided again: controlled skew on data with sites of its own."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import numpy as np

from fedpdm.data.partition.base import Partition
from fedpdm.data.partition.source import PartitionedSource
from fedpdm.data.rows import Rows, Split
from fedpdm.data.sources.base import Source
from fedpdm.data.splits.cuts import by_time
from fedpdm.seeding import numpy_generator


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
        self.asked: int | None = getattr(partition, "sites", None)
        if getattr(partition, "sites", 0) is None:  # as many sites as machines came from
            partition = copy(partition)
            vars(partition)["sites"] = len(source.sites)
        super().__init__({}, partition, seed)
        self.source, self.reach = source, reach
        self.name, self.time_unit, self.features = source.name, source.time_unit, source.features
        self.window, self.stride = source.window, source.stride
        self.evaluation_stride = source.evaluation_stride
        self.conditions, self.categorical = source.conditions, source.categorical
        self.operating = source.operating
        self.pad_training, self.test_truncated = source.pad_training, source.test_truncated

    def read(self) -> Rows:
        """Return the rows of all machines, cut at common dates."""
        pool = Rows.concatenate([self.source.rows(site) for site in self.source.sites])
        uncut = replace(pool, split=np.full(len(pool), Split.UNUSED, dtype=np.int8))
        generator = numpy_generator(self.seed, "heldout", "pool")
        return by_time(uncut, reach=self.reach, generator=generator, site=self.name)

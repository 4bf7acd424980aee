"""A data set that comes as one file, and the sites that a partition makes of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np

from fedpdm.data.partition.base import Division, Partition
from fedpdm.data.rows import Ints, Rows, Split, Strings
from fedpdm.data.sources.base import Source
from fedpdm.data.splits.cuts import by_machine, drawn_machines
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
        self.seed = seed
        self._names = tuple(sites)
        self._partition = partition
        self.shares_machines = partition.shares_machines

    @abstractmethod
    def read(self) -> Rows:
        """Return the rows of all sites, with the splits that the data prescribes."""

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self._sites)

    def rows(self, site: str) -> Rows:
        if site not in self._sites:
            raise ConfigError(
                f"data={self.name} has no site '{site}'; there are {', '.join(self.sites)}"
            )
        return self._whole.take(self._sites[site])

    def hold_back(self, rows: Rows, site: str, fraction: float) -> Rows:
        """Mark the machines of a site that are validated on, out of those marked TRAIN.

        A partition may name them (``Division.validation``). Where sites share machines,
        they are drawn once for all sites, so that no site trains on what another
        validates. Else each site draws ``fraction`` of its own.
        """
        if self._division.validation is None and not self.shares_machines:
            return by_machine(
                rows,
                generator=numpy_generator(self.seed, "validation", self.name, site),
                validation_fraction=fraction,
            )
        chosen = self._division.validation
        if chosen is None:
            chosen = self._shared_validation(fraction)
        split = rows.split.copy()
        split[(split == Split.TRAIN) & np.isin(rows.machine, chosen)] = Split.VALIDATION
        return replace(rows, split=split)

    @property
    def names(self) -> tuple[str, ...]:
        """The sites that ``site=`` names; empty lets the partition name them."""
        return self._names

    @property
    def whole(self) -> Rows:
        """The rows of all sites, as ``read`` returned them."""
        return self._whole

    @cached_property
    def _whole(self) -> Rows:
        return self.read()

    @cached_property
    def _division(self) -> Division:
        generator = numpy_generator(self.seed, "partition", self.name)
        return self._partition.divide(self._whole, self._names, generator)

    @property
    def _sites(self) -> dict[str, Ints]:
        return self._division.sites

    def _shared_validation(self, fraction: float) -> Strings:
        generator = numpy_generator(self.seed, "validation", self.name)
        return drawn_machines(self._whole, generator, fraction)

"""Partitions by chance alone: sites differ in nothing else."""

from __future__ import annotations

import numpy as np

from fedpdm.data.partition.base import (
    Division,
    Machines,
    Partition,
    WholeMachines,
    by_name,
    owned,
    require_enough,
    site_names,
)
from fedpdm.data.rows import Ints, Rows, Split
from fedpdm.data.sources.base import require_positive
from fedpdm.errors import ConfigError


class ByMachine(WholeMachines):
    """Whole machines at random, each split's machines dealt evenly: nothing is skewed."""

    name = "machine"

    def shares(self, machines: Machines, sites: int, generator: np.random.Generator) -> Ints:
        owner = np.zeros(len(machines), dtype=np.int64)
        for part in machines.groups:
            shuffled = generator.permutation(np.flatnonzero(part))
            owner[shuffled] = np.arange(len(shuffled)) % sites
        return owner


class Iid(ByMachine):
    """Single rows at random, or whole machines of a time series: nothing is skewed.

    Rows of a series are not torn apart: neighbours are nearly copies, and a site that trains
    on one of two would know what another site is tested on.
    """

    name = "iid"


class Paired(Partition):
    """One training machine per site, and the test machine of the same number.

    Skewed is everything that one machine can be: FedCMAPSS task E. Training machines that
    are left over are dealt among sites to be validated on; test machines that are left over
    belong to no site.

    Args:
        sites: number of sites.
        column: the group that a training and a test machine have in common.
    """

    def __init__(self, sites: int | None = None, column: str = "number") -> None:
        self.sites = None if sites is None else require_positive("partition.sites", sites)
        self.column = column

    def divide(
        self, rows: Rows, names: tuple[str, ...], generator: np.random.Generator
    ) -> Division:
        names, machines = site_names(self.sites, names, len(rows)), Machines(rows)
        require_enough("paired", len(names), machines)
        if self.column not in rows.groups:
            raise ConfigError(
                f"partition=paired pairs training and test machines by the column "
                f"'{self.column}', which this data has not; use partition=machine"
            )
        number = rows.groups[self.column][machines.first]
        training = np.flatnonzero(machines.split == Split.TRAIN)
        drawn = generator.permutation(training)
        share, position = by_name(names), np.full(len(machines), -1, dtype=np.int64)
        chosen, spare = drawn[: len(names)], drawn[len(names) :]
        position[chosen] = share
        position[spare] = share[np.arange(len(spare)) % len(names)]
        owner_of = dict(zip(number[chosen].tolist(), share.tolist(), strict=True))
        for machine in np.flatnonzero(machines.split != Split.TRAIN):
            position[machine] = owner_of.get(str(number[machine]), -1)
        return Division(owned(position[machines.index], names), machines.ids[spare])

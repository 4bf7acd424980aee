"""Which plant owns which rows, for data sets that come as one file.

A partition gives every row to exactly one plant. The same seed gives the same plants,
in whatever order rows lie in the file or plants are named. Ozdemir et al. (PHME 2026)
show that the partition alone changes federated results, so it is an option of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.checks import require_positive
from fedpdm.data.rows import Ints, Rows, Split, Strings
from fedpdm.data.source import Source
from fedpdm.errors import ConfigError
from fedpdm.keys import numpy_generator

DEFAULT_PLANTS = 10  # as FedCMAPSS task A


class Partition(ABC):
    """A way to give rows to plants. One class here and one yaml in ``conf/partition``."""

    @abstractmethod
    def plants(
        self, rows: Rows, names: tuple[str, ...], generator: np.random.Generator
    ) -> dict[str, Ints]:
        """Return for each plant the ascending positions of its rows.

        Args:
            rows: all rows of the data set, with the splits that the data prescribes.
            names: the plants that ``site=`` names; empty lets the partition name them.
            generator: the only source of chance.

        Raises:
            ConfigError: the rows cannot be divided in this way among these plants.
        """


class Natural(Partition):
    """Each plant owns what the data says it owns: for data with plants of its own."""

    def plants(
        self, rows: Rows, names: tuple[str, ...], generator: np.random.Generator
    ) -> dict[str, Ints]:
        raise ConfigError(
            "partition=natural: this data is one file and has no plants of its own; use "
            "partition=type (AI4I) or partition=machine partition.sites=10 (C-MAPSS)"
        )


class ByMachine(Partition):
    """Whole machines at random; each split's machines are dealt evenly."""

    def __init__(self, sites: int | None = None) -> None:
        self.sites = None if sites is None else require_positive("partition.sites", sites)

    def plants(
        self, rows: Rows, names: tuple[str, ...], generator: np.random.Generator
    ) -> dict[str, Ints]:
        names = plant_names(self.sites, names)
        machines, first, index = np.unique(rows.machine, return_index=True, return_inverse=True)
        split = rows.split[first]  # of each machine
        trained_on = int(np.sum(split == Split.TRAIN))
        if len(names) > trained_on:
            raise ConfigError(
                f"partition=machine cannot give {len(names)} plants a machine each to train on: "
                f"the data has {trained_on}; lower partition.sites"
            )
        owner = np.zeros(len(machines), dtype=np.int64)
        for part in np.unique(split):
            owner[split == part] = deal(int(np.sum(split == part)), len(names), generator)
        return by_owner(owner[index], names)


class Iid(Partition):
    """Single rows at random: plants that differ by chance only, a control."""

    def __init__(self, sites: int | None = None) -> None:
        self.sites = None if sites is None else require_positive("partition.sites", sites)

    def plants(
        self, rows: Rows, names: tuple[str, ...], generator: np.random.Generator
    ) -> dict[str, Ints]:
        names = plant_names(self.sites, names)
        ids, index = np.unique(rows.machine, return_inverse=True)
        if len(ids) < len(rows):
            raise ConfigError(
                "partition=iid draws single rows and would tear the time series of machines "
                "apart; use partition=machine"
            )
        if len(names) > len(rows):
            raise ConfigError(
                f"partition=iid cannot give {len(names)} plants a row each: the data has "
                f"{len(rows)}; lower partition.sites"
            )
        return by_owner(deal(len(ids), len(names), generator)[index], names)


class ByType(Partition):
    """One plant for each value of a column, largest first: plants that differ in kind."""

    def __init__(self, column: str = "type") -> None:
        self.column = column

    def plants(
        self, rows: Rows, names: tuple[str, ...], generator: np.random.Generator
    ) -> dict[str, Ints]:
        column = rows.groups.get(self.column)
        if column is None:
            there = ", ".join(rows.groups) or "none"
            raise ConfigError(
                f"partition.column={self.column}: this data has no such column to divide by; "
                f"columns: {there}. Use another partition, for example partition=machine"
            )
        require_whole_machines(self.column, column, rows)
        values, index, count = np.unique(column, return_inverse=True, return_counts=True)
        order = np.lexsort((values, -count))
        kinds = tuple(str(value) for value in values[order])
        names = names or kinds
        if len(names) != len(kinds):
            raise ConfigError(
                f"partition=type makes {len(kinds)} plants ({', '.join(kinds)}), but site= names "
                f"{len(names)} ({', '.join(names)}): name {len(kinds)}, or leave site=[]"
            )
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        positions = rank[index]
        return {name: np.flatnonzero(positions == k) for k, name in enumerate(names)}


class PartitionedSource(Source):
    """A data set that comes as one file and that a partition divides among plants."""

    def __init__(self, sites: Mapping[str, object], partition: Partition, seed: int) -> None:
        """Prepare; nothing is read before a plant is first asked for.

        Args:
            sites: plants to name; empty lets the partition name them.
            partition: which plant owns which rows.
            seed: of every draw.
        """
        self.seed = seed
        self._names = tuple(sites)
        self._partition = partition

    @abstractmethod
    def read(self) -> Rows:
        """Return the rows of all plants, with the splits that the data prescribes."""

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self._plants)

    def rows(self, site: str) -> Rows:
        if site not in self._plants:
            raise ConfigError(
                f"data={self.name} has no plant '{site}'; there are {', '.join(self.sites)}"
            )
        return self._whole.take(self._plants[site])

    @cached_property
    def _whole(self) -> Rows:
        return self.read()

    @cached_property
    def _plants(self) -> dict[str, Ints]:
        generator = numpy_generator(self.seed, "partition", self.name)
        return self._partition.plants(self._whole, self._names, generator)


def plant_names(sites: int | None, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the named plants, or ``sites`` numbered ones; refuse a contradiction."""
    if names and sites is not None and sites != len(names):
        raise ConfigError(
            f"partition.sites={sites} contradicts site=, which names {len(names)} plants "
            f"({', '.join(names)}): leave one of them out"
        )
    if names:
        return names
    count = DEFAULT_PLANTS if sites is None else sites
    width = max(2, len(str(count)))
    return tuple(f"plant-{number:0{width}d}" for number in range(1, count + 1))


def deal(things: int, plants: int, generator: np.random.Generator) -> Ints:
    """Return for each of ``things`` its plant: shuffled, shares differ by at most one."""
    owner = np.empty(things, dtype=np.int64)
    owner[generator.permutation(things)] = np.arange(things) % plants
    return owner


def by_owner(owner: Ints, names: tuple[str, ...]) -> dict[str, Ints]:
    """Return each plant's positions; which share a plant gets hangs on its name alone."""
    share = {name: k for k, name in enumerate(sorted(names))}
    return {name: np.flatnonzero(owner == share[name]) for name in names}


def require_whole_machines(name: str, column: Strings, rows: Rows) -> None:
    """Raise ConfigError if dividing by ``column`` would tear a machine's series apart."""
    same_machine: NDArray[np.bool_] = rows.machine[1:] == rows.machine[:-1]
    if np.any(same_machine & (column[1:] != column[:-1])):
        raise ConfigError(
            f"partition.column={name} changes within a machine, so it would tear time series "
            "apart; use partition=machine"
        )

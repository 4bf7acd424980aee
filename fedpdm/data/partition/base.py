"""The interface of a partition, and what all partitions share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedpdm.data.rows import Bools, Ints, Rows, Split, Strings
from fedpdm.data.sources.base import require_positive
from fedpdm.errors import ConfigError

DEFAULT_SITES = 10  # as FedCMAPSS task A


@dataclass(frozen=True)
class Division:
    """What a partition decided.

    Attributes:
        sites: for each site the ascending positions of its rows.
        validation: machines that are only validated on; None lets the data set draw them
            among the machines that it marks for training.
    """

    sites: dict[str, Ints]
    validation: Strings | None = None


class Partition(ABC):
    """A way to give rows to sites. One class here and one yaml in ``conf/partition``."""

    shares_machines: bool = False
    """Whether one machine's rows may lie at several sites. Then machines, not rows, must be
    validated on: the same ones at every site."""

    @abstractmethod
    def divide(
        self, rows: Rows, names: tuple[str, ...], generator: np.random.Generator
    ) -> Division:
        """Return which rows each site owns, and the validation machines where it chooses them.

        Args:
            rows: all rows of the data set, with the splits that the data prescribes.
            names: the sites that ``site=`` names; empty lets the partition name them.
            generator: the only source of chance.

        Raises:
            ConfigError: the rows cannot be divided in this way among these sites.
        """


class Natural(Partition):
    """Each site owns what the data says it owns: skewed as the real sites are."""

    def divide(
        self, rows: Rows, names: tuple[str, ...], generator: np.random.Generator
    ) -> Division:
        raise ConfigError(
            "partition=natural: this data is one file and has no sites of its own; use "
            "partition=type (AI4I) or partition=machine partition.sites=10 (C-MAPSS)"
        )


class Machines:
    """The machines of a data set, sorted by id: what most partitions deal.

    Where every row is a machine of its own (AI4I), they are the single rows.

    Attributes:
        ids: (M,) machine ids.
        first: (M,) position of each machine's first row.
        index: (R,) which machine a row belongs to.
        split: (M,) the split of each machine's first row.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.ids, self.first, self.index = np.unique(
            rows.machine, return_index=True, return_inverse=True
        )
        self.split = rows.split[self.first]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def trained_on(self) -> int:
        """How many machines there are to train on."""
        return int(np.sum(self.split == Split.TRAIN))

    @property
    def word(self) -> str:
        """What a person calls one of them."""
        return "row" if len(self.ids) == len(self.rows) else "machine"

    @cached_property
    def groups(self) -> list[Bools]:
        """(M,) masks of the machines of each split: every split is dealt by itself."""
        return [self.split == part for part in np.unique(self.split)]

    @cached_property
    def life(self) -> tuple[Bools, np.ndarray]:
        """(M,) whether each machine has one life with a known end, and (M,) how long it is.

        For an engine of an official test set that is its length plus the life it has left.
        """
        rows, count = self.rows, len(self)
        start, end = np.full(count, np.inf), np.full(count, -np.inf)
        np.minimum.at(start, self.index, rows.time)
        seen = ~np.isnan(rows.time_to_failure)
        np.maximum.at(end, self.index[seen], (rows.time + rows.time_to_failure)[seen])
        pairs = np.unique(np.stack([self.index, rows.life]), axis=1)[0]
        return np.asarray((np.bincount(pairs) == 1) & np.isfinite(end)), end - start


class WholeMachines(Partition):
    """Deals whole machines (single rows of tabular data), at least one to train on to a site.

    Args:
        sites: number of sites; None: those that ``site=`` names, or 10.
    """

    name: str
    """In ``partition=``."""
    ordered = False
    """Whether the first share is the first site's; else shares depend on names alone."""

    def __init__(self, sites: int | None = None) -> None:
        self.sites = None if sites is None else require_positive("partition.sites", sites)

    def divide(
        self, rows: Rows, names: tuple[str, ...], generator: np.random.Generator
    ) -> Division:
        machines = Machines(rows)
        require_enough(self.name, len(names) or self.sites or DEFAULT_SITES, machines)
        names = site_names(self.sites, names, len(rows))
        owner = self.shares(machines, len(names), generator)
        owner = owner if self.ordered else by_name(names)[owner]
        return Division(owned(owner[machines.index], names))

    @abstractmethod
    def shares(self, machines: Machines, sites: int, generator: np.random.Generator) -> Ints:
        """Return (M,) the number of the share, below ``sites``, that each machine goes to."""


def owned(owner: Ints, names: tuple[str, ...]) -> dict[str, Ints]:
    """Return each site's rows for the (R,) positions in ``names`` of the rows' sites."""
    return {name: np.flatnonzero(owner == k) for k, name in enumerate(names)}


def site_names(sites: int | None, names: tuple[str, ...], rows: int) -> tuple[str, ...]:
    """Return the named sites, or ``sites`` numbered ones.

    Args:
        sites: ``partition.sites``; None: those that are named, or 10.
        names: the sites that ``site=`` names.
        rows: of the whole data set.

    Raises:
        ConfigError: the two contradict each other, or there are more sites than rows.
    """
    if sites is not None and sites > rows:
        raise ConfigError(
            f"partition.sites={sites}: the data has {rows:,} rows only; lower partition.sites"
        )
    if names and sites is not None and sites != len(names):
        raise ConfigError(
            f"partition.sites={sites} contradicts site=, which names {len(names)} sites "
            f"({', '.join(names)}): leave one of them out"
        )
    if names:
        return names
    count = DEFAULT_SITES if sites is None else sites
    width = max(2, len(str(count)))
    return tuple(f"plant-{number:0{width}d}" for number in range(1, count + 1))


def require_enough(partition: str, sites: int, machines: Machines) -> None:
    """Raise ConfigError where there are more sites than machines to train on."""
    if sites > machines.trained_on:
        raise ConfigError(
            f"partition={partition} cannot give {sites} sites a {machines.word} each to "
            f"train on: the data has {machines.trained_on}; lower partition.sites"
        )


def by_name(names: tuple[str, ...]) -> Ints:
    """Return the position in ``names`` of each share: it depends on a site's name alone."""
    return np.argsort(np.array(names), kind="stable").astype(np.int64)

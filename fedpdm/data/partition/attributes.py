"""Partitions by an attribute of machines or rows: life, season, kind, operating condition."""

from __future__ import annotations

import numpy as np

from fedpdm.data.partition.base import (
    Division,
    Machines,
    Partition,
    WholeMachines,
    owned,
    site_names,
)
from fedpdm.data.rows import Bools, Ints, Rows, Split, Strings
from fedpdm.data.sources.base import require_positive
from fedpdm.data.splits.cuts import undecided
from fedpdm.errors import ConfigError


class ByLife(WholeMachines):
    """Machines sorted by life and cut into blocks: life, and so the label, is skewed.

    FedCMAPSS task C. The first site gets the shortest lives. Each split is sorted by
    itself; the life of an official test machine is its length plus the life it has left.
    Machines of equal life lie in the order of their ids.
    """

    name = "life"
    ordered = True

    def shares(self, machines: Machines, sites: int, generator: np.random.Generator) -> Ints:
        known, life = machines.life
        if not known.all():
            raise ConfigError(
                f"partition=life sorts machines by life, and the life of {machines.word} "
                f"{machines.ids[~known][0]} is not known (none, several, or its end was not seen); "
                "use partition=machine or partition=dirichlet"
            )
        owner = np.zeros(len(machines), dtype=np.int64)
        for part in machines.groups:
            members = np.flatnonzero(part)
            order = members[np.argsort(life[members], kind="stable")]
            for site, block in enumerate(np.array_split(order, sites)):
                owner[block] = site
        return owner


class ByTime(Partition):
    """The calendar cut into blocks, one for each site: the season is skewed (drift).

    Each split's rows are cut into blocks of equal size by their time, so every site trains
    before it is validated and tested. A machine that is watched through several blocks is
    shared by their sites, each with its own rows of it. Rows whose label looks past the end
    of their block belong to no site: labels and windows stay in one block. The last block
    ends with the record, and where that cuts lives short, rows close to it go too, because
    only those that fail would be known (``fedpdm.data.splits.cuts.undecided``).

    Engines that run to failure (C-MAPSS) have no common calendar: time is each engine's own
    cycle, and the blocks are stages of life, the youngest first. An engine is then of one split
    as a whole and its end is known, so no label looks past a record or into another split, and
    nothing is left out between blocks.

    Args:
        sites: number of sites; None: those that ``site=`` names, or 10.
        purge: time before the end of a block that belongs to no site; None: ``reach``, or
            nothing where whole machines run to failure.
        reach: how far past a row its label looks, in the data's time unit.
    """

    shares_machines = True

    def __init__(
        self, sites: int | None = None, purge: float | None = None, reach: float = 0.0
    ) -> None:
        self.sites = None if sites is None else require_positive("partition.sites", sites)
        if purge is not None and not purge >= 0:
            raise ConfigError(f"partition.purge={purge} must be at least 0")
        self.purge, self.reach = purge, reach

    def divide(
        self, rows: Rows, names: tuple[str, ...], generator: np.random.Generator
    ) -> Division:
        names = site_names(self.sites, names, len(rows))
        owner = np.full(len(rows), -1, dtype=np.int64)
        purge = self.purge
        if purge is None:
            purge = 0.0 if runs_to_failure(rows) else self.reach
        late = undecided(rows, purge)
        for part in np.unique(rows.split):
            members = np.flatnonzero(rows.split == part)
            time = rows.time[members]
            cuts = np.quantile(time, np.arange(1, len(names)) / len(names), method="higher")
            block = np.searchsorted(cuts, time, side="right")
            end = np.r_[cuts, np.inf][block]
            inside = time < end - purge if purge else np.ones(len(time), dtype=bool)
            owner[members[inside]] = block[inside]
        owner[late] = -1
        trained = np.bincount(owner[(rows.split == Split.TRAIN) & (owner >= 0)], minlength=1)
        if np.sum(trained > 0) < len(names):
            raise ConfigError(
                f"partition=time cannot cut the calendar into {len(names)} blocks with rows to "
                f"train on, {purge:g} time units before each cut left out; lower "
                "partition.sites or partition.purge"
            )
        return Division(owned(owner, names))


def runs_to_failure(rows: Rows) -> bool:
    """Return whether every machine is of one split as a whole, and the end of each is known."""
    same: Bools = rows.machine[1:] == rows.machine[:-1]
    cut = same & (rows.split[1:] != rows.split[:-1])
    return not (cut.any() or np.isnan(rows.time_to_failure).any())


class ByType(Partition):
    """One site for each value of a column, largest first: skewed as the kinds are.

    Args:
        column: the group to divide by, for example ``type`` (AI4I) or ``subset`` (C-MAPSS).
    """

    def __init__(self, column: str = "type") -> None:
        self.column = column

    def divide(
        self, rows: Rows, names: tuple[str, ...], generator: np.random.Generator
    ) -> Division:
        column = rows.groups.get(self.column)
        if column is None:
            there = ", ".join(rows.groups) or "none"
            raise ConfigError(
                f"partition.column={self.column}: this data has no such column to divide by; "
                f"columns: {there}. Use another partition, for example partition=machine"
            )
        torn = (rows.machine[1:] == rows.machine[:-1]) & (column[1:] != column[:-1])
        if torn.any():
            raise ConfigError(
                f"partition.column={self.column} changes within a machine, so it would tear time "
                "series apart; use partition=machine"
            )
        values, count = np.unique(column, return_counts=True)
        values = values[np.lexsort((values, -count))]
        return one_each("type", column, values, values.tolist(), names)


class ByCondition(Partition):
    """One site for each operating condition: the regime is skewed, FedCMAPSS task D.

    A machine that flies in several conditions is seen by several sites, each its own rows
    of it: machines are shared, so the same ones are validated on everywhere. A window is cut
    from a site's own consecutive rows.
    """

    shares_machines = True

    def divide(
        self, rows: Rows, names: tuple[str, ...], generator: np.random.Generator
    ) -> Division:
        conditions = np.unique(rows.condition)
        if len(conditions) < 2:
            subset = "data.subset=FD002 or FD004, or " if "subset" in rows.groups else ""
            raise ConfigError(
                "partition=condition makes a site of each operating condition, and this data has "
                f"one only; use {subset}another partition, for example partition=machine"
            )
        kinds = [f"condition-{k + 1}" for k in conditions]
        return one_each("condition", rows.condition, conditions, kinds, names)


def one_each(
    partition: str,
    column: Strings | Ints,
    values: Strings | Ints,
    kinds: list[str],
    names: tuple[str, ...],
) -> Division:
    """Return one site for each value of a column.

    Args:
        partition: its name in messages.
        column: (R,) what rows are divided by.
        values: its values, in the order of the sites.
        kinds: the name of each value, and of its site where ``site=`` names none.
        names: the sites that ``site=`` names.
    """
    if names and len(names) != len(kinds):
        raise ConfigError(
            f"partition={partition} makes {len(kinds)} sites ({', '.join(kinds)}), but site= names "
            f"{len(names)} ({', '.join(names)}): name {len(kinds)}, or leave site=[]"
        )
    sites = zip(names or kinds, values, strict=True)
    return Division({name: np.flatnonzero(column == value) for name, value in sites})

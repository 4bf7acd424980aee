"""Sites that differ in kind: one for each value of a column, or of the operating condition."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.partition.base import Partition
from fedpdm.data.rows import Ints, Rows, Strings
from fedpdm.errors import ConfigError


class ByType(Partition):
    """One site for each value of a column, largest first: skewed as the kinds are.

    Args:
        column: the group to divide by, for example ``type`` (AI4I) or ``subset`` (C-MAPSS).
    """

    def __init__(self, column: str = "type") -> None:
        self.column = column

    def assign(
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
        names = one_each("type", kinds, names)
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        positions = rank[index]
        return {name: np.flatnonzero(positions == k) for k, name in enumerate(names)}


class ByCondition(Partition):
    """One site for each operating condition: the regime is skewed, FedCMAPSS task D.

    A machine that flies in several conditions is seen by several sites, each its own rows
    of it: machines are shared, so the same ones are validated on everywhere. A window is cut
    from a site's own consecutive rows.
    """

    shares_machines = True

    def assign(
        self, rows: Rows, names: tuple[str, ...], generator: np.random.Generator
    ) -> dict[str, Ints]:
        conditions = np.unique(rows.condition)
        if len(conditions) < 2:
            subset = "data.subset=FD002 or FD004, or " if "subset" in rows.groups else ""
            raise ConfigError(
                "partition=condition makes a site of each operating condition, and this data has "
                f"one only; use {subset}another partition, for example partition=machine"
            )
        names = one_each("condition", tuple(f"condition-{k + 1}" for k in conditions), names)
        return {
            name: np.flatnonzero(rows.condition == k)
            for name, k in zip(names, conditions, strict=True)
        }


def one_each(partition: str, kinds: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """Return a site's name for each kind: its own, or the one that ``site=`` gives it."""
    if names and len(names) != len(kinds):
        raise ConfigError(
            f"partition={partition} makes {len(kinds)} sites ({', '.join(kinds)}), but site= names "
            f"{len(names)} ({', '.join(names)}): name {len(kinds)}, or leave site=[]"
        )
    return names or kinds


def require_whole_machines(name: str, column: Strings, rows: Rows) -> None:
    """Raise ConfigError if dividing by ``column`` would tear a machine's series apart."""
    same_machine: NDArray[np.bool_] = rows.machine[1:] == rows.machine[:-1]
    if np.any(same_machine & (column[1:] != column[:-1])):
        raise ConfigError(
            f"partition.column={name} changes within a machine, so it would tear time series "
            "apart; use partition=machine"
        )

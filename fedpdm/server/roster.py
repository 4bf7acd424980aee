"""Which sites a run has, and under which Flower node each can be reached."""

from __future__ import annotations

from typing import Protocol

from flwr.serverapp import Grid


class Roster(Protocol):
    """The sites of a run.

    Attributes:
        sites: all sites in the order of the config; what is drawn is drawn from these.
    """

    sites: tuple[str, ...]

    def connected(self) -> dict[str, int]:
        """Return the node of each site that can be reached now."""


class LocalRoster:
    """Sites of an engine on this machine: always there, under the same nodes."""

    def __init__(self, grid: Grid) -> None:
        named: dict[int, str] = dict(getattr(grid, "sites", {}))
        names = named or {node: str(node) for node in grid.get_node_ids()}
        self._nodes = {site: node for node, site in names.items()}
        self.sites = tuple(self._nodes)

    def connected(self) -> dict[str, int]:
        return self._nodes

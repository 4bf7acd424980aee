"""A Grid that shows only the sites of this round."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flwr.serverapp import Grid

from fedpdm.engines.grid_view import GridView


class SampledGrid(GridView):
    """A view of ``grid`` with only ``node_ids``, in that order.

    Flower's strategies draw clients with the global ``random``. Shown just the seeded
    sample of the round, whatever they draw is that sample.
    """

    def __init__(self, grid: Grid, node_ids: Sequence[int]) -> None:
        super().__init__(grid)
        self._node_ids = list(node_ids)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._node_ids)

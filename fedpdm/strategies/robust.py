"""Krum, Multi-Krum and Bulyan, saying how many sites their guarantees need.

Flower's classes run with fewer and then give no protection (Krum) or no new model at
all (Bulyan). ``min_sites`` lets the server refuse such a run before it starts.
"""

from __future__ import annotations

from flwr.serverapp.strategy import Bulyan as FlowerBulyan
from flwr.serverapp.strategy import Krum as FlowerKrum
from flwr.serverapp.strategy import MultiKrum as FlowerMultiKrum


class Krum(FlowerKrum):
    """Krum (Blanchard et al. 2017): n >= 2f + 3 sites for f malicious ones."""

    @property
    def min_sites(self) -> int:
        return 2 * self.num_malicious_nodes + 3 if self.num_malicious_nodes else 1


class MultiKrum(FlowerMultiKrum):
    """Multi-Krum: as Krum, and at least as many sites as it selects."""

    @property
    def min_sites(self) -> int:
        guarantee = 2 * self.num_malicious_nodes + 3 if self.num_malicious_nodes else 1
        return max(guarantee, self.num_nodes_to_select)


class Bulyan(FlowerBulyan):
    """Bulyan (El Mhamdi et al. 2018): n >= 4f + 3 sites."""

    @property
    def min_sites(self) -> int:
        return 4 * self.num_malicious_nodes + 3

"""FLTrust: updates count as far as they point where a trusted site's update points.

Cao, Fang, Liu, Gong 2021, FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping
(NDSS). With the trusted update Δ_0,

    TS_k = max(0, cos(Δ_k, Δ_0))        w ← w_t + Σ_k TS_k·(‖Δ_0‖/‖Δ_k‖)·Δ_k / Σ_k TS_k

So an update against the trusted one counts nothing, and none is longer than it. It needs no
honest majority: it rests on the trusted data alone. Use it where the server belongs to somebody
who has machines, too, and where these see what the others see. Otherwise good updates of unlike
sites are taken for malicious; towards the end of training, when updates turn every way, honest
ones drop out as well (metric ``trusted_sites``). It costs memory at the server (every update of a
round), no bytes.

In the paper the service provider collects a small clean data set of its own. Here it is that of
one of the sites, ``root``, whose plant the server trusts: its update of the same round, from its
own training windows, is Δ_0. No row of anybody moves, and splits and guards are those of every
run. Here the root's update counts as one of the sum (TS_0 = 1), so there is always one. The paper
does not weigh by examples, nor does this. A round without the root's update leaves the model as
it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.serverapp.exception import AggregationError

from fedpdm.errors import ConfigError
from fedpdm.strategies.robust import RobustStrategy, Updates, Vector

__all__ = ["FLTrust"]


class FLTrust(RobustStrategy):
    """The mean of updates weighted by their direction against a trusted one.

    Args:
        root: the site whose update is trusted; None for the first of the federation.
        **flower: further arguments of Flower's FedAvg.
    """

    rule = "any f, as long as the root site is honest and its data is like the others'"

    def __init__(self, root: str | None = None, **flower: Any) -> None:
        if flower.get("fraction_train", 1.0) != 1.0:
            raise ConfigError(
                f"strategy.fraction_train={flower['fraction_train']}: FLTrust needs the update of "
                "its root site in every round; leave it at 1.0"
            )
        super().__init__(False, **flower)
        self.root = root

    def tolerated(self, sites: int) -> int:
        return sites - 1

    def trusted(self, everyone: Any) -> str:
        """Return the root's name.

        Raises:
            ConfigError: it is no site of the federation.
        """
        root = everyone[0] if self.root is None else self.root
        if root not in everyone:
            raise ConfigError(
                f"strategy.root={root} is no site of this run; it has "
                f"{', '.join(everyone[:10])}{' …' if len(everyone) > 10 else ''}"
            )
        return str(root)

    def step(self, updates: Updates) -> Vector:
        root = self.trusted(updates.everyone)
        if root not in updates.sites:
            raise AggregationError(f"there is no update of {root}, the site that it trusts")
        place, norms = list(updates.sites).index(root), updates.norms
        reference, length = updates.deltas[place], norms[place]
        if not length > 0:
            return np.zeros_like(updates.start)
        safe = np.where(norms > 0, norms, 1.0)
        trust = np.maximum(0.0, updates.deltas @ reference / (safe * length))
        trust[place] = 1.0
        self.report(trusted_sites=float(np.sum(trust > 0)))
        return np.asarray((trust * length / safe) @ updates.deltas / trust.sum())

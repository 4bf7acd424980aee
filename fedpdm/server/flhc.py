"""FL+HC: after some rounds sites are clustered once, by how far apart their updates lie.

Briggs, Fan and Andras 2020, Federated learning with hierarchical clustering of local updates to
improve training on non-IID data (IJCNN), algorithm 1. After n rounds of FedAvg every site's update
Δ_i of that round is one point; agglomerative clustering joins the nearest ones, and the tree is cut
at a distance, or into a given number of clusters. From there on each cluster trains by itself. Its
sites go on from the common model of round n (the paper: they take their own mean of that round at
once). One cluster is FedAvg, bit for bit.

Use it where sites fall into kinds that do not change. ``metric`` and ``linkage`` are SciPy's; with
cosine, sites whose data differ in size only lie together. All sites take part in every round; the
server keeps an update per site in round n. No byte more travels than with FedAvg.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cut_tree, fcluster, linkage
from scipy.spatial.distance import pdist, squareform

from fedpdm.data.sources.base import require_choice
from fedpdm.errors import ConfigError
from fedpdm.server.base import Round
from fedpdm.server.clusters import OfUpdates, cluster, cosines

__all__ = ["FLHC"]

Distance = Literal["cosine", "euclidean", "cityblock"]
Linkage = Literal["average", "complete", "single", "ward"]


class FLHC(OfUpdates):
    """Hierarchical clustering of one round's updates.

    Args:
        after: n, the round whose updates are clustered.
        clusters: into how many the tree is cut; null: at ``threshold``.
        threshold: the largest distance within a cluster, as the linkage measures it.
        metric: between two updates: cosine, euclidean or cityblock.
        linkage: between two groups: average, complete, single or ward.

    Raises:
        ConfigError: a value out of its range, or two that do not go together.
    """

    def __init__(
        self,
        after: int = 3,
        clusters: int | None = 2,
        threshold: float | None = None,
        metric: Distance = "cosine",
        linkage: Linkage = "average",
    ) -> None:
        super().__init__()
        if after < 1:
            raise ConfigError(f"server.after={after} must be at least 1")
        if (clusters is None) == (threshold is None):
            raise ConfigError(
                f"server.clusters={clusters} and server.threshold={threshold}: the tree is cut by "
                "one of them; set the other to null"
            )
        if clusters is not None and clusters < 1:
            raise ConfigError(f"server.clusters={clusters} must be at least 1, or null")
        if threshold is not None and not threshold >= 0:
            raise ConfigError(f"server.threshold={threshold} must be at least 0, or null")
        require_choice("server.metric", metric, get_args(Distance))
        require_choice("server.linkage", linkage, get_args(Linkage))
        if linkage == "ward" and metric != "euclidean":
            raise ConfigError("server.linkage=ward needs server.metric=euclidean")
        self.after, self.clusters, self.threshold = after, clusters, threshold
        self.metric: Distance = metric
        self.linkage: Linkage = linkage

    def regroup(self, round: Round, members: dict[str, str]) -> dict[str, str]:
        if round.number != self.after or len(self.deltas) < 2:
            return {}
        sites = list(self.deltas)
        found = groups(
            [self.deltas[site] for site in sites], self.metric, self.linkage, self.clusters,
            self.threshold,
        )  # fmt: skip
        members |= {site: cluster(number) for site, number in zip(sites, found, strict=True)}
        first = self.names[0]
        return {cluster(number): first for number in sorted(set(found)) if number > 1}


def groups(
    vectors: Sequence[NDArray[Any]],
    metric: Distance,
    method: Linkage,
    count: int | None,
    threshold: float | None,
) -> list[int]:
    """Return the number of each vector's group, from 1 on in the order of their first vectors."""
    if metric == "cosine":
        distance = np.maximum(squareform(1 - cosines(vectors), checks=False), 0.0)
    else:
        distance = pdist(np.stack(vectors).astype(np.float64), metric)
    tree = linkage(distance, method=method)
    if threshold is None:
        found = cut_tree(tree, n_clusters=[min(count or 1, len(vectors))])[:, 0].tolist()
    else:
        found = fcluster(tree, threshold, criterion="distance").tolist()
    order: dict[int, int] = {}
    return [order.setdefault(each, len(order) + 1) for each in found]

"""CFL: sites stay together until their updates contradict each other, then they part in two.

Sattler, Müller and Samek 2021, Clustered Federated Learning: Model-Agnostic Distributed Multitask
Optimization under Privacy Constraints (IEEE TNNLS), algorithms 1 to 3. All sites begin in one
cluster. Where the mean of a cluster's updates Δ_i is short although single ones are long, no model
suits all:

    ‖Σ_i p_i Δ_i‖ < ε·max_i ‖Δ_i‖

Then it is parted so that the largest cosine between the two parts, a, is as small as it can be
(single linkage finds that parting), and the split counts if √((1 − a)/2) > γ. In the paper the mean
must be shorter than a length ε₁ and the longest longer than ε₂, which depend on the model; ours are
shares: ε of the cluster's longest update, and ε₂ of the longest of round 1. γ near 0.7 asks for
parts that do not point the same way (a < 0), which noise alone rarely gives. Both parts go on from
the cluster's new model (the paper: from the mean of each part, a round earlier). A cluster that
never splits is FedAvg, bit for bit.

Use it where nobody knows how many kinds of sites there are. All sites take part in every round; the
server keeps an update per site while a round lasts. No byte more travels than with FedAvg.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import squareform

from fedpdm.errors import ConfigError
from fedpdm.server.base import Round
from fedpdm.server.clusters import OfUpdates, cluster, cosines

__all__ = ["CFL"]

LONGEST = "longest"
"""Key of the state: the length of the longest update of the first round."""


class CFL(OfUpdates):
    """Splits clusters whose sites contradict each other.

    Args:
        epsilon: ε, the mean update over the longest: below it a cluster is at rest.
        gamma: γ, how unlike the parts must be; 0: any, 1: none is unlike enough.
        progress: ε₂, the longest update of a cluster at rest over the longest of round 1; below it
            there is nothing left to learn apart.
        after: rounds before the first split.
        least: sites that a part must have.

    Raises:
        ConfigError: a value out of its range.
    """

    def __init__(
        self,
        epsilon: float = 0.4,
        gamma: float = 0.7,
        progress: float = 0.1,
        after: int = 3,
        least: int = 1,
    ) -> None:
        super().__init__()
        for name, value in (("epsilon", epsilon), ("gamma", gamma), ("progress", progress)):
            if not 0 <= value <= 1:
                raise ConfigError(f"server.{name}={value} must be at least 0 and at most 1")
        if after < 0:
            raise ConfigError(f"server.after={after} must be at least 0")
        if least < 1:
            raise ConfigError(f"server.least={least} must be at least 1")
        self.epsilon, self.gamma, self.progress = epsilon, gamma, progress
        self.after, self.least = after, least

    def regroup(self, round: Round, members: dict[str, str]) -> dict[str, str]:
        made: dict[str, str] = {}
        if LONGEST not in self.state:
            self.state = {**self.state, LONGEST: longest(self.deltas.values())}
        if round.number <= self.after:
            return made
        names = self.names
        for name in names:
            sites = [s for s, of in members.items() if of == name and s in self.deltas]
            vectors = [self.deltas[site] for site in sites]
            weights = [self.examples[site] for site in sites]
            if not longest(vectors) > self.progress * self.state[LONGEST]:
                continue
            second = split(vectors, weights, self.epsilon, self.gamma, self.least)
            if second:
                new = cluster(len(names) + len(made) + 1)
                made[new] = name
                members |= {sites[place]: new for place in second}
        return made


def longest(vectors: Iterable[NDArray[Any]]) -> float:
    """Return the length of the longest vector; 0 of none."""
    return max((float(np.linalg.norm(vector)) for vector in vectors), default=0.0)


def split(
    vectors: Sequence[NDArray[Any]],
    weights: Sequence[float],
    epsilon: float,
    gamma: float,
    least: int = 1,
) -> list[int]:
    """Return the places of the second part of a cluster; nothing where it stays together.

    Args:
        vectors: (P,) the update of each site.
        weights: of the sites in the mean.
        epsilon: the mean over the longest, below which the cluster is at rest.
        gamma: how unlike the parts must be.
        least: sites that a part must have.
    """
    if len(vectors) < 2 or not sum(weights) > 0:
        return []
    mean = np.average(np.stack(vectors), axis=0, weights=weights)
    if float(np.linalg.norm(mean)) >= epsilon * longest(vectors):
        return []
    alike = cosines(vectors)
    distance = squareform(1 - alike, checks=False)
    part = cut_tree(linkage(distance, method="single"), n_clusters=[2])[:, 0]
    first = part == part[0]
    if min(first.sum(), (~first).sum()) < least:
        return []
    between = float(alike[first][:, ~first].max())
    if not np.sqrt((1 - between) / 2) > gamma:
        return []
    return [int(place) for place in np.flatnonzero(~first)]

"""Clusters of sites that a run found, beside the families that the data's maker knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any


def found_clusters(members: Mapping[str, str], families: Mapping[str, str]) -> dict[str, Any]:
    """Return the clusters of a round as ``summary.json`` has them (docs/summary.md).

    The adjusted Rand index (Hubert and Arabie 1985, eq. 5) counts pairs of sites that are together
    in both groupings: 1 for the same groupings, 0 on average for chance. It is null where no family
    is known to have two of the sites, or all are of one: then there is nothing to find.

    Args:
        members: by site, its cluster.
        families: by site, its kind; empty where nobody knows.
    """
    known = {site: families[site] for site in members if site in families}
    sizes = Counter(known.values())
    index = None
    if len(known) == len(members) and len(sizes) > 1 and max(sizes.values()) > 1:
        from sklearn.metrics import adjusted_rand_score  # takes a second to import

        index = float(adjusted_rand_score(list(known.values()), list(members.values())))
    return {
        "count": len(set(members.values())),
        "members": dict(members),
        "families": known or None,
        "adjusted_rand_index": index,
    }

"""Odd differences between sites, and the notes that a run begins with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fedpdm.data.quality.sensors import Finding, Place, look, place_of, sentinels, without
from fedpdm.data.rows import Rows

NOTES = 8
"""At most so many findings are said when a run begins."""

Ranges = dict[str, tuple[float, float]]
"""By feature: what 1 % and 99 % of a site's readings stay below."""


def ranges_of(place: Place, rows: Rows) -> Ranges:
    """Return the robust range of every quantity that varies at a site, without sentinels."""
    result: Ranges = {}
    for number, name in enumerate(rows.features):
        values = rows.values[:, number]
        if name in place.states or np.isnan(values).all():
            continue
        clean = without(values, sentinels(values, rows.machine))
        low, high = (float(q) for q in np.nanquantile(clean, (0.01, 0.99)))
        if low < high:
            result[name] = low, high
    return result


def apart(places: Mapping[str, Place], ranges: Mapping[str, Ranges]) -> list[Finding]:
    """Return the features whose ranges do not overlap at two sites.

    Args:
        places: by site.
        ranges: by site, as ``ranges_of`` returns them.
    """
    found = []
    for name in dict.fromkeys(name for own in ranges.values() for name in own):
        own = {site: span[name] for site, span in ranges.items() if name in span}
        upper = max(own, key=lambda site: own[site][0])
        lower = min(own, key=lambda site: own[site][1])
        if own[upper][0] <= own[lower][1]:
            continue
        (a, b), (c, d) = own[lower], own[upper]
        column = places[upper].column(name)
        found.append(
            Finding(
                "range",
                upper,
                name,
                f"{places[upper].name}: {column} lies between {c:.4g} and {d:.4g}, and at {lower} "
                f"between {a:.4g} and {b:.4g}: the ranges do not overlap; if the units differ, say "
                f"so: sites.{upper}.features.{name}.unit",
            )
        )
    return found


def notes(
    source: Any, sites: Sequence[str], rows: Callable[[str], Rows], horizon: float
) -> list[str]:
    """Return what a run on people's own files says first: the worst findings, so many at most.

    Args:
        source: the data set; only ``data=files`` is looked at.
        sites: those to look at.
        rows: gives a site's rows.
        horizon: how long before a failure a row counts as positive.
    """
    if source.name != "files":
        return []
    found: list[Finding] = []
    places = {site: place_of(source, site) for site in sites}
    ranges = {}
    for site, place in places.items():
        own = rows(site)
        found += look(place, own, horizon)
        ranges[site] = ranges_of(place, own)
    found = [*apart(places, ranges), *found]
    said = [one.text for one in found[:NOTES]]
    if (more := len(found) - NOTES) > 0:
        said.append(f"{more} more odd things in the data: python -m fedpdm.data check lists them")
    return said

"""What all sites of a federation must agree on: features, categories, units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedpdm.data.sources.keys import closest
from fedpdm.data.sources.mapping import SiteMapping
from fedpdm.data.sources.units import convert
from fedpdm.errors import ConfigError


def agreed(mappings: Sequence[SiteMapping]) -> tuple[list[SiteMapping], list[str]]:
    """Return the sites' mappings with the first site's order and units, and warnings.

    Raises:
        ConfigError: a site lacks a feature or a category, or gives a unit that cannot be
            converted; the message names both sites.
    """
    first, warnings = mappings[0], []
    result = []
    for other in mappings:
        for one, two in ((first, other), (other, first)):
            for name in one.columns:
                if name not in two.columns:
                    raise ConfigError(
                        f"feature '{name}' of {one.site} is not in sites.{two.site}.features "
                        f"({', '.join(two.columns)}): all sites of a federation need the same "
                        f"features; map it there or take it out of {one.site}."
                        + closest(name, two.columns)
                    )
        targets = {}
        for name in first.columns:
            _require_categories(name, first, other)
            unit, theirs = unit_of(first, name), other.units.get(name)
            if unit is not None and theirs is not None and unit != theirs:
                targets[name] = unit
                _require_convertible(name, first, other)
            if (unit is None) != (theirs is None):
                silent = first.site if unit is None else other.site
                warnings.append(
                    f"{silent}: feature '{name}' has no unit, so it cannot be checked against "
                    f"{unit or theirs} at {other.site if unit is None else first.site}"
                )
        columns = {name: other.columns[name] for name in first.columns}
        values = {
            name: {kind: other.values[name][kind] for kind in kinds}
            for name, kinds in first.values.items()
        }
        result.append(replace(other, columns=columns, values=values, target_units=targets))
    return result, warnings


def unit_of(site: SiteMapping, feature: str) -> str | None:
    """Return the unit that a site's readings of a feature are in once they are read."""
    return site.target_units.get(feature, site.units.get(feature))


def _require_categories(name: str, first: SiteMapping, other: SiteMapping) -> None:
    """Refuse a feature whose categories two sites name differently."""
    ours, theirs = (set(site.values.get(name, {})) for site in (first, other))
    if ours != theirs:
        raise ConfigError(
            f"feature '{name}' has the values {', '.join(sorted(ours)) or '(numbers)'} at "
            f"{first.site} and {', '.join(sorted(theirs)) or '(numbers)'} at {other.site}: write "
            "the same ones, with the cell of each where a site spells it otherwise, as "
            + (
                "values: {run: marche, stop: arret}"
                if ours and theirs
                else "values: {'off': 'FALSE', 'on': 'TRUE'} at "
                f"{(other if ours else first).site}, with quotes"
            )
        )


def _require_convertible(name: str, first: SiteMapping, other: SiteMapping) -> None:
    """Refuse two units of which one cannot be converted into the other."""
    unit, theirs = unit_of(first, name), other.units[name]
    assert unit is not None
    wanted = other.target_units.get(name, unit)
    if wanted != unit:
        raise ConfigError(
            f"feature '{name}' is converted into {unit} at {first.site} and into {wanted} at "
            f"{other.site}; write one unit"
        )
    try:
        convert(np.ones(1), theirs, unit)
    except ValueError as error:
        raise ConfigError(
            f"feature '{name}' is in {unit} at {first.site} and in {theirs} at {other.site}, "
            f"which cannot be converted ({error}); write units as degC, bar, mm/s, or bring both "
            "files to one unit"
        ) from None

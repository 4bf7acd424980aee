"""From new rows to what a run's model takes: columns, conditions, scaling."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fedpdm.data.features import WindowFeatures
from fedpdm.data.normalise import Scaler
from fedpdm.data.sources.agreement import agreed
from fedpdm.data.sources.base import OperatingConditions
from fedpdm.data.sources.keys import closest
from fedpdm.data.sources.mapping import SiteMapping, site_mapping
from fedpdm.errors import ConfigError, HistoryError
from fedpdm.history.sealed import read_sealed
from fedpdm.storage import parse_tensors


def scaler_of(
    card: dict[str, Any],
    folder: Path,
    site: str | None,
    features: WindowFeatures,
    members: Iterable[str] = (),
) -> tuple[Scaler, str | None]:
    """Return the scaler for ``site``, and the site it belongs to if there is only one.

    ``members`` are sites that are in clusters, which a site of the card may stand for.
    """
    path = folder / "scaler.safetensors"
    if not path.exists():
        raise HistoryError(
            f"{folder} is not finished: it has no scaler.safetensors yet; continue it with "
            f"python -m fedpdm.simulate resume={folder}"
        )
    arrays = parse_tensors(read_sealed(folder, path.name), path)
    scopes = [name.removesuffix("/mean") for name in arrays if name.endswith("/mean")]
    named = [*card["sites"], *(s for s in scopes if s != "federated"), *card.get("thresholds", {}),
             *((card.get("personal") or {}).get("sites", ())), *members]  # fmt: skip
    sites = list(dict.fromkeys(named))
    if site is not None and site not in sites:
        there = f"there are {', '.join(sites)}." if sites else "leave --site out."
        raise ConfigError(
            f"--site {site}: {folder} has no such site; {there}{closest(site, sites)}"
        )
    scope, alone = "federated", None
    if card["scaling"] == "plant":
        if site is None and len(sites) > 1:
            raise ConfigError(
                f"{folder} scales each site by itself (scaling=plant): say whose data this is "
                f"with --site ({', '.join(sites)})"
            )
        scope = alone = site or sites[0]
    try:
        scaler = Scaler(arrays[f"{scope}/mean"], arrays[f"{scope}/scale"])
    except KeyError:
        raise HistoryError(
            f"{path} has no scaler for {scope}; it has {', '.join(scopes)}"
        ) from None
    sensors = [str(name) for name in card["features"]]
    columns = len(features.columns(sensors)) + len(features.names(sensors))
    expected = (int(card["conditions"]), columns)
    if scaler.mean.shape != expected or scaler.scale.shape != expected:
        raise HistoryError(f"{path} is of another run: its shape is not {expected}")
    numbers = np.concatenate([scaler.mean, scaler.scale])
    if numbers.dtype.kind != "f" or not np.isfinite(numbers).all() or (scaler.scale < 0).any():
        raise HistoryError(f"{path} is damaged: a mean or a scale in it is no possible number")
    return scaler, alone


def operating_of(card: dict[str, Any], folder: Path) -> OperatingConditions | None:
    """Return how new rows get their operating condition; None where there is one only."""
    if said := card.get("operating"):
        return OperatingConditions(**{key: tuple(value) for key, value in said.items()})
    if card["conditions"] > 1:
        raise ConfigError(
            f"{folder}: this run scales by {card['conditions']} operating conditions, and "
            f"data={card['data']['name']} does not say how new rows get theirs; such runs cannot "
            "be scored from a file"
        )
    return None


def mapping_of(card: dict[str, Any], site: str | None) -> SiteMapping:
    """Return which columns to read: a site's own, or ``machine``, ``time`` and the features.

    Without a site, sites that all name their columns alike stand for each other.
    """
    blocks = {name: own for name, own in card["sites"].items() if "path" in (own or {})}
    named = [site] if site is not None else list(card["sites"])
    if named and all(name in blocks for name in named):
        found, _ = agreed([site_mapping(name, own) for name, own in blocks.items()])
        place = {str(name): position for position, name in enumerate(card["features"])}
        first = {name: found[0].inputs_of(name)[0] for name in found[0].columns}
        order = sorted((n for n in first if first[n] in place), key=lambda n: place[first[n]])
        chosen, *others = (
            replace(
                m,
                site=named[0],
                columns={name: m.columns[name] for name in order},
                paths=(),
                logs=(),
                label=None,
                machines=None,
            )
            for m in found
            if m.site in named
        )
        if all(other == chosen for other in others):
            return chosen
    return SiteMapping("", (), "machine", "time", {str(f): str(f) for f in card["features"]})

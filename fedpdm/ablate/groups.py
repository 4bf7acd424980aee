"""Which groups of sensors are ablated, and which inputs of a model are theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedpdm.data.features import WindowFeatures
from fedpdm.data.rows import Ints
from fedpdm.data.sources.base import Source
from fedpdm.data.sources.without import sensors_of
from fedpdm.errors import ConfigError

Groups = Mapping[str, tuple[str, ...]]
"""Sensors by the name of their group."""


def groups_of(source: Source, asked: Sequence[str] = ()) -> Groups:
    """Return the groups that are ablated.

    Args:
        source: the data.
        asked: ``NAME=SENSOR+SENSOR``, or the name of a group or a sensor of the data; if
            empty, the data's own groups, and each sensor that is in none of them by itself.

    Raises:
        ConfigError: there is no such sensor, or a name stands twice.
    """
    if not asked:
        own = dict(source.groups)
        grouped = {sensor for members in own.values() for sensor in members}
        return own | {name: (name,) for name in source.features if name not in grouped}
    found: dict[str, tuple[str, ...]] = {}
    for word in asked:
        name, _, members = word.partition("=")
        if name in found:
            raise ConfigError(f"--groups names {name} twice")
        parts = [part.strip() for part in (members or name).split("+")]
        found[name] = sensors_of(source, parts, f"--groups {word}")
    return found


def columns_of(sensors: Sequence[str], source: Source, features: WindowFeatures) -> Ints:
    """Return the positions of a model's inputs that come from sensors.

    The statistics of a sensor's windows go with it (``features=statistics`` and ``both``).

    Args:
        sensors: names.
        source: the data.
        features: what the model sees of a window.
    """
    owners = [] if features.mode == "statistics" else [*source.features]
    owners += [sensor for sensor in source.features for _ in features.names([sensor])]
    return np.flatnonzero([owner in set(sensors) for owner in owners])

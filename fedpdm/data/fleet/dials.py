"""Dials over a whole generated fleet: how sites differ, how rare failures are, what drifts."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from fedpdm.data.fleet.profile import number
from fedpdm.errors import ConfigError

HETEROGENEITY = ("feature_shift", "label_skew", "quantity_skew")


@dataclass(frozen=True)
class Dials:
    """All at rest by default: then sites are what their own settings say.

    Attributes:
        feature_shift: how far the sensors of a site read beside those of another, in
            spreads (a change that means something), beyond what instruments differ anyway.
        label_skew: log-normal spread of ``life_days`` between sites: some fail often.
        quantity_skew: log-normal spread of the number of machines between sites.
        prevalence: wanted share of rows with a failure within ``prevalence_horizon``, or
            None: as ``life_days`` makes it. Sites spread around it with ``label_skew``.
        prevalence_horizon: in days.
        concept_drift: log-normal change of how faults show, per half year.
        sensor_drift: drift of an instrument from calibration to calibration, in spreads
            per 100 days (standard deviation over instruments).
        dropout: share of readings lost to sensors that are dead for a month.
    """

    feature_shift: float = 0.0
    label_skew: float = 0.0
    quantity_skew: float = 0.0
    prevalence: float | None = None
    prevalence_horizon: float = 7.0
    concept_drift: float = 0.0
    sensor_drift: float = 0.0
    dropout: float = 0.0


def dials(heterogeneity: Mapping[str, Any] | None, **others: Any) -> Dials:
    """Return checked dials.

    Args:
        heterogeneity: ``feature_shift``, ``label_skew`` and ``quantity_skew``, all optional.
        others: the remaining fields of ``Dials``.

    Raises:
        ConfigError: an unknown name or a value out of range, by its key (``data.…``).
    """
    given = {} if heterogeneity is None else heterogeneity
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"data.heterogeneity={given} must be a block, e.g. data.heterogeneity.label_skew=0.5"
        )
    for key in given:
        if key not in HETEROGENEITY:
            close = difflib.get_close_matches(str(key), HETEROGENEITY, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ConfigError(
                f"data.heterogeneity.{key} does not exist{hint}; there are "
                f"{', '.join(HETEROGENEITY)}"
            )
    values: dict[str, Any] = {}
    for key, high in (("feature_shift", 10), ("label_skew", 2), ("quantity_skew", 2)):
        values[key] = number(f"data.heterogeneity.{key}", given.get(key, 0.0), 0, high)
    for field in fields(Dials):
        if field.name in values or field.name not in others:
            continue
        where, value = f"data.{field.name}", others[field.name]
        if field.name == "prevalence":
            values["prevalence"] = None if value is None else number(where, value, 0.001, 0.6)
        elif field.name == "prevalence_horizon":
            values[field.name] = number(where, value, 0.01, 3650)
        else:
            values[field.name] = number(where, value, 0, 0.9 if field.name == "dropout" else 10)
    return Dials(**values)

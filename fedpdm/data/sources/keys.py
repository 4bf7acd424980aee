"""Checks of single values in a site's yaml: names, lists, and known keys."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from fedpdm.errors import ConfigError


def closest(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the name most like ``name``, or nothing."""
    names = list(known)
    lower = {other.strip().lower(): other for other in reversed(names)}
    match = difflib.get_close_matches(name.strip().lower(), list(lower), n=1, cutoff=0.6)
    return f" Did you mean '{lower[match[0]]}'?" if match else ""


def listed(given: Any) -> list[Any]:
    """Return a value that may be a list as one."""
    if given is None:
        return []
    return list(given) if isinstance(given, (list, tuple)) else [given]


def cell_of(value: Any) -> str:
    """Return a yaml's value as a table's text has it: 1.0 is 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def name_of(where: str, settings: Mapping[str, Any], key: str) -> str:
    """Return a setting that must be a name."""
    value = settings.get(key)
    if value is None or isinstance(value, (bool, Mapping, list, tuple)) or str(value) == "":
        problem = " is missing" if value is None else f"={value!r} is not a name"
        raise ConfigError(f"{where}.{key}{problem}: {_MEANING.get(key, 'a name is needed')}")
    return str(value)


_MEANING = {
    "path": "name a CSV or Parquet file",
    "machine": "name the column that tells machines apart",
    "time": "name the column with the time of each row",
    "column": "name the column of this feature",
    "unit": "name the unit of this column",
    "into": "name the unit that the other sites use",
    "label": "name the column with 0 and 1",
    "kind": "name the column that tells failures from repairs",
    "end": "name the column with the time at which the machine ran again",
    "variable": "name the column with the sensor's name, and the one with its value",
    "value": "name the column with the reading, and the one with the sensor's name",
}


def known_keys(where: str, settings: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuse a key that means nothing here, with the one that may have been meant."""
    for key in settings:
        if str(key) not in known:
            raise ConfigError(
                f"{where} has an unknown key '{key}'; data=files knows {', '.join(known)}."
                + closest(str(key), known)
            )

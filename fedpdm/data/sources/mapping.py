"""What the columns of a site's own file mean: the site yaml of ``data=files``, checked."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedpdm.errors import ConfigError

UNIX = {"unix": 1.0, "unix_ms": 1e-3}  # time formats that are numbers: seconds in one
KINDS: dict[str, tuple[str, ...]] = {
    "failure_kinds": ("failure", "breakdown"),
    "repair_kinds": ("repair", "maintenance", "replacement"),
    "ignored_kinds": (),
}
"""What a log's kinds of events mean unless the site's yaml says otherwise."""
SITE_KEYS = (
    "path", "machine", "time", "time_format", "features", "failures", "label",
    "sep", "decimal", "encoding", "costs", "title", "industry", "description",
)  # fmt: skip
LOG_KEYS = (
    "path", "machine", "time", "time_format", "kind", "failure_kinds", "repair_kinds",
    "ignored_kinds", "unknown_machines", "sep", "decimal", "encoding",
)  # fmt: skip
GENERATED = {"machines", "size", "life_days", "archetype"}
"""Keys by which a site is known that is generated."""
_FEATURE_KEYS = ("column", "unit")


@dataclass(frozen=True)
class Dialect:
    """How a text file is written. ``sep`` None means a comma (a tab in a .tsv)."""

    sep: str | None = None
    decimal: str = "."
    encoding: str = "utf-8-sig"
    time_format: str | None = None
    """``strftime`` codes of the times, ``unix`` or ``unix_ms``; None: ISO 8601 or numbers."""

    @property
    def times_are_text(self) -> bool:
        """Whether times must be read as text: 01022024 is a date, not a number."""
        return self.time_format is not None and self.time_format not in UNIX


@dataclass(frozen=True)
class FailureLog:
    """Where a site writes down what happened to its machines.

    Attributes:
        path: CSV or Parquet file, one event a row.
        kind: column that tells failures from repairs; None: every event is a failure,
            unless the file has a column named ``kind``.
        failure_kinds: values of ``kind`` (lower case) that are failures.
        repair_kinds: values that end a life without a failure.
        ignored_kinds: values that end nothing.
        ignore_unknown: whether events of machines without data are passed over.
    """

    path: str
    machine: str
    time: str
    dialect: Dialect
    kind: str | None
    failure_kinds: tuple[str, ...]
    repair_kinds: tuple[str, ...]
    ignored_kinds: tuple[str, ...]
    ignore_unknown: bool


@dataclass(frozen=True)
class SiteMapping:
    """The roles of the columns of one site's file.

    Attributes:
        columns: canonical feature name to column name, in the yaml's order.
        units: canonical feature name to unit, where the yaml gives one.
    """

    site: str
    path: str
    machine: str
    time: str
    columns: dict[str, str]
    units: dict[str, str] = field(default_factory=dict)
    failures: FailureLog | None = None
    label: str | None = None
    dialect: Dialect = Dialect()

    @property
    def text(self) -> tuple[str, ...]:
        """Columns that stay text even if they look like numbers."""
        return (self.machine, self.time) if self.dialect.times_are_text else (self.machine,)


def closest(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the name most like ``name``, or nothing."""
    names = list(known)
    lower = {other.strip().lower(): other for other in reversed(names)}
    match = difflib.get_close_matches(name.strip().lower(), list(lower), n=1, cutoff=0.6)
    return f" Did you mean '{lower[match[0]]}'?" if match else ""


def site_mapping(site: str, settings: Mapping[str, Any]) -> SiteMapping:
    """Return the checked mapping of ``site`` from its yaml.

    Raises:
        ConfigError: a key is missing, unknown or of the wrong form.
    """
    where = f"sites.{site}"
    if settings.get("path") is None and GENERATED & set(settings):
        raise ConfigError(
            f"{where} has no path: {site} is a site that data=fleet generates, not one with files "
            "of its own; name yours with site=NAME,NAME"
        )
    if settings.get("path") is None:
        raise ConfigError(
            f"{where}.path is missing: data=files reads one CSV or Parquet file per site; write "
            f"conf/site/{site}.yaml after the pattern of conf/site/example_plant.yaml"
        )
    _known_keys(where, settings, SITE_KEYS)
    machine, time = _text(where, settings, "machine"), _text(where, settings, "time")
    columns, units = _features(where, settings.get("features"))
    failures, label = settings.get("failures"), settings.get("label")
    if (failures is None) == (label is None):
        raise ConfigError(
            f"{where} needs {'one of' if failures is None else 'only one of'} 'failures' (a log of "
            "failure events) and 'label' (a column with 0 and 1)"
        )
    roles = {"machine": machine, "time": time}
    if label is not None:
        roles["label"] = _text(where, settings, "label")
    feature_of = {column: name for name, column in columns.items()}
    for role, column in roles.items():
        if column in feature_of:
            raise ConfigError(
                f"{where}: column '{column}' is both {role} and feature '{feature_of[column]}'; "
                "a feature needs a column of its own"
            )
    dialect = _dialect(where, settings, Dialect())
    return SiteMapping(
        site=site,
        path=_text(where, settings, "path"),
        machine=machine,
        time=time,
        columns=columns,
        units=units,
        failures=None if failures is None else _log(where, failures, machine, time, dialect),
        label=roles.get("label"),
        dialect=dialect,
    )


def agreed_features(mappings: list[SiteMapping]) -> tuple[tuple[str, ...], list[str]]:
    """Return the feature names that all sites share, in the first site's order, and warnings.

    Raises:
        ConfigError: a site lacks a feature or gives another unit; the message names both.
    """
    first, warnings = mappings[0], []
    for other in mappings[1:]:
        for one, two in ((first, other), (other, first)):
            for name in one.columns:
                if name not in two.columns:
                    raise ConfigError(
                        f"feature '{name}' of {one.site} is not in sites.{two.site}.features "
                        f"({', '.join(two.columns)}): all sites of a federation need the same "
                        f"features; map it there or take it out of {one.site}."
                        + closest(name, two.columns)
                    )
        for name in first.columns:
            unit, theirs = first.units.get(name), other.units.get(name)
            if unit is not None and theirs is not None and unit != theirs:
                raise ConfigError(
                    f"feature '{name}' is in {unit} at {first.site} and in {theirs} at "
                    f"{other.site}: units are not converted; bring both files to one unit"
                )
            if (unit is None) != (theirs is None):
                silent = first.site if unit is None else other.site
                warnings.append(
                    f"{silent}: feature '{name}' has no unit, so it cannot be checked against "
                    f"{unit or theirs} at {other.site if unit is None else first.site}"
                )
    return tuple(first.columns), warnings


def _features(where: str, given: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Return column and unit by feature name, from a list of columns or a mapping."""
    pairs: list[tuple[Any, Any]] = list(given.items()) if isinstance(given, Mapping) else []
    if isinstance(given, (list, tuple)):
        pairs = [(str(column), str(column)) for column in given]
    if not pairs:
        raise ConfigError(
            f"{where}.features must list the sensor columns, as [temperature, vibration] or as "
            "temperature: {column: T1, unit: degC}"
        )
    columns: dict[str, str] = {}
    units: dict[str, str] = {}
    for key, value in pairs:
        name = str(key)
        if isinstance(value, Mapping):
            _known_keys(f"{where}.features.{name}", value, _FEATURE_KEYS)
            column = _text(f"{where}.features.{name}", value, "column")
            if value.get("unit") is not None:
                units[name] = str(value["unit"])
        elif isinstance(value, (str, int)) and not isinstance(value, bool):
            column = str(value)
        else:
            raise ConfigError(
                f"{where}.features.{name}={value!r} must be a column name or "
                "{column: NAME, unit: UNIT}"
            )
        if column in columns.values():
            raise ConfigError(f"{where}.features: two features are column '{column}'")
        columns[name] = column
    return columns, units


def _log(where: str, given: Any, machine: str, time: str, dialect: Dialect) -> FailureLog:
    """Return the checked failure log; what it leaves open is as in the sensor file."""
    where = f"{where}.failures"
    settings = {"path": given} if isinstance(given, str) else given
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{where} must be a file name or a block with path, machine, time, kind")
    _known_keys(where, settings, LOG_KEYS)
    settings = {"machine": machine, "time": time} | dict(settings)
    choice = settings.get("unknown_machines", "error")
    if choice not in ("error", "ignore"):
        raise ConfigError(f"{where}.unknown_machines={choice} must be error or ignore")
    written = {key: _kinds(where, key, settings[key]) for key in KINDS if key in settings}
    claimed = [kind for kinds in written.values() for kind in kinds]
    for kind in claimed:
        if claimed.count(kind) > 1:
            raise ConfigError(f"{where}: kind '{kind}' is listed twice; it can mean one thing only")
    # A list that the user wrote wins over the defaults of the others.
    kinds = {
        key: written.get(key, tuple(kind for kind in usual if kind not in claimed))
        for key, usual in KINDS.items()
    }
    return FailureLog(
        path=_text(where, settings, "path"),
        machine=_text(where, settings, "machine"),
        time=_text(where, settings, "time"),
        dialect=_dialect(where, settings, dialect),
        kind=None if settings.get("kind") is None else _text(where, settings, "kind"),
        ignore_unknown=choice == "ignore",
        **kinds,
    )


def _kinds(where: str, key: str, given: Any) -> tuple[str, ...]:
    """Return a word or a list of words in lower case."""
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, (list, tuple)):
        raise ConfigError(f"{where}.{key}={given!r} must be a list of words, as [repair, service]")
    return tuple(str(kind).strip().lower() for kind in given)


def _dialect(where: str, settings: Mapping[str, Any], default: Dialect) -> Dialect:
    """Return how a file is written; ``default`` says what ``settings`` leave open."""
    decimal = str(settings.get("decimal", default.decimal))
    if decimal not in (".", ","):
        raise ConfigError(f"{where}.decimal={decimal!r} must be '.' or ','")
    sep = settings.get("sep", default.sep)
    if sep is not None and (not isinstance(sep, str) or len(sep) != 1):
        raise ConfigError(f"{where}.sep={sep!r} must be one character, for example ';' or \"\\t\"")
    if decimal == "," and sep in (None, ","):
        raise ConfigError(
            f"{where}: decimal ',' needs another separator than a comma; set sep: ';'"
        )
    encoding = str(settings.get("encoding", default.encoding))
    try:
        "".encode(encoding)
    except LookupError:
        raise ConfigError(
            f"{where}.encoding={encoding} is not known; try utf-8 or cp1252"
        ) from None
    time_format = settings.get("time_format", default.time_format)
    if time_format is not None and not isinstance(time_format, str):
        raise ConfigError(f"{where}.time_format={time_format!r} must be text, as '%d.%m.%Y %H:%M'")
    return Dialect(sep, decimal, encoding, time_format)


def _text(where: str, settings: Mapping[str, Any], key: str) -> str:
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
    "label": "name the column with 0 and 1",
    "kind": "name the column that tells failures from repairs",
}


def _known_keys(where: str, settings: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuse a key that means nothing here, with the one that may have been meant."""
    for key in settings:
        if str(key) not in known:
            raise ConfigError(
                f"{where} has an unknown key '{key}'; data=files knows {', '.join(known)}."
                + closest(str(key), known)
            )

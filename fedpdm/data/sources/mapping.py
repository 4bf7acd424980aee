"""The site yaml of ``data=files``, checked: what the columns of a site's own file mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fedpdm.data.sources.dialect import DIALECT_KEYS, Dialect, dialect_of
from fedpdm.data.sources.keys import cell_of, known_keys, listed, name_of
from fedpdm.errors import ConfigError

KINDS: dict[str, tuple[str, ...]] = {
    "failure_kinds": ("failure", "breakdown"),
    "repair_kinds": ("repair", "maintenance", "replacement"),
    "ignored_kinds": (),
}
"""What a log's kinds of events mean unless the site's yaml says otherwise."""
SITE_KEYS = (
    "path", "machine", "time", "features", "failures", "maintenance", "label", "where", "machines",
    "groups", "variable", "value", *DIALECT_KEYS, "costs", "title", "industry", "description",
)  # fmt: skip
LOG_KEYS = (
    "path", "machine", "time", "end", "kind", *KINDS, "unknown_machines", "where", *DIALECT_KEYS,
)  # fmt: skip
GENERATED = {"machines", "size", "life_days", "archetype"}
"""Keys by which a site is known that is generated."""
_FEATURE_KEYS = ("column", "unit", "into", "values")


@dataclass(frozen=True)
class EventLog:
    """Where a site writes down what happened to its machines.

    Attributes:
        key: of the site's yaml, for messages.
        paths: CSV or Parquet files, one event a row.
        machine: column; "" where the site has one machine.
        end: column with the time at which the machine ran again; None: there is none.
        kind: column that tells failures from repairs; None: every event is a failure (in the
            log of maintenance: none is), unless the file has a column named ``kind``.
        failure: whether events are failures where there is no kind.
        failure_kinds: values of ``kind`` (lower case) that are failures.
        repair_kinds: values that end a life without a failure.
        ignored_kinds: values that end nothing.
        ignore_unknown: whether events of machines without data are passed over.
        where: column to the values of the rows that count.
        shared: the same of the sensor rows, which counts where the log has these columns.
    """

    key: str
    paths: tuple[str, ...]
    machine: str
    time: str
    end: str | None
    dialect: Dialect
    kind: str | None
    failure: bool
    failure_kinds: tuple[str, ...]
    repair_kinds: tuple[str, ...]
    ignored_kinds: tuple[str, ...]
    ignore_unknown: bool
    where: dict[str, tuple[str, ...]]
    shared: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class SiteMapping:
    """The roles of the columns of one site's files.

    Attributes:
        paths: the files with sensor rows.
        machine: column that tells machines apart; "" where each file is one machine.
        columns: canonical feature name to column name, in the yaml's order.
        units: canonical feature name to unit, where the yaml gives one.
        values: canonical feature name to its categories, each with the cell that means it.
        target_units: the unit that a feature is converted into, where it is another.
        logs: of failures and maintenance.
        where: column to the values of the rows that are this site's.
        groups: columns of words that labels may come from, and inputs never.
        machines: a table with a row per machine, and its column of ids; None: there is none.
        long: columns with the name and the reading of a sensor, if a row holds one reading;
            ``columns`` are such names then.
    """

    site: str
    paths: tuple[str, ...]
    machine: str
    time: str
    columns: dict[str, str]
    units: dict[str, str] = field(default_factory=dict)
    values: dict[str, dict[str, str]] = field(default_factory=dict)
    target_units: dict[str, str] = field(default_factory=dict)
    logs: tuple[EventLog, ...] = ()
    label: str | None = None
    where: dict[str, tuple[str, ...]] = field(default_factory=dict)
    machines: tuple[str, str] | None = None
    groups: tuple[str, ...] = ()
    long: tuple[str, str] | None = None
    dialect: Dialect = field(default_factory=Dialect)

    @property
    def text(self) -> tuple[str, ...]:
        """Columns that stay text even if they look like numbers."""
        times = (self.time,) if self.dialect.times_are_text else ()
        kinds = (self.columns[name] for name in self.values)
        return (self.machine, *times, *kinds, *self.where, *self.groups)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the features as a model sees them."""
        return tuple(name for feature in self.columns for name in self.inputs_of(feature))

    def inputs_of(self, feature: str) -> tuple[str, ...]:
        """Return what a model sees of a feature: one number, or one for each of many categories."""
        kinds = self.values.get(feature, {})
        return tuple(f"{feature}_{kind}" for kind in kinds) if len(kinds) > 2 else (feature,)


def site_mapping(site: str, settings: Mapping[str, Any]) -> SiteMapping:
    """Return the checked mapping of ``site`` from its yaml.

    Raises:
        ConfigError: a key is missing, unknown or of the wrong form.
    """
    where = f"sites.{site}"
    if settings.get("path") is None and GENERATED & set(settings):
        raise ConfigError(
            f"{where} has no path: {site} is a site that data=fleet generates, not one with files "
            "of its own; name yours with site=NAME,NAME, and one that is called like it, too, "
            "otherwise (its yaml, and the block in it)"
        )
    if settings.get("path") is None:
        raise ConfigError(
            f"{where}.path is missing: data=files reads CSV or Parquet files of each site; write "
            f"conf/site/{site}.yaml after the pattern of conf/site/example_plant.yaml"
        )
    known_keys(where, settings, SITE_KEYS)
    dialect = dialect_of(where, settings, Dialect())
    columns, units, into, values = _features(where, settings.get("features"))
    chosen = _where(where, settings.get("where"))
    mapping = SiteMapping(
        site=site,
        paths=_paths(where, settings),
        machine="" if settings.get("machine") is None else name_of(where, settings, "machine"),
        time=name_of(where, settings, "time"),
        columns=columns,
        units=units,
        target_units=into,
        values=values,
        label=None if settings.get("label") is None else name_of(where, settings, "label"),
        where=chosen,
        groups=tuple(str(column) for column in listed(settings.get("groups"))),
        long=_long(where, settings),
        dialect=dialect,
    )
    machines = settings.get("machines")
    if machines is not None:
        mapping = replace(mapping, machines=_machines(where, machines, mapping.machine))
    logs = [
        _log(f"{where}.{key}", own, mapping, failure=key == "failures")
        for key in ("failures", "maintenance")
        for own in listed(settings.get(key))
    ]
    if (settings.get("failures") is None) == (mapping.label is None):
        raise ConfigError(
            f"{where} needs {'only one' if mapping.label else 'one'} of 'failures' (a log of "
            "failure events) and 'label' (a column with 0 and 1)"
        )
    if mapping.label is not None and logs:
        raise ConfigError(f"{where}: with 'label' there is no log of 'maintenance'; remove one")
    _require_own_columns(where, mapping)
    return replace(mapping, logs=tuple(logs))


def _require_own_columns(where: str, mapping: SiteMapping) -> None:
    """Refuse a feature whose column has another role, or whose name is that of a category."""
    feature_of = {column: name for name, column in mapping.columns.items()}
    roles = {"machine": mapping.machine, "time": mapping.time, "label": mapping.label}
    roles |= {f"groups[{i}]": column for i, column in enumerate(mapping.groups)}
    for role, column in roles.items():
        if column in feature_of:
            raise ConfigError(
                f"{where}: column '{column}' is both {role} and feature '{feature_of[column]}'; "
                "a feature needs a column of its own"
            )
    for name, count in Counter(mapping.inputs).items():
        if count > 1:
            raise ConfigError(f"{where}.features: two features are called '{name}'; rename one")


def _paths(where: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the file names of a block."""
    paths = listed(settings.get("path")) or [None]
    return tuple(name_of(where, {"path": path}, "path") for path in paths)


def _where(where: str, given: Any) -> dict[str, tuple[str, ...]]:
    """Return the values that rows must have, by column."""
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(listed(value) for value in given.values()):
        raise ConfigError(f"{where}.where={given!r} must name columns and values, as {{plant: A}}")
    return {str(column): tuple(map(cell_of, listed(value))) for column, value in given.items()}


def _long(where: str, settings: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the columns of a table that has one reading a row."""
    if settings.get("variable") is None and settings.get("value") is None:
        return None
    return name_of(where, settings, "variable"), name_of(where, settings, "value")


def _machines(where: str, given: Any, machine: str) -> tuple[str, str]:
    """Return file and id column of the table of machines."""
    settings = given if isinstance(given, Mapping) else {"path": given}
    known_keys(f"{where}.machines", settings, ("path", "machine"))
    if not machine:
        raise ConfigError(f"{where}.machines needs 'machine', the column that tells them apart")
    settings = {"machine": machine} | dict(settings)
    return tuple(name_of(f"{where}.machines", settings, key) for key in ("path", "machine"))  # type: ignore[return-value]


def _log(where: str, given: Any, mapping: SiteMapping, failure: bool) -> EventLog:
    """Return the checked log; what it leaves open is as in the sensor file."""
    settings = {"path": given} if isinstance(given, str) else given
    if not isinstance(settings, Mapping):
        raise ConfigError(
            f"{where} must be a file name or a block with path, machine, time, kind, or a list"
        )
    known_keys(where, settings, LOG_KEYS)
    settings = {"machine": mapping.machine, "time": mapping.time} | dict(settings)
    choice = settings.get("unknown_machines", "error")
    if choice not in ("error", "ignore"):
        raise ConfigError(f"{where}.unknown_machines={choice} must be error or ignore")
    written = {key: _kinds(where, key, settings[key]) for key in KINDS if key in settings}
    claimed = Counter(kind for kinds in written.values() for kind in kinds)
    for kind, count in claimed.items():
        if count > 1:
            raise ConfigError(f"{where}: kind '{kind}' is listed twice; it can mean one thing only")
    # A list that the user wrote wins over the defaults of the others.
    kinds = {
        key: written.get(key, tuple(kind for kind in usual if kind not in claimed))
        for key, usual in KINDS.items()
    }
    return EventLog(
        key=where,
        paths=_paths(where, settings),
        machine=name_of(where, settings, "machine") if settings["machine"] else "",
        time=name_of(where, settings, "time"),
        end=None if settings.get("end") is None else name_of(where, settings, "end"),
        # What stands above the header is a matter of each file.
        dialect=dialect_of(where, {"skip_rows": 0} | dict(settings), mapping.dialect),
        kind=None if settings.get("kind") is None else name_of(where, settings, "kind"),
        failure=failure,
        ignore_unknown=choice == "ignore",
        where=_where(where, settings.get("where")),
        shared=mapping.where,
        **kinds,
    )


def _kinds(where: str, key: str, given: Any) -> tuple[str, ...]:
    """Return a word or a list of words in lower case."""
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, (list, tuple)):
        raise ConfigError(f"{where}.{key}={given!r} must be a list of words, as [repair, service]")
    return tuple(str(kind).strip().lower() for kind in given)


def _features(
    where: str, given: Any
) -> tuple[dict[str, str], dict[str, str], dict[str, str], dict[str, dict[str, str]]]:
    """Return column, unit, the unit to convert into, and categories by feature name."""
    pairs: list[tuple[Any, Any]] = list(given.items()) if isinstance(given, Mapping) else []
    if isinstance(given, (list, tuple, Mapping)) and any(isinstance(key, bool) for key in given):
        raise ConfigError(
            f"{where}.features: YAML takes on, off, yes and no for true or false; put such a name "
            "in quotes, as 'on'"
        )
    if isinstance(given, (list, tuple)):
        pairs = [(str(column), str(column)) for column in given]
    if not pairs:
        raise ConfigError(
            f"{where}.features must list the sensor columns, as [temperature, vibration] or as "
            "temperature: {column: T1, unit: degC}"
        )
    columns: dict[str, str] = {}
    units: dict[str, str] = {}
    into: dict[str, str] = {}
    values: dict[str, dict[str, str]] = {}
    for key, value in pairs:
        name, own = str(key), f"{where}.features.{key}"
        if isinstance(value, Mapping):
            known_keys(own, value, _FEATURE_KEYS)
            column = name_of(own, value, "column")
            if value.get("unit") is not None:
                units[name] = str(value["unit"])
            if value.get("into") is not None:
                into[name] = name_of(own, value, "into")
                name_of(own, value, "unit")
            if value.get("values") is not None:
                values[name] = _categories(own, value["values"])
        elif isinstance(value, (str, int)) and not isinstance(value, bool):
            column = str(value)
        else:
            raise ConfigError(
                f"{own}={value!r} must be a column name or {{column: NAME, unit: UNIT}}"
            )
        if column in columns.values():
            raise ConfigError(f"{where}.features: two features are column '{column}'")
        columns[name] = column
    return columns, units, into, values


def _categories(where: str, given: Any) -> dict[str, str]:
    """Return the cell that means each category, from a list of cells or a mapping."""
    pairs = given if isinstance(given, Mapping) else {cell: cell for cell in listed(given)}
    if any(isinstance(word, bool) for word in (*pairs, *pairs.values())):
        raise ConfigError(
            f"{where}.values={given!r}: put words that YAML takes for true or false in quotes, as "
            "['off', 'on'], or leave them out: on/off columns are read as 0 and 1"
        )
    values = {cell_of(name): cell_of(cell) for name, cell in pairs.items()}
    if len(values) < 2 or len(set(values.values())) < len(values):
        raise ConfigError(
            f"{where}.values={given!r} must list two or more categories, as [idle, run, fault], "
            "or as {run: marche, stop: arret} where this site spells them otherwise"
        )
    return values

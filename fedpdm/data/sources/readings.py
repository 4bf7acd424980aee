"""From a site's files to its readings, as its yaml says: rows selected, one column per sensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from fedpdm.data.rows import Floats
from fedpdm.data.sources.mapping import SiteMapping
from fedpdm.data.sources.tables import Table, read_table, require_columns
from fedpdm.data.sources.units import convert
from fedpdm.errors import DataError


def columns_of(mapping: SiteMapping) -> dict[str, str]:
    """Return the columns that a site's table must have, and what each is for."""
    columns = {mapping.machine: "the machine"} if mapping.machine else {}
    columns[mapping.time] = "the time"
    columns |= {column: f"feature '{name}'" for name, column in mapping.columns.items()}
    if mapping.label is not None:
        columns[mapping.label] = "the label"
    columns |= dict.fromkeys(mapping.groups, "a class")
    return columns | dict.fromkeys(mapping.where, "picks the site's rows")


def in_file(mapping: SiteMapping, columns: Mapping[str, str]) -> dict[str, str]:
    """Return those of ``columns`` that a file has: of a table with a reading a row, others."""
    if mapping.long is None:
        return dict(columns)
    sensors = {*mapping.columns.values(), mapping.label}
    asked = {column: use for column, use in columns.items() if column not in sensors}
    return asked | {mapping.long[0]: "the sensor's name", mapping.long[1]: "its reading"}


def read_site(
    mapping: SiteMapping,
    paths: Sequence[Path],
    columns: Mapping[str, str],
    *,
    where: str,
    hint: str,
    machines: Path | None = None,
    optional: Sequence[str] = (),
) -> Table:
    """Read a site's sensor rows: a column for each feature, and only rows that are the site's.

    Args:
        mapping: the site's yaml.
        paths: the files.
        columns: what must be there, and what each is for.
        where: site and files, for messages.
        hint: what to do about a missing column.
        machines: the table of machines; None: it is not read.
        optional: further columns that are read if they are there.

    Raises:
        DataError: a file or column is missing or unreadable, or no row is the site's.
    """
    asked = in_file(mapping, columns)
    absent: dict[str, str] = {}
    if machines is not None:  # it may hold any column that does not tell rows apart
        own = (mapping.machine, mapping.time, *(mapping.long or ()))
        absent = {column: use for column, use in asked.items() if column not in own}
        asked = {column: use for column, use in asked.items() if column in own}
    variable = () if mapping.long is None else mapping.long[:1]
    table = read_table(
        paths, asked, where=where, hint=hint, dialect=mapping.dialect,
        text=(*mapping.text, *variable), optional=(*absent, *mapping.where, *optional),
    )  # fmt: skip
    if machines is not None:
        absent = {column: use for column, use in absent.items() if column not in table}
        table = _joined(table, mapping, machines, absent)
    return prepared(table, mapping, columns)


def prepared(table: Table, mapping: SiteMapping, columns: Mapping[str, str]) -> Table:
    """Return a table as its file holds it as one of the site's rows, one column a sensor."""
    table = with_machine(picked(table, mapping.where), mapping)
    if mapping.long is None or mapping.long[0] not in table:
        return table
    sensors = {*mapping.columns.values(), mapping.label}
    return _widened(table, mapping, {c: use for c, use in columns.items() if c in sensors})


def with_machine(table: Table, mapping: SiteMapping) -> Table:
    """Return the table with a column of machines: without one, each file is a machine."""
    if mapping.machine:
        return table
    own = mapping.site or "all rows"
    if not mapping.paths and table.files:  # a file to predict: as among several of its kind
        own = table.files[0]
    names = np.full(len(table), own, dtype=object)
    if table.file is not None:
        names = np.array(table.files, dtype=object)[table.file]
    return replace(table, frame=table.frame.assign(**{"": names}))


def picked(table: Table, where: Mapping[str, tuple[str, ...]]) -> Table:
    """Return the rows that have one of the values in each column that the table has.

    Raises:
        DataError: no row has.
    """
    for column, values in where.items():
        if column not in table:
            continue
        text = table.texts(column)
        chosen = np.isin(text, values)
        if not chosen.any() and len(table):
            there = np.unique(text).tolist()
            raise DataError(
                f"{table.where}: no row has {column}={', '.join(values)}; column '{column}' holds "
                f"{', '.join(there[:10])}{', …' if len(there) > 10 else ''}; correct 'where' "
                "in the site yaml"
            )
        table = table.take(chosen)
    return table


def values_of(table: Table, mapping: SiteMapping) -> Floats:
    """Return (R, F) readings in the order of ``mapping.inputs``, NaN where one is missing.

    Raises:
        DataError: a cell that is no number or no category.
    """
    columns: list[Floats] = []
    for name, column in mapping.columns.items():
        kinds = mapping.values.get(name)
        if kinds is None:
            values = table.numbers(column)
            if name in mapping.target_units:
                values = convert(values, mapping.units[name], mapping.target_units[name])
            columns.append(values)
            continue
        place = table.choices(column, kinds)
        codes = range(len(kinds)) if len(kinds) > 2 else (1,)
        columns += [np.where(place < 0, np.nan, (place == code) * 1.0) for code in codes]
    return np.stack(columns, axis=1)


def _joined(table: Table, mapping: SiteMapping, path: Path, columns: Mapping[str, str]) -> Table:
    """Return rows with the columns that they lack taken from the table of machines."""
    assert mapping.machines is not None
    where, key = f"{mapping.site}: {path}", mapping.machines[1]
    others = read_table(
        path, {key: "the machine"} | dict(columns), where=where, hint=table.hint,
        dialect=replace(mapping.dialect, skip_rows=0), text=(key, *mapping.text),
    )  # fmt: skip
    ids = others.names(key)
    again = pd.Series(ids).duplicated().to_numpy()
    others.refuse(key, again, "holds {value} twice", "a machine has one row there")
    place = pd.Index(ids).get_indexer(pd.Index(table.names(mapping.machine)))
    table.refuse(
        mapping.machine, place < 0, f"holds {{value}}, which {path} has no row of,",
        "add a row of this machine there",
    )  # fmt: skip
    added = others.frame[list(columns)].iloc[place].set_axis(table.frame.index)
    return replace(table, frame=pd.concat([table.frame, added], axis=1))


def _widened(table: Table, mapping: SiteMapping, sensors: Mapping[str, str]) -> Table:
    """Return a table with a reading a row as one with a column for each sensor."""
    assert mapping.long is not None
    variable, value = mapping.long
    keys = [mapping.machine, mapping.time]
    names = table.texts(variable)
    require_columns(
        sensors, sorted(set(names.tolist())), f"{table.where}: column '{variable}'", sensors,
        table.hint,
    )  # fmt: skip
    again = table.frame[keys].assign(variable=names).duplicated().to_numpy()
    table.refuse(
        variable, again, "holds {value} twice for one machine and time", "remove one of them"
    )
    row = table.frame.groupby(keys, sort=False, dropna=False).ngroup().to_numpy()
    wide = table.take(~table.frame.duplicated(keys).to_numpy())
    frame = wide.frame[keys].copy()
    readings = table.frame[value]
    for sensor in sensors:
        here = names == sensor
        column = pd.Series(np.nan, index=np.arange(len(frame)), dtype=object)
        column.iloc[row[here]] = readings[here].to_numpy()
        frame[sensor] = column.astype(readings.dtype).to_numpy()
    return replace(wide, frame=frame)

"""A site's table: columns as numbers, times and names; each cell knows its line in the file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedpdm.data.rows import Bools, Floats, Ints, Strings
from fedpdm.data.sources import hints, readers
from fedpdm.data.sources.dialect import UNIX, Dialect
from fedpdm.data.sources.keys import closest
from fedpdm.data.sources.times import (
    SECONDS,
    are_written_dates,
    carry_offset,
    from_zone,
    unix_scale,
)
from fedpdm.errors import ConfigError, DataError

SWITCHES = {"true": 1.0, "on": 1.0, "yes": 1.0, "false": 0.0, "off": 0.0, "no": 0.0}
"""Words of on/off columns, in any case."""


@dataclass(frozen=True)
class Table:
    """Some columns of one file, or of several with the same columns.

    Attributes:
        frame: R rows; its index tells where in its file a row was.
        where: site and file, for messages.
        hint: what to do about a column that is not as it should be.
        lines: whether a row's place is a line of a text file (else a row of Parquet).
        dialect: how text is written.
        files: what tells the files apart, where there are several.
        file: (R,) position in ``files`` of each row.
    """

    frame: pd.DataFrame
    where: str
    hint: str
    lines: bool
    dialect: Dialect
    files: tuple[str, ...] = ()
    file: Ints | None = None

    def __len__(self) -> int:
        return len(self.frame)

    def __contains__(self, column: str) -> bool:
        return column in self.frame.columns

    def take(self, chosen: Bools) -> Table:
        """Return the rows where ``chosen`` (R,) is true."""
        file = None if self.file is None else self.file[chosen]
        return replace(self, frame=self.frame[chosen], file=file)

    def place(self, position: int) -> str:
        """Return where in the file row ``position`` (from 0) stands."""
        number = int(self.frame.index[position])
        line = f"line {number + 2 + self.dialect.skip_rows}" if self.lines else f"row {number + 1}"
        return line if self.file is None else f"{line} of {self.files[self.file[position]]}"

    def refuse(self, column: str, bad: Bools, problem: str, hint: str = "") -> None:
        """Raise DataError for the first row where ``bad`` (R,) is true.

        Args:
            column: its name, for the message.
            bad: (R,) rows that cannot be used.
            problem: what is wrong; ``{value}`` stands for the first bad cell.
            hint: what to do; without one, the table's own hint.
        """
        if bad.any():
            first = int(np.argmax(bad))
            others = int(bad.sum()) - 1
            more = f" (and {others} more)" if others else ""
            value = self.frame[column].iloc[first : first + 1].tolist()[0]  # plain, for its repr
            raise DataError(
                f"{self.where}: column '{column}' {problem.format(value=repr(value))} at "
                f"{self.place(first)}{more}; {hint or self.hint}"
            )

    def texts(self, column: str) -> Strings:
        """Return a column as (R,) text, "" where a cell is empty.

        Ids that one table writes as 1.0 and another as 1 are the same.
        """
        values = self.frame[column]
        empty = values.isna().to_numpy(dtype=bool)
        if pd.api.types.is_float_dtype(values.dtype):
            values = values.convert_dtypes()  # whole numbers beside empty cells
        text = np.array([str(value).strip() for value in values.tolist()], dtype=np.str_)
        words = [word for word in self.dialect.missing if isinstance(word, str)]
        text[empty | np.isin(text, words)] = ""
        known = text[text != ""]
        if len(known) and all(re.fullmatch(r"\d+\.0+", word) for word in np.unique(known)):
            text = np.array([word.partition(".")[0] for word in text.tolist()], dtype=np.str_)
        return text

    def names(self, column: str) -> Strings:
        """Return a column as (R,) text: machine ids, kinds of events."""
        text = self.texts(column)
        self.refuse(column, text == "", "is empty")
        return text

    def choices(self, column: str, cells: Mapping[str, str]) -> Ints:
        """Return a column of categories as (R,) position in ``cells``, -1 where it is empty.

        Args:
            column: its name.
            cells: category to the cell that means it.
        """
        text, known = self.texts(column), list(cells.values())
        self.refuse(
            column, (text != "") & ~np.isin(text, known), "holds {value}, which is no category,",
            f"its values are {', '.join(known)}: add it there in every site's yaml, or to missing",
        )  # fmt: skip
        place = {cell: position for position, cell in enumerate(known)}
        return np.array([place.get(word, -1) for word in text.tolist()], dtype=np.int64)

    def numbers(self, column: str) -> Floats:
        """Return a column as (R,) float64, NaN where a cell is empty. On is 1, off is 0.

        Raises:
            DataError: text, a date or an infinite value.
        """
        values = self.frame[column]
        if pd.api.types.is_datetime64_any_dtype(values.dtype):
            raise DataError(
                f"{self.where}: column '{column}' holds dates, not numbers; {self.hint}"
            )
        if pd.api.types.is_numeric_dtype(values.dtype):  # booleans too
            result = values.to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            result, bad = self._parsed(values)
            if bad.any():
                self.refuse(
                    column,
                    bad,
                    "holds text, {value},",
                    hints.number(values[bad], self.dialect, self.hint),
                )
        missing = [word for word in self.dialect.missing if not isinstance(word, str)]
        if missing:
            result = np.where(np.isin(result, missing), np.nan, result)
        self.refuse(column, np.isinf(result), "holds an infinite value, {value},")
        return np.asarray(result, dtype=np.float64)

    def _parsed(self, values: pd.Series[Any]) -> tuple[Floats, Bools]:
        """Return cells of text as (R,) numbers, and (R,) which are none."""
        text = values.astype(str).str.strip()
        empty = values.isna().to_numpy(dtype=bool) | text.isin(self.dialect.no_reading).to_numpy()
        lower = text.str.lower()
        if lower[~empty].isin(SWITCHES).all():
            result = lower.map(SWITCHES).to_numpy(dtype=np.float64)
            return np.where(empty, np.nan, result), np.zeros(len(text), dtype=bool)
        mark, point = self.dialect.thousands, self.dialect.decimal
        spelt = values.map(lambda cell: isinstance(cell, str))  # others were numbers in their file
        plain, bad = text, np.zeros(len(text), dtype=bool)
        if mark is not None:
            groups = rf"[-+]?\d{{1,3}}({re.escape(mark)}\d{{3}})+({re.escape(point)}\d*)?"
            bad = (text.str.contains(mark, regex=False) & ~text.str.fullmatch(groups)).to_numpy()
            plain = plain.str.replace(mark, "", regex=False)
        if point != ".":
            bad = bad | plain.str.contains(".", regex=False).to_numpy()
            plain = plain.str.replace(point, ".", regex=False)
        numbers = plain.where(spelt, text).where(~empty)
        result = pd.to_numeric(numbers, errors="coerce").to_numpy(dtype=np.float64)
        bad = bad & spelt.to_numpy(dtype=bool)
        return result.astype(np.float64), (np.isnan(result) | bad) & ~empty

    def times(self, column: str, unit: str, machine: Strings | None = None) -> tuple[Floats, bool]:
        """Return a column as (R,) float64 in ``unit``, and whether it holds dates.

        Dates count from 1970 in UTC; numbers are taken to be in ``unit`` already.

        Args:
            column: its name.
            unit: of the result.
            machine: (R,) whose rows stand in the order of time; None: no order is known.

        Raises:
            DataError: an empty cell, one that is no time, or numbers that look like Unix times.
            ConfigError: dates cannot be measured in ``unit`` (cycles).
        """
        values, written = self.frame[column], self.dialect.time_format
        self.refuse(column, self.empty(column), "has no time")
        if pd.api.types.is_datetime64_any_dtype(values.dtype):
            return self._measured(values, unit, column, machine), True
        if written in UNIX:
            return self.numbers(column) * UNIX[written] / self._seconds(unit, column), True
        if written is None and pd.api.types.is_numeric_dtype(values.dtype):
            return self._counted(column, unit), False
        zoned = bool(self.zoned(column))
        text = values.astype(str).str.strip()
        if written is None and (other := carry_offset(text) != zoned).any():
            self.refuse(column, other & ~self._no_time(text), "has a time zone in some rows and "
                        "none in others: {value}", "write all times in the same way")  # fmt: skip
        parsed = pd.to_datetime(text, format=written or "ISO8601", utc=zoned, errors="coerce")
        bad = parsed.isna().to_numpy(dtype=bool)
        if bad.any():
            number = pd.to_numeric(values, errors="coerce").notna().to_numpy(dtype=bool)
            if written is None and number.sum() > (~bad).sum():
                self.refuse(column, ~number, "holds {value} among numbers",
                            hints.number(values[~number], self.dialect, self.hint))  # fmt: skip
            self.refuse(
                column, bad, "holds {value}, which is not a time,",
                f"its time_format is '{written}'" if written else
                "write times as 2024-01-31 13:00 or as numbers, or set time_format "
                "(for example '%d.%m.%Y %H:%M') in the site yaml",
            )  # fmt: skip
        return self._measured(parsed, unit, column, machine), True

    def empty(self, column: str) -> Bools:
        """Return (R,) which cells hold nothing."""
        values = self.frame[column]
        empty = values.isna().to_numpy(dtype=bool)
        if pd.api.types.is_numeric_dtype(values.dtype) or self._dates(column):
            return np.asarray(empty)
        text = values.astype(str).str.strip()
        return np.asarray(empty | text.isin(self.dialect.no_reading).to_numpy())

    def zoned(self, column: str) -> bool | None:
        """Return whether the times say their time zone; None where they are numbers."""
        values, written = self.frame[column], self.dialect.time_format
        if self._dates(column):
            return isinstance(values.dtype, pd.DatetimeTZDtype)
        if written in UNIX:
            return True
        if written is not None:
            return "%z" in written.lower()
        if pd.api.types.is_numeric_dtype(values.dtype):
            return None
        return bool(carry_offset(values.head(1))[0])

    def _dates(self, column: str) -> bool:
        return bool(pd.api.types.is_datetime64_any_dtype(self.frame[column].dtype))

    def _no_time(self, text: pd.Series[Any]) -> Bools:
        return pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce").isna().to_numpy()

    def _counted(self, column: str, unit: str) -> Floats:
        """Return times that are numbers in ``unit``; refuse what looks like something else."""
        result = self.numbers(column)
        every = np.ones(len(result), dtype=bool)
        if are_written_dates(result):
            self.refuse(column, every, "holds dates written as numbers, {value},",
                        "set time_format: '%Y%m%d' in the site yaml")  # fmt: skip
        if (unix := unix_scale(result, unit)) is not None:
            word, key = unix
            self.refuse(column, every, f"looks like Unix {word} and not like {unit}, {{value}},",
                        f"set time_format: {key} in the site yaml")  # fmt: skip
        return result

    def _measured(self, dates: Any, unit: str, column: str, machine: Strings | None) -> Floats:
        """Return dates as (R,) float64 since 1970 in ``unit``."""
        zone = self.dialect.time_zone
        if isinstance(dates.dtype, pd.DatetimeTZDtype):
            dates = dates.dt.tz_convert("UTC").dt.tz_localize(None)
        elif zone is not None:
            dates = from_zone(dates, zone, machine, lambda absent: self.refuse(
                column, absent, f"holds {{value}}, which no clock in {zone} shows,",
                "summer time begins and leaves it out; correct the file, or the site's time_zone",
            ))  # fmt: skip
        micro = dates.to_numpy(dtype="datetime64[us]").astype(np.int64)
        return np.asarray(micro / (1e6 * self._seconds(unit, column)), dtype=np.float64)

    def _seconds(self, unit: str, column: str) -> int:
        """Return the seconds in ``unit``; refuse a unit that dates cannot be measured in."""
        if unit not in SECONDS:
            raise ConfigError(
                f"{self.where}: column '{column}' holds dates, which data.time_unit={unit} cannot "
                f"measure; use one of {', '.join(SECONDS)}"
            )
        return SECONDS[unit]

    def in_order(self, machine: Strings, time: Floats, column: str) -> Ints:
        """Return the order (R,) of the rows by machine and time.

        Args:
            machine: (R,) ids.
            time: (R,) times.
            column: of the times, for the message.

        Raises:
            DataError: a machine has two rows at one time.
        """
        rows = pd.DataFrame({"machine": machine, "time": time})
        same = rows.duplicated().to_numpy()
        if same.any():
            second = int(np.argmax(same))
            first = int(np.argmax((machine == machine[second]) & (time == time[second])))
            when = self.frame[column].iloc[second]
            raise DataError(
                f"{self.where}: machine '{machine[second]}' has two rows at {when} "
                f"({self.place(first)} and {self.place(second)}; {int(same.sum())} such rows in "
                f"all): column '{column}' must tell the rows of a machine apart; "
                f"{hints.same_time(self.frame[column][same], self.dialect, self.zoned(column))}"
            )
        order = rows.sort_values(["machine", "time"], kind="stable").index
        return np.asarray(order, dtype=np.int64)


def read_table(
    path: Path | Sequence[Path],
    columns: Mapping[str, str],
    *,
    where: str,
    hint: str,
    dialect: Dialect,
    text: Iterable[str] = (),
    optional: Iterable[str] = (),
    may_be_empty: bool = False,
) -> Table:
    """Read ``columns`` of CSV or Parquet files.

    Args:
        path: files, as ``readers.parts_of`` takes them; their endings tell the format.
        columns: column name to what it is for, for messages.
        where: site and file, for messages.
        hint: what to do about a missing column.
        dialect: how a text file is written.
        text: columns that stay text even if they look like numbers (machine 007, dates).
        optional: columns that are read if they are there.
        may_be_empty: whether a header without rows will do.

    Raises:
        DataError: no such file, not readable, empty, or a column is missing.
    """
    parts = readers.parts_of([path] if isinstance(path, Path) else path, where)
    shorts = readers.short_names(parts)
    frames = []
    for part, short in zip(parts, shorts, strict=True):
        file = where if len(parts) == 1 else f"{where}: {short}"
        with readers.refusals(file, dialect):
            raw = readers.header(part, dialect)
            found = [name.strip() for name in raw]
            if not part.parquet:
                readers.require_separator(columns, found, file, dialect)
            require_columns(columns, found, file, columns, hint)
            wanted = list(dict.fromkeys([*columns, *(name for name in optional if name in found)]))
            frames.append(readers.rows(part, raw, wanted, set(text), dialect))
        if len(frames[-1]) == 0 and not may_be_empty:
            raise DataError(f"{file} has a header but no rows; bring a file with data")
    lines = not any(part.parquet for part in parts)
    if len(parts) == 1:
        return Table(frames[0], where, hint, lines, dialect, tuple(shorts))
    file_of = np.repeat(np.arange(len(frames)), [len(frame) for frame in frames])
    return Table(pd.concat(frames), where, hint, lines, dialect, tuple(shorts), file_of)


def require_columns(
    names: Iterable[str], found: Sequence[str], where: str, columns: Mapping[str, str], hint: str
) -> None:
    """Refuse a table whose header (``found``) lacks a column, or has it twice.

    Args:
        names: the columns that must be there.
        found: the columns that are.
        where: site and file, for the message.
        columns: column name to what it is for, for the message.
        hint: what to do about a missing column.

    Raises:
        DataError: the first column that is missing or there twice.
    """
    for name in names:
        if name not in found:
            raise DataError(
                f"{where}: column '{name}' ({columns[name]}) is missing; found: "
                f"{', '.join(found)}.{closest(name, found)} {hint[:1].upper()}{hint[1:]}"
            )
        if found.count(name) > 1:
            raise DataError(f"{where}: column '{name}' is there twice; rename or remove one")

"""Reading a site's CSV or Parquet file, and its columns as numbers, times and names."""

from __future__ import annotations

import datetime
import re
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from fedpdm.data.rows import Bools, Floats, Ints, Strings
from fedpdm.data.sources.mapping import UNIX, Dialect, closest
from fedpdm.errors import ConfigError, DataError

SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400, "weeks": 604_800}
MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "none", "<NA>", "#N/A"]
_TEXT_FILES = (".csv", ".txt", ".tsv", ".csv.gz", ".tsv.gz")
_PARQUET_FILES = (".parquet", ".pq")


@dataclass(frozen=True)
class Table:
    """Some columns of one file.

    Attributes:
        frame: R rows; its index tells where in the file a row was.
        where: site and file, for messages.
        hint: what to do about a column that is not as it should be.
        lines: whether a row's place is a line of a text file (else a row of Parquet).
        dialect: how text is written.
    """

    frame: pd.DataFrame
    where: str
    hint: str
    lines: bool
    dialect: Dialect

    def __len__(self) -> int:
        return len(self.frame)

    def __contains__(self, column: str) -> bool:
        return column in self.frame.columns

    def place(self, position: int) -> str:
        """Return where in the file row ``position`` (from 0) stands."""
        number = int(self.frame.index[position])
        return f"line {number + 2}" if self.lines else f"row {number + 1}"

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
            value = self.frame[column].iloc[first]
            raise DataError(
                f"{self.where}: column '{column}' {problem.format(value=repr(value))} at "
                f"{self.place(first)}{more}; {hint or self.hint}"
            )

    def names(self, column: str) -> Strings:
        """Return a column as (R,) text: machine ids, kinds of events."""
        values = self.frame[column]
        empty = values.isna().to_numpy(dtype=bool)
        if pd.api.types.is_float_dtype(values.dtype):
            values = values.convert_dtypes()  # whole numbers beside empty cells
        text = np.array([str(value).strip() for value in values.tolist()], dtype=np.str_)
        self.refuse(column, empty | (text == ""), "is empty")
        return text

    def numbers(self, column: str) -> Floats:
        """Return a column as (R,) float64, NaN where a cell is empty.

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
            parsed = pd.to_numeric(values, errors="coerce")
            result = parsed.to_numpy(dtype=np.float64, na_value=np.nan)
            bad = np.isnan(result) & ~(values.isna() | values.map(_spells_nan)).to_numpy(dtype=bool)
            if bad.any():
                self.refuse(column, bad, "holds text, {value},", self._number_hint(values[bad]))
        self.refuse(column, np.isinf(result), "holds an infinite value, {value},")
        return np.asarray(result, dtype=np.float64)

    def times(self, column: str, unit: str) -> tuple[Floats, bool]:
        """Return a column as (R,) float64 in ``unit``, and whether it holds dates.

        Dates count from 1970 in UTC; numbers are taken to be in ``unit`` already.

        Raises:
            DataError: an empty cell, or one that is no time.
            ConfigError: dates cannot be measured in ``unit`` (cycles).
        """
        values, written = self.frame[column], self.dialect.time_format
        self.refuse(column, values.isna().to_numpy(dtype=bool), "has no time")
        if pd.api.types.is_datetime64_any_dtype(values.dtype):
            return self._measured(pd.to_datetime(values, utc=True), unit, column), True
        if written in UNIX:
            return self.numbers(column) * UNIX[written] / self._seconds(unit, column), True
        if written is None and pd.api.types.is_numeric_dtype(values.dtype):
            result = self.numbers(column)
            if _are_written_dates(result):
                self.refuse(column, np.ones(len(result), dtype=bool),
                            "holds dates written as numbers, {value},",
                            "set time_format: '%Y%m%d' in the site yaml")  # fmt: skip
            return result, False
        parsed = pd.to_datetime(
            values.astype(str), format=written or "ISO8601", utc=True, errors="coerce"
        )
        bad = parsed.isna().to_numpy(dtype=bool)
        if bad.any():
            number = pd.to_numeric(values, errors="coerce").notna().to_numpy(dtype=bool)
            if written is None and number.sum() > (~bad).sum():
                self.refuse(column, ~number, "holds {value} among numbers",
                            self._number_hint(values[~number]))  # fmt: skip
            self.refuse(
                column, bad, "holds {value}, which is not a time,",
                f"its time_format is '{written}'" if written else
                "write times as 2024-01-31 13:00 or as numbers, or set time_format "
                "(for example '%d.%m.%Y %H:%M') in the site yaml",
            )  # fmt: skip
        return self._measured(parsed, unit, column), True

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
                f"all): column '{column}' must tell the rows of a machine apart; remove "
                "the duplicates"
            )
        order = rows.sort_values(["machine", "time"], kind="stable").index
        return np.asarray(order, dtype=np.int64)

    def _measured(self, dates: Any, unit: str, column: str) -> Floats:
        """Return dates as (R,) float64 since 1970 in ``unit``."""
        micro = dates.dt.tz_localize(None).to_numpy(dtype="datetime64[us]").astype(np.int64)
        return np.asarray(micro / (1e6 * self._seconds(unit, column)), dtype=np.float64)

    def _seconds(self, unit: str, column: str) -> int:
        """Return the seconds in ``unit``; refuse a unit that dates cannot be measured in."""
        if unit not in SECONDS:
            raise ConfigError(
                f"{self.where}: column '{column}' holds dates, which data.time_unit={unit} cannot "
                f"measure; use one of {', '.join(SECONDS)}"
            )
        return SECONDS[unit]

    def _number_hint(self, bad: pd.Series[Any]) -> str:
        """Return what to do about cells that are no numbers, read from the first of them."""
        text = str(bad.iloc[0]).strip()
        if re.fullmatch(r"[-+]?[\d.]*,\d+", text) and self.dialect.decimal == ".":
            sep = "" if self.dialect.sep else f", sep: '{',' if self.lines else ';'}'"
            return f"this looks like a decimal comma: set decimal: ','{sep} in the site yaml"
        if re.fullmatch(r"[-+]?\d+\.\d+", text) and self.dialect.decimal == ",":
            return "this looks like a decimal point: set decimal: '.' in the site yaml"
        return self.hint


def read_table(
    path: Path,
    columns: Mapping[str, str],
    *,
    where: str,
    hint: str,
    dialect: Dialect,
    text: Iterable[str] = (),
    optional: Iterable[str] = (),
) -> Table:
    """Read ``columns`` of a CSV or Parquet file.

    Args:
        path: the file; its ending tells the format.
        columns: column name to what it is for, for messages.
        where: site and file, for messages.
        hint: what to do about a missing column.
        dialect: how a text file is written.
        text: columns that stay text even if they look like numbers (machine 007, dates).
        optional: columns that are read if they are there.

    Raises:
        DataError: no such file, not readable, empty, or a column is missing.
    """
    name = path.name.lower()
    parquet = name.endswith(_PARQUET_FILES)
    if not parquet and not name.endswith(_TEXT_FILES):
        raise DataError(
            f"{where} is neither CSV nor Parquet; save it as "
            f"{', '.join((*_TEXT_FILES[:3], *_PARQUET_FILES))}"
        )
    if path.is_dir():
        raise DataError(f"{where} is a folder; name the file in it")
    sep = dialect.sep or ("\t" if ".tsv" in name else ",")
    form: dict[str, Any] = {"sep": sep, "encoding": dialect.encoding, "skipinitialspace": True}
    try:
        found = _parquet_header(path) if parquet else _text_header(path, form)
        if not parquet:
            _require_separator(columns, found, where, sep)
        require_columns(columns, found, where, columns, hint)
        wanted = list(dict.fromkeys([*columns, *(name for name in optional if name in found)]))
        if parquet:
            frame = _parquet_rows(path, wanted)
        else:
            frame = _text_rows(path, wanted, set(text), decimal=dialect.decimal, **form)
    except FileNotFoundError:
        raise DataError(
            f"{where} does not exist; relative paths start from data.path, or else from the "
            f"folder you are in ({path.parent.absolute()})"
        ) from None
    except pa.ArrowException as error:
        raise DataError(
            f"{where} is not a readable Parquet file: {one_line(error)}; export it again"
        ) from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{where} is empty; bring a file with a header and data") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        detail = one_line(error)
        if "Length of header" in detail:
            detail = "rows have more fields than the header"
        raise DataError(
            f"{where} is not a proper table: {detail}; if its numbers have decimal commas, or "
            "another separator than a comma, set sep: ';' and decimal: ',' in the site yaml"
        ) from None
    except UnicodeError:
        raise DataError(
            f"{where} is not text in {dialect.encoding.removesuffix('-sig')}; set encoding "
            "(for example cp1252 or utf-16) in the site yaml"
        ) from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"{where} is damaged: {one_line(error)}; export it again") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{where} cannot be read: {reason}; check the file's permissions") from None
    if len(frame) == 0:
        raise DataError(f"{where} has a header but no rows; bring a file with data")
    return Table(frame, where, hint, not parquet, dialect)


def _parquet_header(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    return list(pq.read_schema(path).names)


def _parquet_rows(path: Path, wanted: list[str]) -> pd.DataFrame:
    import pyarrow.parquet as pq

    # Metadata would turn columns that once were an index back into one.
    frame: pd.DataFrame = pq.read_table(path, columns=wanted).to_pandas(ignore_metadata=True)
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.CategoricalDtype):
            frame[name] = frame[name].astype(object)
        elif any(isinstance(value, datetime.date) for value in frame[name].dropna().head(1)):
            frame[name] = pd.to_datetime(frame[name])
    return frame


def _text_header(path: Path, form: Mapping[str, Any]) -> list[str]:
    header = pd.read_csv(path, header=None, nrows=1, dtype=str, index_col=False, **form)
    return [str(name) for name in header.iloc[0].tolist()]


def _text_rows(path: Path, wanted: list[str], as_text: set[str], **form: Any) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        frame = pd.read_csv(
            path,
            dtype=dict.fromkeys(as_text, str),
            keep_default_na=False,
            na_values={name: [""] if name in as_text else MISSING for name in wanted},
            index_col=False,  # a surplus field is an error, not an index
            low_memory=False,
            skip_blank_lines=False,  # so that the index tells the line
            **form,
        )
    rows: pd.DataFrame = frame[wanted].dropna(how="all")
    return rows


def _require_separator(names: Iterable[str], found: list[str], where: str, sep: str) -> None:
    """Refuse a header of one column that would be several with another separator."""
    if len(found) > 1 or set(names) & set(found):
        return
    for other, spelled in ((";", ";"), ("\t", "\\t"), ("|", "|"), (",", ",")):
        if other != sep and other in found[0]:
            decimal = " (and decimal: ',' if its numbers have decimal commas)"
            raise DataError(
                f"{where} is not separated by '{sep}': its header is {found[0]!r}; set "
                f'sep: "{spelled}"{decimal if other == ";" else ""} in the site yaml'
            )


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


def _are_written_dates(values: Floats) -> bool:
    """Return whether every number reads as a date, 20240131."""
    if not np.all((values >= 19_000_101) & (values <= 21_001_231) & (values == np.floor(values))):
        return False
    month, day = values // 100 % 100, values % 100
    return bool(np.all((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)))


def _spells_nan(value: object) -> bool:
    return isinstance(value, str) and value.strip() in MISSING


def one_line(error: BaseException) -> str:
    """Return an error's text without line breaks."""
    text = " ".join(str(error).split())
    return text.removeprefix("Error tokenizing data. C error: ")

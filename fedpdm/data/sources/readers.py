"""Opens a site's files: one or several, by a pattern, in an archive; CSV or Parquet."""

from __future__ import annotations

import contextlib
import csv
import datetime
import fnmatch
import glob
import gzip
import io
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pandas as pd
import pyarrow as pa

from fedpdm.data.sources.dialect import MISSING, Dialect
from fedpdm.errors import DataError

TEXT_FILES = (".csv", ".txt", ".tsv", ".csv.gz", ".txt.gz", ".tsv.gz")
PARQUET_FILES = (".parquet", ".pq")
HEADER = 1 << 18
"""Bytes that the names of all columns may take."""
UNPACKED, TIMES = 1 << 28, 100
"""Bytes to which any packed file may grow; one that is larger than that, to so many times its size.
Sensor rows grow to 5 to 20 times theirs; a file made to fill the memory, to 1,000 times."""


def require_growth(size: int, packed: int, name: str) -> None:
    """Refuse a packed file that grows beyond all reason.

    Args:
        size: bytes that it has grown to.
        packed: bytes that it takes on the disk.
        name: the file as messages name it.

    Raises:
        DataError: names the file.
    """
    if size > max(UNPACKED, TIMES * packed):
        raise DataError(
            f"{name} grows to over {TIMES} times its size when it is unpacked; if it is no trap, "
            "unpack it yourself and name the file that comes out"
        )


class _Unpacking(io.RawIOBase):
    """A gz file as a stream that ends in an error where it grows too much."""

    def __init__(self, path: Path) -> None:
        self._path, self._packed, self._size = path, path.stat().st_size, 0
        self._stream = gzip.open(path)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._stream.readinto(buffer)
        self._size += count
        require_growth(self._size, self._packed, str(self._path))
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


@dataclass(frozen=True)
class Part:
    """One table: a file, or a member of a zip archive."""

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """The file as messages name it."""
        return str(self.path) if self.member is None else f"{self.path}/{self.member}"

    @property
    def parquet(self) -> bool:
        return self.name.lower().endswith(PARQUET_FILES)

    @contextlib.contextmanager
    def open(self) -> Iterator[Path | IO[bytes]]:
        """Give what pandas and pyarrow read."""
        if self.member is not None:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
                info = archive.getinfo(self.member)  # no more than it says is read
                require_growth(info.file_size, info.compress_size, self.name)
                yield stream
        elif self.name.lower().endswith(".gz"):
            with io.BufferedReader(_Unpacking(self.path)) as unpacked:
                yield unpacked
        else:
            yield self.path


def parts_of(paths: Sequence[Path], where: str) -> list[Part]:
    """Return the tables that paths name.

    Args:
        paths: files; patterns with ``*``, ``?`` or ``[…]``; zip archives, whole or with a
            member's name or pattern behind them (``data.zip/telemetry.csv``).
        where: the site and its paths, for messages.

    Raises:
        DataError: a pattern or an archive holds no table, or a file is of no known kind.
    """
    parts: list[Part] = []
    for path in paths:
        archive, inside = _in_archive(path)
        text = str(archive)
        found = [archive]
        if glob.has_magic(text) and not archive.exists():
            found = [Path(name) for name in sorted(glob.glob(text, recursive=True))]
            if not found:
                raise DataError(f"{where}: no file matches {text}; correct the pattern")
        for file in found:
            if file.exists() and not (file.is_file() or file.is_dir()):  # a pipe has no end
                raise DataError(f"{where}: {file.name} is a pipe or a device; name a file")
            if file.name.lower().endswith(".zip"):
                parts += _members(file, inside, where)
            else:
                parts.append(Part(file))
    for part in parts:
        if part.member is None and part.path.is_dir():
            raise DataError(f"{where} is a folder; name the file in it, or all of them with *.csv")
        if not part.name.lower().endswith((*TEXT_FILES, *PARQUET_FILES)):
            raise DataError(
                f"{where}: {PurePosixPath(part.name).name} is neither CSV nor Parquet; save it as "
                f"{', '.join((*TEXT_FILES[:3], *PARQUET_FILES))}"
            )
    return parts


def short_names(parts: Sequence[Part]) -> list[str]:
    """Return what tells files apart: their names without the folder they share or an ending."""
    names = [PurePosixPath(Path(part.name).as_posix()) for part in parts]
    common = os.path.commonpath([str(name.parent) for name in names])
    short = [str(name.relative_to(common)) if common else str(name) for name in names]
    endings = "|".join(map(re.escape, sorted((*TEXT_FILES, *PARQUET_FILES), key=len)[::-1]))
    return [re.sub(rf"({endings})$", "", name, flags=re.IGNORECASE) for name in short]


def _in_archive(path: Path) -> tuple[Path, str]:
    """Return the archive and the pattern of its members, where ``path`` goes into one."""
    for parent in path.parents:
        if parent.name.lower().endswith(".zip") and parent.is_file():
            return parent, path.relative_to(parent).as_posix()
    return path, "*"


def _members(path: Path, pattern: str, where: str) -> list[Part]:
    """Return the tables in a zip archive."""
    with refusals(where), zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if not name.startswith("__MACOSX/"))
    kinds = (*(kind for kind in TEXT_FILES if not kind.endswith(".gz")), *PARQUET_FILES)
    tables = [name for name in names if name.lower().endswith(kinds)]
    found = [name for name in tables if name == pattern or fnmatch.fnmatch(name, pattern)]
    if not found:
        raise DataError(
            f"{where}: {path.name} holds no table"
            + (f" '{pattern}'; it has {', '.join(tables[:10])}" if tables else " (CSV or Parquet)")
        )
    return [Part(path, name) for name in found]


@contextlib.contextmanager
def refusals(where: str, dialect: Dialect | None = None) -> Iterator[None]:
    """Turn what goes wrong while a file is read into one sentence.

    Raises:
        DataError: names the site, the file, and the way out.
    """
    encoding = (dialect or Dialect()).encoding.removesuffix("-sig")
    try:
        yield
    except FileNotFoundError:
        raise DataError(
            f"{where} does not exist; relative paths start from data.path, or else from the "
            f"folder you are in ({Path.cwd()})"
        ) from None
    except pa.ArrowException as error:
        raise DataError(
            f"{where} is not a readable Parquet file: {one_line(error)}; export it again"
        ) from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{where} is empty; bring a file with a header and data") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, csv.Error) as error:
        detail = one_line(error)
        if "Length of header" in detail:
            detail = "rows have more fields than the header"
        raise DataError(
            f"{where} is not a proper table: {detail}; if another separator than a comma stands "
            "between its fields, set sep: ';', if lines stand above its header, set skip_rows: 2"
        ) from None
    except UnicodeError:
        raise DataError(
            f"{where} is not text in {encoding}; set encoding (for example cp1252 or utf-16) in "
            "the site yaml"
        ) from None
    except (EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{where} is damaged: {one_line(error)}; export it again") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{where} cannot be read: {reason}; check the file's permissions") from None


def header(part: Part, dialect: Dialect) -> list[str]:
    """Return a table's column names as they stand in the file.

    Raises:
        DataError: the line is longer than any header.
    """
    if not part.parquet:
        with part.open() as file, file.open("rb") if isinstance(file, Path) else file as stream:
            for _ in range(dialect.skip_rows + 1):
                line = stream.readline(HEADER)
        if len(line) == HEADER and b"\r" not in line:  # pandas would work on it for hours
            raise DataError(
                f"{part.name}: the line that should name its columns has over {HEADER:,} "
                "characters; bring a file with only the columns of sensors"
            )
    with part.open() as file:
        if part.parquet:
            import pyarrow.parquet as pq

            return list(pq.read_schema(file).names)
        first = pd.read_csv(
            file, header=None, nrows=1, dtype=str, index_col=False, keep_default_na=False,
            skiprows=dialect.skip_rows, **_form(part, dialect),
        )  # fmt: skip
        return [str(name) for name in first.iloc[0].tolist()]


def rows(
    part: Part, found: Sequence[str], wanted: Sequence[str], as_text: set[str], dialect: Dialect
) -> pd.DataFrame:
    """Read columns of a table.

    Args:
        part: the table.
        found: its header, as ``header`` returned it.
        wanted: names of columns, without blanks around them.
        as_text: those that stay text even if they look like numbers.
        dialect: how text is written.

    Returns:
        ``wanted`` in this order; the index counts rows from 0, or lines below the header.
    """
    place = {name.strip(): name for name in found}
    chosen = [place[name] for name in wanted]
    with part.open() as file:
        if part.parquet:
            frame = _parquet(file, chosen)
        else:
            text = {place[name] for name in wanted if name in as_text}
            frame = _text(file, part, chosen, text, dialect).dropna(how="all")
    return frame.set_axis(list(wanted), axis="columns")


def _text(
    file: Path | IO[bytes], part: Part, wanted: list[str], as_text: set[str], dialect: Dialect
) -> pd.DataFrame:
    blank = pd.errors.ParserError("blank lines stand above its header")
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            frame: pd.DataFrame = pd.read_csv(
                file,
                dtype=dict.fromkeys(as_text, str),
                keep_default_na=False,
                na_values={
                    name: [""] if name in as_text else _no_reading(dialect) for name in wanted
                },
                index_col=False,  # a surplus field is an error, not an index
                low_memory=False,
                skip_blank_lines=False,  # so that the index tells the line
                decimal=dialect.decimal,
                skiprows=dialect.skip_rows,
                **_form(part, dialect),
            )
        except pd.errors.EmptyDataError:  # there is a header, so it is further down
            raise blank from None
    if not set(wanted) <= set(frame.columns):
        raise blank
    return frame[wanted]


def _form(part: Part, dialect: Dialect) -> dict[str, Any]:
    return {
        "sep": dialect.sep or ("\t" if ".tsv" in part.name.lower() else ","),
        "encoding": dialect.encoding,
        "skipinitialspace": True,
        "quotechar": '"',
    }


def _no_reading(dialect: Dialect) -> list[str]:
    return [*MISSING, *(word for word in dialect.missing if isinstance(word, str))]


def _parquet(file: Path | IO[bytes], wanted: list[str]) -> pd.DataFrame:
    import pyarrow.parquet as pq

    # Metadata would turn columns that once were an index back into one.
    frame: pd.DataFrame = pq.read_table(file, columns=wanted).to_pandas(ignore_metadata=True)
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.CategoricalDtype):
            frame[name] = frame[name].astype(object)
        elif any(isinstance(value, datetime.date) for value in frame[name].dropna().head(1)):
            frame[name] = pd.to_datetime(frame[name])
    return frame


def require_separator(names: Iterable[str], found: list[str], where: str, dialect: Dialect) -> None:
    """Refuse a header of one column that would be several with another separator."""
    if len(found) > 1 or set(names) & set(found):
        return
    for other, spelled in ((";", ";"), ("\t", "\\t"), ("|", "|"), (",", ",")):
        if other != dialect.sep and other in found[0]:
            decimal = " (and decimal: ',' if its numbers have decimal commas)"
            raise DataError(
                f"{where} is not separated by '{dialect.sep or ','}': its header is {found[0]!r}; "
                f'set sep: "{spelled}"{decimal if other == ";" else ""} in the site yaml'
            )


def one_line(error: BaseException) -> str:
    """Return an error's text without line breaks."""
    text = " ".join(str(error).split())
    return text.removeprefix("Error tokenizing data. C error: ")

"""The published files by name, size in rows and checksum, and how a file is read safely."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpdm.errors import ConfigError, DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownFile:
    """One published file: its place below the data folder, its rows, its sum."""

    path: str
    rows: int
    sha256: str

    @property
    def header(self) -> int:
        """Lines before the first row."""
        return int(self.path.endswith(".csv"))

    @property
    def name(self) -> str:
        """Its file name."""
        return self.path.rpartition("/")[2]


AI4I = KnownFile(
    "ai4i2020/ai4i2020.csv",
    10_000,
    "dc6630cd9b1f0f853922fad78a1b6436570d3f1ec863f1dd5c4340ac56bc8a8e",
)
CMAPSS = tuple(
    KnownFile(f"cmapss/{name}.txt", rows, digest)
    for name, rows, digest in (
        ("train_FD001", 20_631, "963b5e22825b34d8b21c69e1aeb4af3e647050eb672ee8834ba4b5d91d2de0f8"),
        ("test_FD001", 13_096, "3cda7109ce17bafb5443f2ac926cfcf88154b941b8c4cf95eb55d1ddd6f52851"),
        ("RUL_FD001", 100, "a19c8ec94931949d0485bdc35118206e9c81c4547b422efb9cf86f4ceddbceca"),
        ("train_FD002", 53_759, "dac6c4dbc4e7c1bdeb5747da3d313d05c395bb99801b44a002b26a2ba13d788f"),
        ("test_FD002", 33_991, "de7b5bf7e998a985c378488480528b7c02cff1406a46740def362dda8d9b4e02"),
        ("RUL_FD002", 259, "c851dd96a6ea6998d3c4a8f834d3c8013aa90e93a6ed950dc826ad0655b2906b"),
        ("train_FD003", 24_720, "2abbe9968cc5e8eb091980f51b20f62bb4127336d3482cb52071d53bf23329e2"),
        ("test_FD003", 16_596, "299babd63c8d987cef079c4a425429f33b3a34797d803bbe2ad48c29dbd0d790"),
        ("RUL_FD003", 100, "df1e0566306b174a2de41c67a3e7a51877889598b78643fc3e5685259091b7cb"),
        ("train_FD004", 61_249, "27ef6160b6a1dcb2613a88de9c239f763b223f02cdc41dc5cdedc5dc189b6218"),
        ("test_FD004", 41_214, "1dc675fff0624bac10786927c6715b37d1297657137400d2b1a3138d777a3ba5"),
        ("RUL_FD004", 248, "196b836b85a95ac7fdbbf29c5fdf1657382eafa445644d114ffaaf50dc2975e1"),
    )
)
KNOWN: dict[str, tuple[KnownFile, ...]] = {"ai4i": (AI4I,), "cmapss": CMAPSS}


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_known(path: Path, known: KnownFile, encoding: str = "ascii") -> tuple[str, bool]:
    """Return a file's text, and whether it is byte for byte the published one.

    Raises:
        DataError: it cannot be read, is empty, or is no text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check its permissions") from None
    if not content.strip():
        raise DataError(f"{path} is empty: fetch it again with python -m fedpdm.data fetch")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not a text file (byte {error.start} is not {encoding}): is it still packed?"
        ) from None
    return text, hashlib.sha256(content).hexdigest() == known.sha256


def warn_altered(path: Path) -> None:
    """Say in the log that a file's values are not the published ones."""
    log.warning(
        "%s is not the published file: its values differ, so results cannot be compared "
        "with published ones",
        path,
    )


def require_rows(path: Path, rows: int, known: KnownFile) -> None:
    """Raise DataError unless ``rows`` is the published number of rows."""
    if rows != known.rows:
        raise DataError(
            f"{path} has {rows:,} rows, but the published {known.name} has {known.rows:,}: the "
            "copy is cut off or altered; fetch it again with python -m fedpdm.data fetch"
        )


def numbers(texts: Sequence[str], path: Path, column: str, first_line: int) -> list[float]:
    """Return a column as finite numbers.

    Args:
        texts: the column's cells.
        path: for the message.
        column: for the message.
        first_line: the line of the file that ``texts[0]`` is on.

    Raises:
        DataError: a cell is not a finite number; the message names file, column and line.
    """
    try:
        values = [float(text) for text in texts]
    except ValueError:
        values = []
    if values and all(map(math.isfinite, values)):
        return values
    for line, text in enumerate(texts, start=first_line):
        if not is_number(text):
            raise not_a_number(path, column, line, text)
    return values


def is_number(text: str) -> bool:
    """Return whether ``text`` is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def not_a_number(path: Path, column: str, line: int, text: str) -> DataError:
    """Return the error for a cell that should be a number."""
    return DataError(
        f"{path}, line {line}: column '{column}' holds {text!r}, which is not a number; "
        "mend the line or fetch the file again with python -m fedpdm.data fetch"
    )


def require_positive(key: str, value: object) -> int:
    """Return an option's value as an integer of at least 1, or raise ConfigError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{key}={value} must be a whole number of at least 1")
    return value

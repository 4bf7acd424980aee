"""The published data sets' files: names, sizes, checksums, and reading them safely."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedpdm.data.rows import Floats
from fedpdm.data.sources.tables import Table
from fedpdm.errors import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownFile:
    """One published file: its place below the data folder, its rows, its sum."""

    path: str
    rows: int
    sha256: str

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


def data_folder(path: str | os.PathLike[str] | None = None) -> Path:
    """Return ``path``, else the environment's ``FEDPDM_DATA``, else ``~/.cache/fedpdm``.

    Below it lie ``ai4i2020/ai4i2020.csv`` and ``cmapss/train_FD001.txt`` and so on.
    """
    chosen = path or os.environ.get("FEDPDM_DATA") or Path("~/.cache/fedpdm")
    return Path(chosen).expanduser()


def find(path: str | os.PathLike[str] | None, relative: str, dataset: str) -> Path:
    """Return the file ``relative`` of ``dataset`` below the data folder.

    A ``path`` that leads straight to the file, or to the folder it lies in, is taken too.

    Raises:
        DataError: it is not there; the message says how to fetch it.
    """
    folder = data_folder(path)
    wanted = folder / relative
    for candidate in (wanted, folder / wanted.name, folder):
        if candidate.is_file() and candidate.name == wanted.name:
            return candidate
    raise DataError(
        f"data={dataset}: {wanted} is not there; fetch it with "
        f"'python -m fedpdm.data fetch {dataset} --out {folder}', or set data.path (or the "
        f"environment's FEDPDM_DATA) to the folder that holds {relative}"
    )


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


def finite(table: Table, column: str) -> Floats:
    """Return a column of a published file as (R,) finite numbers.

    Raises:
        DataError: a cell is not a finite number; the message names file, column and line.
    """
    values = table.numbers(column)
    table.refuse(column, np.isnan(values), "holds {value}, which is not a number,")
    return values

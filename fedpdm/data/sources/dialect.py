"""How a site's file is written: separators, numbers, times, and marks of a missing reading."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedpdm.errors import ConfigError

UNIX = {"unix": 1.0, "unix_ms": 1e-3, "unix_us": 1e-6, "unix_ns": 1e-9}
"""Time formats that are numbers: seconds in one."""
DIALECT_KEYS = (
    "sep", "decimal", "thousands", "encoding", "skip_rows", "missing", "time_format", "time_zone",
)  # fmt: skip
MISSING = [
    "", "NA", "N/A", "n/a", "NaN", "nan", "NaT", "NULL", "null", "None", "none", "<NA>", "#N/A"
]  # fmt: skip
"""Cells that hold no reading, in every file."""


@dataclass(frozen=True)
class Dialect:
    """How a file is written. All but ``missing`` and the times concern text files only.

    Attributes:
        sep: separator; None means a comma (a tab in a .tsv).
        decimal: decimal mark.
        encoding: of the text.
        time_format: ``strftime`` codes of the times, or a key of ``UNIX``; None: ISO 8601 or
            numbers.
        thousands: mark between groups of three digits; None: there is none.
        time_zone: of times without an offset, for example ``Europe/Warsaw``; None: UTC.
        missing: cells that hold no reading, beside ``MISSING``.
        skip_rows: lines above the header.
    """

    sep: str | None = None
    decimal: str = "."
    encoding: str = "utf-8-sig"
    time_format: str | None = None
    thousands: str | None = None
    time_zone: str | None = None
    missing: tuple[str | float, ...] = ()
    skip_rows: int = 0

    @property
    def times_are_text(self) -> bool:
        """Whether times must be read as text: 01022024 is a date, not a number."""
        return self.time_format is not None and self.time_format not in UNIX

    @property
    def no_reading(self) -> set[str]:
        """Cells of text that hold no reading."""
        return {*MISSING, *(word for word in self.missing if isinstance(word, str))}


def dialect_of(where: str, settings: Mapping[str, Any], default: Dialect) -> Dialect:
    """Return how a file is written.

    Args:
        where: the yaml's block, for messages.
        settings: the block.
        default: says what ``settings`` leave open.

    Raises:
        ConfigError: a value that cannot be; the message names the key.
    """
    given = {key: settings.get(key, getattr(default, key)) for key in DIALECT_KEYS}
    decimal, thousands, sep = str(given["decimal"]), given["thousands"], given["sep"]
    if decimal not in (".", ","):
        raise ConfigError(f"{where}.decimal={decimal!r} must be '.' or ','")
    if thousands is not None and (thousands not in (",", ".", " ", "'") or thousands == decimal):
        raise ConfigError(
            f"{where}.thousands={thousands!r} must be ',', '.', ' ' or \"'\", and not the decimal "
            "mark"
        )
    if sep is not None and (not isinstance(sep, str) or len(sep) != 1):
        raise ConfigError(f"{where}.sep={sep!r} must be one character, for example ';' or \"\\t\"")
    encoding = str(given["encoding"])
    try:
        "".encode(encoding)
    except (LookupError, ValueError):
        raise ConfigError(
            f"{where}.encoding={encoding} is not known; try utf-8 or cp1252"
        ) from None
    time_format, time_zone = given["time_format"], given["time_zone"]
    if time_format is not None and not isinstance(time_format, str):
        raise ConfigError(
            f"{where}.time_format={time_format!r} must be text, as '%d.%m.%Y %H:%M' or unix_ms"
        )
    if time_zone is not None:
        try:
            zoneinfo.ZoneInfo(str(time_zone))
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise ConfigError(
                f"{where}.time_zone={time_zone} is not known; name one as Europe/Warsaw or UTC"
            ) from None
    skip = given["skip_rows"]
    if isinstance(skip, bool) or not isinstance(skip, int) or not 0 <= skip <= 1000:
        raise ConfigError(f"{where}.skip_rows={skip!r} must be a number of lines, 0 to 1000")
    missing = given["missing"]
    missing = list(missing) if isinstance(missing, (list, tuple)) else [missing]
    if any(isinstance(m, bool) or not isinstance(m, (str, int, float)) for m in missing):
        raise ConfigError(f"{where}.missing={missing!r} must list cells, as [-9999, '-']")
    return Dialect(
        sep, decimal, encoding, time_format, thousands,
        None if time_zone is None else str(time_zone),
        tuple(m.strip() if isinstance(m, str) else float(m) for m in missing), skip,
    )  # fmt: skip

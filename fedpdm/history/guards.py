"""What is looked at before a history that others may have made is used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fedpdm.errors import HistoryError
from fedpdm.storage import parse_json

SEVERAL = bytes.fromhex("d9d505f920a163d7")
"""The end of a journal that belongs to several databases."""
MISTYPED = " UNION ALL ".join(
    f"SELECT 1 FROM {table} WHERE typeof({column}) NOT IN ('integer', 'null')"
    for table, columns in {
        "(SELECT value FROM setting WHERE name != 'seal' AND name NOT LIKE 'file:%')": "value",
        "round": "number attempt live stored undone_by", "repeated": "round attempt",
        "client_state": "first last undone_by", "exclusion": "round", "protection": "head round",
    }.items() for column in columns.split()
)  # fmt: skip
"""Finds values of another type than a run writes: SQLite holds any."""

TROUBLE = {
    ("SQLITE_READONLY_ROLLBACK",): "was being written when its run was cut off: resume={folder} "
    "puts it right",
    ("SQLITE_FULL", "SQLITE_IOERR"): "cannot be written ({error}): free space in {folder}; "
    "finished rounds are safe",
    ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM"): "cannot be opened for this ({error}): "
    "change the permissions of {folder} and what is in it",
    ("SQLITE_BUSY", "SQLITE_LOCKED"): "is in use by another program; try again",
}
"""What went wrong, by the beginnings of SQLite's error names. All else is damage."""


def damaged(path: Path, reason: object) -> HistoryError:
    """Return the error of an index that is not as a run wrote it."""
    return HistoryError(
        f"{path} is damaged ({reason}): put it back from a copy, or start a new run"
    )


def refuse_other_files(path: Path) -> None:
    """Refuse files by which SQLite would read or delete others than the index itself.

    A journal of several databases names one that SQLite deletes when it has been rolled
    back; a run has one database (sqlite.org/fileformat2.html, "The Rollback Journal").

    Args:
        path: of the index.

    Raises:
        HistoryError: there is such a journal, or the index is written ahead.
    """
    with path.open("rb") as file:
        in_rollback_mode = file.read(20)[18:] in (b"", b"\1\1")
    journal, end = path.with_name(f"{path.name}-journal"), b""
    if journal.is_file() and journal.stat().st_size >= len(SEVERAL):
        with journal.open("rb") as file:
            file.seek(-len(SEVERAL), os.SEEK_END)
            end = file.read()
    if not in_rollback_mode or end == SEVERAL:
        raise damaged(path, "its journal is not one that a run writes")


def parsed(text: object, kind: Any, path: Path) -> dict[str, Any]:
    """Return a record or an event, checked.

    Args:
        text: JSON, if the index is what it should be.
        kind: what it must be, as pydantic checks it.
        path: of the index.

    Raises:
        HistoryError: it is none.
    """
    value = parse_json(text.encode() if isinstance(text, str) else b"", path)
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part)[:60] for part in first["loc"]) or "a record"
        raise damaged(path, f"{place}: {first['msg']}") from None
    return dict(value)

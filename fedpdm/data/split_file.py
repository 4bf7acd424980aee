"""Split files: which plant got which rows for what, written by every run and used again.

``split.csv.gz`` has one line for each run of rows of one plant, machine, life and split::

    plant,machine,life,condition,first,last,split,rows
    plant-01,train-007,0,,1.0,259.0,train,259

``first`` and ``last`` are times. ``condition`` is set where plants share machines by operating
condition: then only the rows of that condition are meant. Ozdemir et al. (PHME 2026): partition
and split alone change federated results, so a result without its split file cannot be repeated.
Of generated plants by the thousand only those are written that a run looks at.
"""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedpdm.data.rows import Rows, Split
from fedpdm.data.source import Source
from fedpdm.errors import DataError

NAME = "split.csv.gz"
COLUMNS = ("plant", "machine", "life", "condition", "first", "last", "split", "rows")
SPLITS = {split.name.lower(): split for split in Split}


@dataclass(frozen=True)
class SplitFile:
    """The content of a split file.

    Attributes:
        text: the lines, header first.
        plants: how many plants are in it.
    """

    text: str
    plants: int

    def write(self, folder: Path) -> dict[str, Any]:
        """Write it to a run folder; return what the manifest says of it.

        The same split gives the same bytes: no time stamp is in them. ``content_sha256`` is of
        the lines, and does not hang on the version of the compressor.
        """
        packed = gzip.compress(self.text.encode(), mtime=0)
        (folder / NAME).write_bytes(packed)
        return {
            "file": NAME,
            "sha256": hashlib.sha256(packed).hexdigest(),
            "content_sha256": hashlib.sha256(self.text.encode()).hexdigest(),
            "plants": self.plants,
        }


@dataclass(frozen=True)
class Part:
    """One line of a split file."""

    machine: str
    life: int
    condition: int | None
    first: float
    last: float
    split: Split
    rows: int


def split_file(source: Source, names: Iterable[str], rows: Callable[[str], Rows]) -> SplitFile:
    """Return the split of the plants ``names``; ``rows`` gives a plant's rows."""
    lines = [",".join(COLUMNS)]
    count = 0
    for count, name in enumerate(names, start=1):  # noqa: B007
        lines += _lines(name, rows(name), source.shares_machines)
    return SplitFile("\n".join(lines) + "\n", count)


def _lines(site: str, rows: Rows, shared: bool) -> list[str]:
    if len(rows) == 0:
        return []
    first = np.flatnonzero(np.r_[True, (rows.machine[1:] != rows.machine[:-1])
                                 | (rows.life[1:] != rows.life[:-1])
                                 | (rows.split[1:] != rows.split[:-1])])  # fmt: skip
    count = np.diff(np.r_[first, len(rows)])
    one = shared and len(np.unique(rows.condition)) == 1
    condition = str(rows.condition[0]) if one else ""
    quoted = _quoted(site)
    return [
        f"{quoted},{_quoted(machine)},{life},{condition},{begin!r},{end!r},{split},{number}"
        for machine, life, begin, end, split, number in zip(
            rows.machine[first].tolist(),
            rows.life[first].tolist(),
            rows.time[first].tolist(),
            rows.time[first + count - 1].tolist(),
            [Split(int(s)).name.lower() for s in rows.split[first]],
            count.tolist(),
            strict=True,
        )
    ]


def _quoted(text: str) -> str:
    return f'"{text.replace(chr(34), chr(34) * 2)}"' if set(text) & set(',"\n\r') else text


def read_split_file(path: str | Path) -> dict[str, list[Part]]:
    """Return the parts of each plant, in the order of the file.

    Args:
        path: a split file, packed or not, or a run folder that holds one.

    Raises:
        DataError: it is not there, or a line is not of this format.
    """
    import csv

    place = Path(path).expanduser()
    place = place / NAME if place.is_dir() else place
    try:
        content = place.read_bytes()
        text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode()
    except OSError as error:
        raise DataError(
            f"split={path}: {place} cannot be read ({error.strerror or error}); give the "
            f"{NAME} of a run, or its folder"
        ) from None
    except (EOFError, UnicodeDecodeError, ValueError):
        raise DataError(f"split={path}: {place} is damaged; take another run's {NAME}") from None
    lines = csv.reader(io.StringIO(text, newline=""))
    if tuple(next(lines, ())) != COLUMNS:
        raise DataError(f"split={path}: {place} must begin with the line {','.join(COLUMNS)}")
    plants: dict[str, list[Part]] = {}
    for number, cells in enumerate(lines, start=2):
        try:
            site, machine, life, condition, first, last, split, count = cells
            part = Part(
                machine, int(life), int(condition) if condition else None,
                float(first), float(last), SPLITS[split], int(count),
            )  # fmt: skip
        except (ValueError, KeyError):
            raise DataError(
                f"split={path}: {place}, line {number} is not a part of a split: {','.join(cells)}"
            ) from None
        plants.setdefault(site, []).append(part)
    return plants

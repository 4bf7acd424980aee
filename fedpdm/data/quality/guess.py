"""Guesses how an unknown file is written and what its columns are."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedpdm.data.quality.sensors import DISTINCT, sentinels
from fedpdm.data.rows import Floats
from fedpdm.data.sources.dialect import MISSING, Dialect
from fedpdm.data.sources.readers import Part, header, parts_of, refusals, rows
from fedpdm.data.sources.times import are_written_dates, carry_offset, unix_scale
from fedpdm.errors import DataError

SAMPLE = 1 << 24  # bytes by which encoding and separator are told
LINES = 200_000  # rows that are looked at
SNIFFED = 1 << 18  # bytes by which an encoding that is not UTF-8 is told
UNLIKELY = set("\ufffd‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ\xa0¡¢£¤¥¦§¨©ª«¬\xad®¯´¶¸¹º»¼½¾¿×÷")
"""What cp1252 makes of most letters that other encodings mean by the same bytes."""
ODD_ENCODING = "do the letters beyond ASCII read as they should?"
SENSORS = 500  # names in a column, of which each is a sensor
LONGEST_LINE = 120_000  # characters of a line by which the separator is told
COLUMNS = 5_000  # that are looked at; a site's model has some ten
NAMED = {
    "time": r"time|date|stamp|zeit|datum|fecha|heure|cycle|hour|beginn?$|start|when|^ts$",
    "machine": r"machine|asset|unit|device|equip|turbine|pump|engine|serial|maschine|anlage"
    r"|(^|_)id$",
    "label": r"fail|fault|label|anomal|target|broken|defect|alarm|breakdown",
    "variable": r"tag|variable|sensor|signal|param|measur|channel|quantity|metric|point",
    "end": r"end|until|finish|resol|repaired|\bbis\b",
}
"""What columns of a role are often called."""
DATES = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d",
         "%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d-%b-%Y", "%d %b %Y",
         "%d-%b-%y", "%Y%m%d")  # fmt: skip
CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M:%S %p", " %I:%M %p", "T%H:%M:%S")


@dataclass
class Guess:
    """What a file seems to be.

    Attributes:
        path: as the user named it.
        keys: of the yaml that say how it is written.
        frame: its cells as text; none is empty but by ``""``.
        numbers: columns that hold numbers, as (R,) with NaN where none stands.
        time: its column.
        machine: its column; None: there is one machine a file.
        end: column with a second time, in a log.
        long: columns with a sensor's name and its reading, where a row holds one reading.
        doubts: by key of the yaml, what the user should make sure of.
    """

    path: str
    keys: dict[str, Any]
    frame: pd.DataFrame
    numbers: dict[str, Floats] = field(default_factory=dict)
    time: str = ""
    machine: str | None = None
    end: str | None = None
    long: tuple[str, str] | None = None
    doubts: dict[str, str] = field(default_factory=dict)

    def called(self, column: str, role: str) -> bool:
        """Return whether a column is called as those of a role often are."""
        return re.search(NAMED[role], column, re.IGNORECASE) is not None

    @property
    def zoned(self) -> bool:
        """Whether its times state their zone."""
        written = self.keys.get("time_format") is None and self.time not in self.numbers
        return written and bool(carry_offset(self.frame[self.time]).all())

    @property
    def is_log(self) -> bool:
        """Whether it holds events: nothing in it is measured, but numbers of the rows."""
        sensors = [n for n in self.numbers if n not in (self.time, self.machine, self.end)]
        return not any(_measured(self.numbers[name]) for name in sensors)


def guess(path: str) -> Guess:
    """Return what a file, a pattern of files, or a table in an archive seems to be.

    Raises:
        DataError: it cannot be read, or has no header or no column of times.
    """
    part = parts_of([Path(path)], path)[0]
    with refusals(part.name):
        keys = {} if part.parquet else _written(part)
    dialect = Dialect(
        sep=keys.get("sep"), encoding=keys.get("encoding", "utf-8-sig"),
        skip_rows=keys.get("skip_rows", 0),
    )  # fmt: skip
    with refusals(part.name, dialect):
        found = header(part, dialect)
        names = [name.strip() for name in found]
        words = names[0].split() if len(names) == 1 else names  # blanks between numbers, too
        if len(set(names)) < len(names) or pd.to_numeric(pd.Series(words), "coerce").notna().all():
            raise DataError(
                f"{path}: the first line must name the columns, each once; add a header"
            )
        if len(names) > COLUMNS:
            raise DataError(f"{path} has {len(names):,} columns; describe looks at {COLUMNS:,}")
        frame = rows(part, found, names, set(names), dialect).head(LINES)
    text = frame.astype(object).where(frame.notna(), "").astype(str)
    doubts = {"encoding": ODD_ENCODING} if keys.get("encoding", "utf-16")[:3] != "utf" else {}
    cells = text.apply(lambda column: column.str.strip()).reset_index(drop=True)
    made = Guess(path, keys, cells, doubts=doubts)
    if len(made.frame) == 0:  # a log of machines that never failed
        times, ids = ([n for n in names if made.called(n, role)] for role in ("time", "machine"))
        if times and ids:
            made.time, made.machine = times[0], ids[0]
            return made
        raise DataError(f"{path} has a header but no rows; bring a file with data")
    _read_numbers(made)
    _find_time(made)
    _find_machine(made)
    _find_long(made)
    _find_missing(made)
    return made


def _written(part: Part) -> dict[str, Any]:
    """Return encoding, separator and lines above the header of a text file."""
    with part.open() as file, file.open("rb") if isinstance(file, Path) else file as stream:
        raw = stream.read(SAMPLE)
    keys: dict[str, Any] = {}
    if len(raw) == SAMPLE:  # a letter may be cut in two
        raw = raw[: raw.rfind(b"\n") + 1] or raw
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeError:
        keys["encoding"] = _encoding(raw)
        text = raw.decode(keys["encoding"], errors="replace")
    lines = [line[:LONGEST_LINE] for line in text.splitlines()[:500]]
    widths = {sep: [len(cells) for cells in csv.reader(lines, delimiter=sep)] for sep in ",;\t|"}
    usual = {sep: Counter(w for w in widths[sep] if w).most_common(1) for sep in widths}
    sep = max(usual, key=lambda s: (usual[s][0][0] > 1, usual[s][0][1], usual[s][0][0])
              if usual[s] else (False, 0, 0))  # fmt: skip
    if sep != ("\t" if ".tsv" in part.name.lower() else ","):
        keys["sep"] = sep
    if usual[sep] and (above := widths[sep].index(usual[sep][0][0])):
        keys["skip_rows"] = above
    return keys


def _encoding(raw: bytes) -> str:
    """Return the likeliest encoding of text that is not UTF-8.

    Statistics of letters mislead where a file is numbers and a header: most machines in the
    west write cp1252, so it is taken unless a byte has no meaning there, or most of its
    characters beyond ASCII are marks that no header has.
    """
    import charset_normalizer

    raw = raw[:SNIFFED]
    beyond = np.frombuffer(raw, np.uint8) > 127
    strange = sum(char in UNLIKELY for char in raw.decode("cp1252", errors="replace"))
    in_rows = int((beyond[1:] & beyond[:-1]).sum())  # words of letters beyond ASCII only
    if b"\0" not in raw and max(strange, in_rows) <= 0.3 * beyond.sum():
        return "cp1252"
    best = charset_normalizer.from_bytes(raw).best()
    return "cp1252" if best is None else best.encoding.replace("_", "-")


def _read_numbers(made: Guess) -> None:
    """Find the columns of numbers, the decimal mark, and the words that hold no reading."""
    cells = pd.Series(pd.unique(made.frame.to_numpy().ravel()))
    fits = {
        name: int(cells.str.fullmatch(pattern).sum())
        for name, pattern in {
            "point": r"[-+]?\d*\.\d+", "comma": r"[-+]?\d*,\d+", "three": r"[-+]?\d{1,3}(,\d{3})+",
            "both": r"[-+]?\d{1,3}(,\d{3})+\.\d+", "german": r"[-+]?\d{1,3}(\.\d{3})+,\d+",
        }.items()
    }  # fmt: skip
    if fits["german"] or (fits["comma"] > fits["three"] and fits["comma"] > fits["point"]):
        made.keys["decimal"] = ","
        if fits["german"]:
            made.keys["thousands"] = "."
    elif fits["both"] or fits["three"]:
        made.keys["thousands"] = ","
        if not fits["both"]:
            made.doubts["thousands"] = "or are these decimal commas? then decimal: ','"
    words: Counter[str] = Counter()
    for name in made.frame:
        text = made.frame[name]
        for old, new in ((made.keys.get("thousands"), ""), (made.keys.get("decimal"), ".")):
            text = text.str.replace(old, new, regex=False) if old else text
        values = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64)
        values = np.where(np.isinf(values), np.nan, values)
        there = ~text.isin(MISSING).to_numpy()
        strange = made.frame[name][there & np.isnan(values)]
        if there.any() and len(strange) <= 0.2 * there.sum() and strange.nunique() <= 3:
            made.numbers[str(name)] = values
            words.update(strange.tolist())
    if words:
        made.keys["missing"] = list(words)
        made.doubts["missing"] = "are these cells without a reading?"


def _find_time(made: Guess) -> None:
    """Find the column of times and its format; in a log, the column of a second time."""
    found: list[tuple[int, int, str, str | None]] = []
    for place, column in enumerate(map(str, made.frame)):
        named = made.called(column, "time")
        if column in made.numbers:
            values = made.numbers[column]
            values = values[~np.isnan(values)]
            scale = unix_scale(values, "days")
            if scale is not None:
                found.append((1, place, column, scale[1]))
            elif are_written_dates(values):
                found.append((1, place, column, "%Y%m%d"))
            elif named and len(values) == len(made.frame):
                found.append((3, place, column, None))
            continue
        cells = made.frame[column]
        formats = _formats(cells[~cells.isin(MISSING)])
        if formats:
            found.append((0 if named else 2, place, column, formats[0]))
            if len(formats) > 1:
                made.doubts[f"time {column}"] = f"or {formats[1]}? both can be read"
    if not found:
        raise DataError(
            f"{made.path}: no column holds times that can be read; found: "
            f"{', '.join(map(str, made.frame))}; if one does, write the yaml yourself, with its "
            "time_format; without times there is nothing to predict ahead"
        )
    dates = [one for one in sorted(found) if one[0] < 3]
    _, _, made.time, written = (dates or sorted(found))[0]
    if written is not None:
        made.keys["time_format"] = written
    if not dates:
        made.doubts["time"] = "numbers: in which unit? set data.time_unit"
    if (doubt := made.doubts.pop(f"time {made.time}", None)) is not None:
        made.doubts["time_format"] = doubt
    ends = [one[2] for one in dates if one[2] != made.time and one[3] == written]
    made.end = next((name for name in ends if made.called(name, "end")), None)


def _formats(cells: pd.Series[Any]) -> list[str | None]:
    """Return the time formats that all cells fit, the likeliest first."""
    sample = pd.Series(pd.unique(cells))
    if len(sample) == 0:
        return []
    if pd.to_datetime(sample, format="ISO8601", utc=True, errors="coerce").notna().all():
        return [None]
    spans: dict[str | None, float] = {}
    for date, clock in product(DATES, CLOCKS):
        try:
            datetime.strptime(sample.iloc[0], date + clock)
        except ValueError:
            continue
        times = pd.to_datetime(sample, format=date + clock, errors="coerce")
        if times.notna().all():  # read with day and month exchanged, a record spreads out
            steps = np.abs(np.diff(times.to_numpy("datetime64[s]").astype(np.int64)))
            spans[date + clock] = float(steps.sum())
    return sorted(spans, key=lambda written: spans[written])


def _find_machine(made: Guess) -> None:
    """Find the column that tells machines apart."""
    frame = made.frame
    whole = {n: bool((v[~np.isnan(v)] % 1 == 0).all()) for n, v in made.numbers.items()}
    names = [n for n in map(str, frame) if n not in (made.time, made.end) and whole.get(n, True)]
    apart = [
        n for n in names if not frame.duplicated([n, made.time]).any() and (frame[n] != "").all()
    ]
    several = [n for n in apart if 1 <= frame[n].nunique() <= max(len(frame) / 2, 1)]
    called = [n for n in several if made.called(n, "machine")]
    if called:
        made.machine = called[0]
        made.doubts |= {"machine": f"or {called[1]}?"} if called[1:] else {}
        return
    if not frame.duplicated([made.time]).any():
        loose = [n for n in names if made.called(n, "machine") and frame[n].nunique() < len(frame)]
        made.machine = loose[0] if loose else None
        return
    texts = [n for n in several if n not in made.numbers] or several
    fallback = [n for n in names if made.called(n, "machine")]  # a log may repeat a time
    if texts or fallback:
        made.machine = (texts or fallback)[0]
        made.doubts["machine"] = "a guess: it tells rows of one time apart"


def _find_long(made: Guess) -> None:
    """Find the columns with the names and the readings of sensors, where a row holds one."""
    measured = [n for n in made.numbers if n not in (made.time, made.machine, made.end)]
    if len(measured) != 1:
        return
    frame, words = made.frame, [n for n in map(str, made.frame) if n not in made.numbers]
    if made.machine in words and made.called(str(made.machine), "variable"):
        made.long, made.machine = (str(made.machine), measured[0]), None
    elif made.machine is not None and frame.duplicated([made.machine, made.time]).any():
        keys = [made.machine, made.time]
        for name in columns_without(made, (*keys, made.end, measured[0])):
            if name in words and 2 <= frame[name].nunique() <= SENSORS:
                if (frame[name] != "").all() and not frame.duplicated([*keys, name]).any():
                    made.long = name, measured[0]
                    made.doubts.pop("machine", None)
                    break
    if made.long is not None:
        made.doubts["long"] = "a row holds one reading, this column its sensor's name?"


def _find_missing(made: Guess) -> None:
    """Find numbers that stand for no reading."""
    machine = np.zeros(len(made.frame), dtype=np.str_)
    if made.machine is not None:
        machine = made.frame[made.machine].to_numpy(dtype=np.str_)
    order = np.argsort(machine, kind="stable")
    strange: list[float] = []
    for name, values in made.numbers.items():
        if name not in (made.time, made.machine, made.end):
            strange += sentinels(values[order], machine[order])
    if strange:
        numbers = [int(v) if v == int(v) else v for v in dict.fromkeys(strange)]
        made.keys["missing"] = [*made.keys.get("missing", []), *numbers]
        made.doubts["missing"] = "are these cells without a reading?"


def _measured(values: Floats) -> bool:
    """Return whether numbers look like readings: many values, and not a number for each row."""
    known = values[~np.isnan(values)]
    steps = np.diff(known)
    running = bool((known % 1 == 0).all()) and bool((steps > 0).all() or (steps < 0).all())
    return len(np.unique(known)) >= DISTINCT and not running


def columns_without(made: Guess, roles: Sequence[str | None]) -> list[str]:
    """Return the columns that have none of these roles."""
    return [name for name in map(str, made.frame) if name not in roles]

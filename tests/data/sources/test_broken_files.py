"""Whatever a yaml or a file holds: rows, or one sentence."""

from __future__ import annotations

import copy
import gzip
import os
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedpdm.data.quality.describe import describe
from fedpdm.data.sources import readers
from fedpdm.data.sources.files import FilesSource
from fedpdm.errors import DataError, FedPdmError
from tests.data.sources.own_files import plain

YAML: dict[str, Any] = {
    "path": "rows.csv",
    "machine": "asset",
    "time": "timestamp",
    "features": {
        "T1": {"column": "T1", "unit": "degC"},
        "s": {"column": "s", "values": ["a", "b"]},
    },
    "failures": {"path": "log.csv", "end": "end"},
}
VALUES: list[Any] = [
    None, 0, -1, 1.5, float("nan"), float("inf"), 10**12, "", "x", "ü\u2028", "\0", [], [1],
    ["a", "a"], {}, {"a": 1}, {"path": None}, True, False, "*", "[", "rows.zip/x",
    "/dev/zero", "../", ";", "%Y", "unix", "UTC", "Europe", {"path": "log.csv", "machine": None},
    ["log.csv", "log.csv"], {"asset": ["11M1"]}, -9999,
]  # fmt: skip
KEYS = (
    "where", "machines", "variable", "value", "maintenance", "label", "sep", "decimal", "thousands",
    "missing", "skip_rows", "time_format", "time_zone", "encoding", "kind", "unknown_machines",
    "repair_kinds", "column", "unit", "into", "values",
)  # fmt: skip
PIECES = [
    b"\n",
    b'"',
    b",",
    b";",
    b"\0",
    b"\xff",
    b"inf",
    b"nan",
    b"1e999",
    b"9" * 30,
    b"\r",
    b"\n\n",
]


def changed(block: dict[str, Any], draw: np.random.Generator) -> None:
    """Put something else in the place of a value of a yaml."""
    keys = [*block, *KEYS]
    key = keys[draw.integers(len(keys))]
    if isinstance(block.get(key), dict) and draw.random() < 0.6:
        changed(block[key], draw)
    else:
        block[key] = copy.deepcopy(VALUES[draw.integers(len(VALUES))])


def spoilt(content: bytes, draw: np.random.Generator) -> bytes:
    """Change, add, remove and swap bytes of a file."""
    text = bytearray(content)
    for _ in range(draw.choice([1, 2, 5, 30])):
        at, other = draw.integers(len(text), size=2)
        how = draw.integers(5)
        if how == 0:
            text[at] = draw.integers(256)
        elif how == 1:
            text[at:at] = PIECES[draw.integers(len(PIECES))]
        elif how == 2:
            del text[at : at + draw.choice([1, 3, 50])]
        elif how == 3:
            text = text[: at + 1]
        else:
            text[at], text[other] = text[other], text[at]
        text = text or bytearray(b"x")
    return bytes(text)


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    rows, log = plain(11, machines=4, steps=60)
    rows = rows.assign(s=np.where(rows["T1"] > 62, "a", "b"))
    log = log.assign(end=(log["timestamp"] + pd.Timedelta("2D")).astype(str))
    tables = {"rows.csv": rows, "log.csv": log}
    return {name: table.to_csv(index=False).encode() for name, table in tables.items()}


def survives(folder: Path, contents: dict[str, bytes], seed: int) -> bool:
    """Read a site whose yaml, or one of whose files, was spoilt; return whether it was read."""
    draw, settings = np.random.default_rng(seed), copy.deepcopy(YAML)
    which = seed % 3
    for position, (name, content) in enumerate(contents.items()):
        (folder / name).write_bytes(spoilt(content, draw) if which == position else content)
    if which == 2:
        changed(settings, draw)
    try:
        FilesSource({"acme": settings}, path=str(folder), reach=3.0, window=5).rows("acme")
    except FedPdmError as error:
        assert error.exit_code == 2 and "\n" not in str(error), (seed, str(error))
        assert "acme" in str(error) or "site" in str(error), (seed, str(error))
        return False
    return True


@pytest.mark.parametrize("count", [90, pytest.param(3000, marks=pytest.mark.long)])
def test_any_yaml_and_any_file(tmp_path: Path, contents: dict[str, bytes], count: int) -> None:
    read = [survives(tmp_path, contents, seed) for seed in range(count)]
    assert 0.02 < np.mean(read) < 0.6  # some changes are harmless, most are not


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def device(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


def bomb_gz(path: Path) -> Path:
    packed = gzip.compress(b"0" * (1 << 23))
    path.write_bytes(packed * 8)
    return path


def bomb_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.csv", b"0" * (1 << 26))
    return path


HOSTILE: dict[str, Callable[[Path], Path]] = {
    "pipe.csv": pipe, "pipe.zip": pipe, "device.csv": device, "bomb.csv.gz": bomb_gz,
    "bomb.zip": bomb_zip,
}  # fmt: skip


@pytest.fixture
def ten_seconds() -> Iterator[None]:
    """End a test that waits for a pipe, or reads without end."""

    def over(number: int, frame: object) -> None:
        pytest.fail("it reads and reads")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, 10)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.usefixtures("ten_seconds")
def test_what_never_ends_or_fills_the_memory_is_refused_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "device.csv" and not Path("/dev/zero").exists():
        pytest.skip("no such device here")
    monkeypatch.setattr(readers, "UNPACKED", 1 << 20, raising=False)  # of a small bomb
    path = HOSTILE[name](tmp_path / name)
    site = {"path": str(path), "time": "t", "features": ["x"], "label": "y"}
    for read in (lambda: FilesSource({"a": site}).rows("a"), lambda: describe([str(path)])):
        with pytest.raises(DataError, match=name):
            read()


WIDE = b",".join(b"c%d" % k for k in range(1_000_000))
TABLES = {
    "a large cell": b"t,x\n2024-01-01," + b"1" * 5_000_000 + b"\n",
    "a million columns": WIDE + b"\n" + WIDE + b"\n",
    "an open quote": b't,x\n"' + b"2024-01-01,1\n" * 50_000,
    "no line": b"0" * 5_000_000,
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
@pytest.mark.usefixtures("ten_seconds")
def test_describe_says_what_it_cannot_look_at(table: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{ending}"
    path.write_bytes(gzip.compress(TABLES[table], 1) if ending == "csv.gz" else TABLES[table])
    with pytest.raises(DataError, match=path.name) as raised:
        describe([str(path)])
    assert len(str(raised.value)) < 1000


def test_a_file_that_is_packed_well_is_read(tmp_path: Path) -> None:
    rows, log = plain(11)
    same = pd.concat([rows.assign(T1=61.0, asset=f"{rows['asset'][0]}{k}") for k in range(8)])
    same = same.drop_duplicates(["asset", "timestamp"])
    same.to_csv(tmp_path / "rows.csv.gz", index=False)
    log.assign(asset=same["asset"].iloc[0]).to_csv(tmp_path / "log.csv", index=False)
    block = {
        "path": "rows.csv.gz", "machine": "asset", "time": "timestamp", "features": ["T1"],
        "failures": "log.csv",
    }  # fmt: skip
    assert len(FilesSource({"a": block}, path=str(tmp_path)).rows("a")) == len(same)

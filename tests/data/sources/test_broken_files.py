"""Whatever a yaml or a file holds: rows, or one sentence."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedpdm.data.sources.files import FilesSource
from fedpdm.errors import FedPdmError
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

"""The source's NPZ layout: written and read back, and refused where it is not sound."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpdm.data.__main__ import main
from fedpdm.data.normalise import moments
from fedpdm.data.partition import Natural
from fedpdm.data.partition.at_random import Iid
from fedpdm.data.rows import Split
from fedpdm.data.sources.milling import OPERATIONS, MillingSource
from fedpdm.data.sources.npz import FILES, KEYS, NpzSource, write_npz
from fedpdm.errors import DataError
from fedpdm.federation import Federation
from fedpdm.tasks import Program
from fedpdm.testing import check_data_source

TRAIN = FILES[Split.TRAIN]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = MillingSource(sites={}, shops=2, runs=6, lines=4, window=8, stride=4, channels=1)
    write_npz(source, tmp_path, OPERATIONS)
    return tmp_path


def source(folder: Path, sites: int = 2) -> NpzSource:
    return NpzSource(sites={}, partition=Iid(sites), seed=0, path=str(folder))


def rewrite(folder: Path, name: str = TRAIN, **changed: Any) -> None:
    with np.load(folder / name) as file:
        arrays = {key: file[key] for key in file.files}
    arrays |= changed
    np.savez(folder / name, **{key: value for key, value in arrays.items() if value is not None})


def test_files_have_the_documented_layout(tmp_path: Path) -> None:
    made = MillingSource(sites={}, shops=1, runs=5, lines=2)
    write_npz(made, tmp_path, OPERATIONS)
    for name in FILES.values():
        with np.load(tmp_path / name, allow_pickle=False) as file:
            count = len(file["tokens"])
            shapes = {key: file[key].shape for key in KEYS}
            assert shapes == {
                "continuous": (count, 64, 155), "categorical": (count, 64, 4),
                "tokens": (count, 7), "operation_type": (count,), "lengths": (count,),
            }  # fmt: skip
            assert all(file[key].dtype == kind for key, (_, kind) in KEYS.items())


def test_what_is_written_reads_back_window_by_window(folder: Path) -> None:
    made = MillingSource(sites={}, shops=2, runs=6, lines=4, window=8, stride=4, channels=1)
    written, read = Federation(made, Program()), Federation(source(folder), Program())
    for split in FILES:
        both = []
        for federation in (written, read):
            unscaled = moments(federation.rows(federation.sites[0]), 1).scaler()
            unscaled.mean[:], unscaled.scale[:] = 0.0, 1.0
            sites = [federation.site(name, unscaled) for name in federation.sites]
            parts = [site.windows[split] for site in sites]
            both.append(sorted(
                (machine, x.astype(np.float32).tobytes(), y.tobytes())
                for part in parts
                for machine, x, y in zip(part.machine.tolist(), part.x, part.y, strict=True)
            ))  # fmt: skip
        assert both[0] == both[1] and len(both[0]) > 5


def test_it_keeps_the_contract_of_data_sets(folder: Path) -> None:
    check_data_source(lambda: source(folder))
    assert not source(folder).warnings


def test_padding_is_left_out(folder: Path) -> None:
    with np.load(folder / TRAIN) as file:
        count, wild = len(file["lengths"]), file["continuous"].copy()
    wild[:, 5:] = 1e6
    rewrite(folder, lengths=np.full(count, 5, dtype=np.int64), continuous=wild)
    read = source(folder, 1)
    federation = Federation(read, Program())
    rows = federation.rows(read.sites[0])
    assert rows.values[rows.split == Split.TRAIN].max() < 1e3
    train = federation.site(read.sites[0], federation.moments(read.sites[0]).scaler()).train
    assert len(train) == count and train.padded.all()


def test_without_runs_a_warning_says_what_cannot_be_known(folder: Path) -> None:
    for name in FILES.values():
        rewrite(folder, name, run=None)
    assert "run" in source(folder).warnings[0]


def test_a_run_in_two_files_is_refused(folder: Path) -> None:
    with np.load(folder / TRAIN) as file:
        run = file["run"]
    with np.load(folder / FILES[Split.TEST]) as file:
        other = file["run"].copy()
    other[0] = run[0]
    rewrite(folder, FILES[Split.TEST], run=other)
    with pytest.raises(DataError, match=f"run {run[0]} is in {TRAIN} and in"):
        source(folder)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tokens": None}, "lacks tokens"),
        ({"tokens": np.array([{"a": 1}], dtype=object)}, "cannot be read"),
        ({"continuous": np.zeros((3, 8, 17))}, "float64"),
        ({"lengths": np.zeros((1, 1), dtype=np.int64)}, "dimensions"),
        ({"lengths": np.zeros(1, dtype=np.int64)}, "windows"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    folder: Path, changed: dict[str, Any], said: str
) -> None:
    rewrite(folder, **changed)
    with pytest.raises(DataError, match=f"{TRAIN}.*{said}"):
        source(folder)


def test_values_out_of_range_are_refused(folder: Path) -> None:
    with np.load(folder / TRAIN) as file:
        arrays = {key: file[key] for key in file.files}
    for name, value in (("lengths", 0), ("lengths", 9), ("categorical", -1), ("operation_type", -1),
                        ("continuous", np.nan)):  # fmt: skip
        spoiled = arrays[name].copy()
        spoiled.flat[0] = value
        rewrite(folder, **{name: spoiled})
        with pytest.raises(DataError, match=name):
            source(folder)
        rewrite(folder, **{name: arrays[name]})


def test_files_that_are_none_and_tokens_that_are_no_line_are_refused(folder: Path) -> None:
    vocabulary = json.loads((folder / "vocabulary.json").read_text())
    with np.load(folder / TRAIN) as file:
        tokens = file["tokens"].copy()
    for bad, said in (
        ([vocabulary["SOS"], vocabulary["X"], *[vocabulary["EOS"]] * 5], "begin"),
        ([10**9] * 7, "not in vocabulary"),
    ):
        tokens[0] = bad
        rewrite(folder, tokens=tokens)
        with pytest.raises(DataError, match=said):
            _ = source(folder).whole
    (folder / "vocabulary.json").write_text('{"a": 1, "b": 1}')
    with pytest.raises(DataError, match=r"vocabulary\.json must give"):
        _ = source(folder).whole
    whole = (folder / FILES[Split.TEST]).read_bytes()
    single = io.BytesIO()
    np.save(single, np.zeros(3))
    broken = (b"PK no archive", b"", whole[: len(whole) // 2], single.getvalue(),
              whole[:200] + b"\0" * 50 + whole[250:], pickle.dumps({"tokens": 1}))  # fmt: skip
    for content in broken:
        (folder / TRAIN).write_bytes(content)
        with pytest.raises(DataError, match=TRAIN):
            source(folder)
    (folder / TRAIN).unlink()
    with pytest.raises(DataError, match="does not exist"):
        NpzSource(sites={}, partition=Natural(), seed=0, path=str(folder))


def test_the_command_writes_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["npz", "--out", str(tmp_path / "made"), "data.shops=1", "data.runs=5", "data.lines=3",
             "data.window=8", "data.stride=4", "data.channels=1"]  # fmt: skip
    assert main(words) == 0
    assert "data=npz" in capsys.readouterr().out
    assert len(source(tmp_path / "made", 1).whole) > 0
    before = (tmp_path / "made" / TRAIN).read_bytes()
    assert main(words) == 2 and "exists already" in capsys.readouterr().err
    assert (tmp_path / "made" / TRAIN).read_bytes() == before

"""A run's split can be read, hashed and used again, whatever the seed; other data is refused."""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from fedpdm.config.compose import compose
from fedpdm.config.values import make
from fedpdm.data.partition import (
    ByCondition,
    ByMachine,
    Iid,
    Partition,
    PartitionedSource,
    RepartitionedSource,
)
from fedpdm.data.rows import Rows, Split
from fedpdm.data.sources.base import Source
from fedpdm.data.splits.saved_split import COLUMNS, NAME, SavedSplit, read_split_file, split_file
from fedpdm.errors import ConfigError, DataError, LeakError
from fedpdm.runs.experiment import build
from fedpdm.runs.look import look_at_data
from fedpdm.runs.run import Run
from fedpdm.runs.sources import build_source
from fedpdm.testing.tiny import TinySource
from tests.data.row_examples import any_rows, rows_of


class Own(Source):
    """One site with given rows."""

    name, time_unit, window, stride = "own", "hours", 4, 1

    def __init__(self, rows: Rows, site: str = "site, one") -> None:
        self._rows, self._site, self.features = rows, site, rows.features

    @property
    def sites(self) -> tuple[str, ...]:
        return (self._site,)

    def rows(self, site: str) -> Rows:
        return self._rows


class Dealt(PartitionedSource):
    """Six machines of eight rows in three conditions; the last two are the official test."""

    name, time_unit, window, stride, conditions, test_truncated = "dealt", "h", 4, 1, 3, True

    def __init__(self, partition: Partition, seed: int, sites: Mapping[str, object] = {}) -> None:
        super().__init__(sites, partition, seed)
        self.features = ("feature_0",)

    def rows(self, site: str) -> Rows:
        return self.hold_back(super().rows(site), site, 0.3)

    def read(self) -> Rows:
        names = [name for name in "uvwxyz" for _ in range(8)]
        split = [int(Split.TRAIN)] * 32 + [int(Split.TEST)] * 16
        return rows_of(names, split=split, condition=[k % 3 for k in range(48)])


def written(source: Source, folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    split_file(source, source.sites, source.rows).write(folder)
    return str(folder)


def same(one: Source, other: Source) -> bool:
    return one.sites == other.sites and all(
        one.rows(s).sha256() == other.rows(s).sha256() for s in one.sites
    )


@settings(max_examples=40)
@given(any_rows())
def test_any_sites_split_survives_the_file(rows: Rows) -> None:
    # Times must tell the rows of a machine apart, as in any record.
    rows = replace(rows, time=np.arange(len(rows)) / 7)
    own = Own(rows)

    with tempfile.TemporaryDirectory() as folder:
        changed = Own(replace(rows, split=np.zeros(len(rows), dtype=np.int8)))
        assert same(SavedSplit(changed, written(own, Path(folder))), own)


@pytest.mark.parametrize("partition", [ByMachine(2), Iid(3), ByCondition()], ids=lambda p: type(p).__name__)  # fmt: skip # noqa: E501
def test_a_given_split_holds_whatever_the_seed(partition: Partition, tmp_path: Path) -> None:
    first = Dealt(partition, seed=1)
    path = written(first, tmp_path)
    again = SavedSplit(Dealt(partition, seed=5), path)
    assert same(again, first) and not same(Dealt(partition, seed=5), first)
    before = (tmp_path / NAME).read_bytes()
    written(again, tmp_path)
    assert (tmp_path / NAME).read_bytes() == before, "the same split is the same file"
    assert again.shares_machines == first.shares_machines and again.conditions == 3


def test_lines_are_short_and_say_what_they_mean(tmp_path: Path) -> None:
    path = written(Dealt(ByMachine(1), seed=1), tmp_path)
    lines = gzip.decompress((tmp_path / NAME).read_bytes()).decode().splitlines()
    assert lines[0] == ",".join(COLUMNS) and len(lines) == 7
    assert lines[-1] == "plant-01,z,0,,0.0,7.0,test,8"
    assert list(read_split_file(path)) == ["plant-01"] == list(read_split_file(tmp_path / NAME))
    (tmp_path / "open.csv").write_text("\n".join(lines))
    assert read_split_file(tmp_path / "open.csv") == read_split_file(path)


def test_a_file_from_when_a_site_was_called_a_plant_is_read(tmp_path: Path) -> None:
    now = read_split_file(written(Dealt(ByMachine(1), seed=1), tmp_path))
    assert read_split_file(spoiled(tmp_path, "site,machine", "plant,machine")) == now


def spoiled(tmp_path: Path, old: str, new: str, count: int = 1) -> str:
    path = written(Dealt(ByMachine(1), seed=1), tmp_path)
    text = gzip.decompress((tmp_path / NAME).read_bytes()).decode()
    assert old in text
    (tmp_path / NAME).write_bytes(gzip.compress(text.replace(old, new, count).encode()))
    return path


@pytest.mark.parametrize(
    ("old", "new", "kind", "message"),
    [
        ("plant-01,z,", "plant-01,q,", DataError, r"names machine q at plant-01, which data=dealt"),
        ("7.0,test,8", "7.0,test,9", DataError, r"has 9 rows from 0 to 7 h in the file and 8"),
        ("z,0,,0.0,7.0,test,8", "z,0,,0.0,6.0,test,8", DataError, "8 rows from 0 to 6 .* and 7"),
        ("z,0,,0.0,7.0,test", "z,0,,0.0,7.0,train", LeakError, "machine z .*official test set"),
        ("plant-01,z,", "plant-01,y,", DataError, "machine y .* are in two lines"),
        ("7.0,test,8", "7.0,exam,8", DataError, "line 6 is not a part of a split"),
        ("7.0,test,8", "7.0,test", DataError, "line 6 is not a part of a split"),
        ("site,machine", "room,machine", DataError, "must begin with the line site,machine"),
    ],
)
def test_a_file_that_does_not_fit_the_data_is_refused(
    tmp_path: Path, old: str, new: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        SavedSplit(Dealt(ByMachine(1), 2), spoiled(tmp_path, old, new)).rows("plant-01")


def test_a_file_that_is_not_there_or_cut_off_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split=nowhere: nowhere cannot be read"):
        read_split_file("nowhere")
    path = written(Dealt(ByMachine(1), 1), tmp_path)
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:-9])
    with pytest.raises(DataError, match="is damaged"):
        read_split_file(path)


def test_sites_must_be_those_of_the_file(tmp_path: Path) -> None:
    path = written(Dealt(ByMachine(2), 1), tmp_path)
    with pytest.raises(ConfigError, match=r"the sites plant-01, plant-02, and this run has a, b"):
        SavedSplit(Dealt(ByMachine(), 1, {"a": {}, "b": {}}), path)
    one = Own(rows_of(list("aabb")), "one")
    with pytest.raises(ConfigError, match="has the sites plant-01, plant-02.*run has one"):
        SavedSplit(one, path)


def test_a_file_with_another_number_of_sites_than_the_partition_makes_is_refused(
    tmp_path: Path,
) -> None:
    path = written(Dealt(ByMachine(2), 1), tmp_path)
    says = r"has 2 sites \(plant-01, plant-02\), and partition\.sites=3 asks for 3: leave"
    with pytest.raises(ConfigError, match=says):
        SavedSplit(Dealt(ByMachine(3), 1), path)
    assert SavedSplit(Dealt(ByMachine(), 1), path).sites == ("plant-01", "plant-02")


def test_a_file_that_lacks_some_of_the_dealt_sites_is_refused(tmp_path: Path) -> None:
    def pool(sites: int | None) -> RepartitionedSource:
        return RepartitionedSource(TinySource({"a": {"machines": 8}}), ByMachine(sites), 1, 4.0)

    whole = pool(4)
    split_file(whole, ["plant-02", "plant-04"], whole.rows).write(tmp_path)
    for sites in (None, 4):
        says = r"2 sites \(plant-02, plant-04\) and lacks plant-01, plant-03: the run"
        with pytest.raises(ConfigError, match=says):
            SavedSplit(pool(sites), str(tmp_path))
    split_file(whole, ["plant-01", "plant-02"], whole.rows).write(tmp_path)
    with pytest.raises(ConfigError, match=r"partition\.sites=4 asks for 4"):
        SavedSplit(pool(4), str(tmp_path))
    assert same(SavedSplit(pool(None), written(whole, tmp_path)), whole)


def test_a_site_with_more_rows_than_the_file_is_refused(tmp_path: Path) -> None:
    path = written(Own(rows_of(list("aabb")), "one"), tmp_path)
    longer = Own(rows_of(list("aaabb"), time=[0, 1, 9, 0, 1]), "one")
    with pytest.raises(DataError, match=r"has 4 rows of one, and its data has 5"):
        SavedSplit(longer, path).rows("one")


def test_generated_sites_that_nobody_looked_at_keep_their_own_split(tmp_path: Path) -> None:
    sites = TinySource({name: {} for name in "abc"})
    split_file(sites, ["a"], sites.rows).write(tmp_path)
    again = SavedSplit(TinySource({name: {} for name in "abc"}), str(tmp_path))
    assert same(again, sites)
    assert any("says nothing of 2 sites (b, c)" in warning for warning in again.warnings)


def test_a_given_split_passes_the_same_guards(tmp_path: Path) -> None:
    source = TinySource({"a": {"machines": 8}})
    rows = source.rows("a")
    random = np.random.default_rng(0).choice(3, len(rows)).astype(np.int8)
    source.rows = lambda site: replace(rows, split=random)  # type: ignore[method-assign]
    leaking = SavedSplit(TinySource({"a": {"machines": 8}}), written(source, tmp_path))
    with pytest.raises(LeakError, match="random split"):
        look_at_data(build(compose(["task.horizon=4"]), leaking))


def run(folder: Path, *overrides: str) -> dict[str, Any]:
    cfg = compose([
        "data=fleet", "sites.detroit.machines=5", "sites.houston.machines=5", "data.days=120",
        "rounds=1", "training.local_epochs=1", "baselines.max_plants=0", "engine=serial",
        "site=detroit,houston", *overrides,
    ])  # fmt: skip
    task = make(cfg.task, "task")
    source = build_source(cfg, task, int(cfg.seed))
    return Run(build(cfg, source), cfg, folder).execute()


def test_every_run_writes_its_split_and_its_hash(tmp_path: Path) -> None:
    summary = run(tmp_path / "run")
    stored = json.loads((tmp_path / "run/manifest.json").read_text())["data"]["split"]
    content = (tmp_path / "run" / stored["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == stored["sha256"]
    assert summary["data"]["split_sha256"] == stored["sha256"] and stored["plants"] == 2
    assert hashlib.sha256(gzip.decompress(content)).hexdigest() == stored["content_sha256"]
    again = run(tmp_path / "again", f"split={tmp_path / 'run'}")
    assert again["data"] == summary["data"]


def test_a_run_on_dealt_sites_writes_all_of_them_whoever_is_tested(tmp_path: Path) -> None:
    dealt = ["partition=machine", "partition.sites=4", "evaluate.fraction=0.5", "model=mlp"]
    summary = run(tmp_path / "run", *dealt)
    assert list(read_split_file(tmp_path / "run")) == [f"plant-0{k}" for k in (1, 2, 3, 4)]
    again = run(tmp_path / "again", *dealt, f"split={tmp_path / 'run'}")
    assert again["data"] == summary["data"] and again["sites"] == summary["sites"]
    assert again["test"] == summary["test"]

"""``check_data_source``: every data set passes, and every breach is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedpdm.config.compose import compose
from fedpdm.config.values import make
from fedpdm.data.rows import Rows, Split
from fedpdm.runs.sources import build_source
from fedpdm.testing import check_data_source
from fedpdm.testing.tiny import TinySource

SITES = {"north": {"machines": 3, "rows": 60}, "south": {"machines": 4, "rows": 60}}


def test_the_tiny_source_keeps_the_contract() -> None:
    check_data_source(lambda: TinySource(SITES))


@pytest.mark.parametrize(
    "overrides",
    [
        ["data=fleet", "site=[detroit,houston]"],
        ["data=ai4i"],
        ["data=cmapss", "data.subset=FD001", "task=rul"],
    ],
    ids=lambda words: words[0],
)
def test_every_data_set_keeps_the_contract(overrides: list[str], data_folder: Path) -> None:
    config = compose(overrides)
    task = make(config.task, "task")
    check_data_source(lambda: build_source(config, task, seed=0))


def changed(change: Callable[[Rows], Rows]) -> type[TinySource]:
    class Changed(TinySource):
        def rows(self, site: str) -> Rows:
            return change(super().rows(site))

    return Changed


def backwards(rows: Rows) -> Rows:
    return replace(rows, time=-rows.time)


def scattered(rows: Rows) -> Rows:
    return rows.take(np.argsort(rows.time, kind="stable"))


def swapped_splits(rows: Rows) -> Rows:
    swap = {int(Split.TRAIN): int(Split.TEST), int(Split.TEST): int(Split.TRAIN)}
    return replace(rows, split=np.array([swap.get(s, s) for s in rows.split.tolist()], np.int8))


def half_held_out(rows: Rows) -> Rows:
    split = rows.split.copy()
    split[0] = Split.HELDOUT
    split[1] = Split.TRAIN
    return replace(rows, split=split)


def fresh_noise(rows: Rows) -> Rows:
    return replace(rows, values=rows.values + np.random.default_rng().normal())


def other_features(rows: Rows) -> Rows:
    return replace(rows, features=("a", "b", "d"))


def failed_already(rows: Rows) -> Rows:
    return replace(rows, time_to_failure=rows.time_to_failure - 5)


def same_names(rows: Rows) -> Rows:
    names = [name.split("-")[1] for name in rows.machine.tolist()]
    return replace(rows, machine=np.array(names))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (backwards, "machine south-0: its times do not ascend"),
        (scattered, "sorted by machine"),
        (swapped_splits, "training rows must come before validation rows"),
        (half_held_out, "machine south-0: it is held out and in another split"),
        (fresh_noise, "its rows differ"),
        (other_features, "the features .*the source says"),
        (failed_already, "time_to_failure must be 0"),
        (same_names, "machine 0 is at north and at south"),
    ],
)
def test_every_breach_is_found(change: Callable[[Rows], Rows], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_data_source(lambda: changed(change)(SITES))


def test_sites_are_listed_once() -> None:
    class Doubled(TinySource):
        @property
        def sites(self) -> tuple[str, ...]:
            return (*super().sites, "north")

    with pytest.raises(AssertionError, match="each once"):
        check_data_source(lambda: Doubled(SITES))


def test_sites_that_see_the_same_machines_declare_it() -> None:
    class Shared(changed(same_names)):  # type: ignore[misc]
        local_machines = True

    check_data_source(lambda: Shared(SITES))

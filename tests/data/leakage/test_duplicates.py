"""Copies are found whatever machines do and rows are called, and chance is not taken for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpdm.config.compose import compose
from fedpdm.config.values import make
from fedpdm.data.leakage.duplicates import beyond_chance, fingerprints, require_no_copies
from fedpdm.data.rows import Rows, Split
from fedpdm.errors import LeakError
from fedpdm.runs.sources import build_source
from tests.data.row_examples import rows_of

PARTS = (Split.TRAIN, Split.VALIDATION, Split.TEST)


def look(*sites: Rows, table: bool = False, shared: bool = False) -> None:
    """Look for copies, as the guards do, at sites that are named a, b, …"""
    prints = []
    for name, rows in zip("abcdefgh", sites, strict=False):
        starts = np.flatnonzero(np.r_[True, rows.machine[1:] != rows.machine[:-1]])
        prints.append(fingerprints(name, rows, starts, table))
    require_no_copies(prints, shared)


def renamed(rows: Rows) -> Rows:
    return replace(rows, machine=np.char.add("x", rows.machine))


def series(seed: int, machines: int = 6, length: int = 200, idle: str = "never") -> Rows:
    """Machines with four noisy sensors, which all read 0 where it stands still."""
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(machines * length, 4))
    hour = np.arange(len(values)) % 24
    off = {"never": hour < 0, "at night": hour < 6, "at times": draw.random(len(values)) < 0.25}
    values[off[idle]] = 0.0
    cut = np.repeat([0, 1, 2], [length * 3 // 5, length // 5, length // 5])
    return rows_of(
        np.repeat([f"{seed}-{k}" for k in range(machines)], length).tolist(),
        time=np.tile(np.arange(float(length)), machines).tolist(),
        split=np.tile(cut, machines).tolist(),
        values=values,
    )


@pytest.mark.parametrize("idle", ["at night", "at times"])
def test_a_site_of_idle_machines_under_other_ids_is_refused(idle: str) -> None:
    site = series(1, idle=idle)
    with pytest.raises(LeakError, match=r"machine 1-\d at a .* and machine x1-\d at b .*same 5"):
        look(site, renamed(site))
    look(site, series(2, idle=idle))


def test_machines_of_few_values_are_no_copies_however_long_they_stand_still() -> None:
    draw = np.random.default_rng(0)
    count = np.concatenate([np.repeat(np.arange(200.0), draw.integers(1, 4, 200))[:200]] * 6)
    counters = replace(series(1), values=count[:, None])
    look(counters, renamed(counters))  # a counter tells nothing
    for seed in range(5):
        few = replace(series(1), values=np.round(series(seed, idle="at times").values / 2))
        other = replace(series(2), values=np.round(series(seed + 9, idle="at night").values / 2))
        look(few, other)


def off_together(seed: int, warm: float) -> Rows:
    """Machines that are off at weekends and then read nothing but the hall's temperature."""
    rows = series(seed, machines=8, length=400)
    hour = rows.time
    hall = np.round(20 + 4 * np.sin(hour / 4) + np.random.default_rng(9).normal(0, warm, 400)[
        hour.astype(int)], 1)  # fmt: skip
    values = rows.values.copy()
    values[hour // 24 % 7 >= 5] = 0.0
    return replace(rows, values=np.c_[values[:, :3], hall])


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("warm", [0.0, 1.0], ids=["steady", "unsteady"])
def test_machines_that_are_off_together_in_one_hall_are_no_copies(
    warm: float, single: bool
) -> None:
    look(off_together(1, warm), off_together(2, warm), table=single)
    with pytest.raises(LeakError):
        look(off_together(1, warm), renamed(off_together(1, warm)), table=single)


def table(values: np.ndarray, seed: int = 0, name: str = "r") -> Rows:
    """Single rows with an id each, split at random."""
    return rows_of(
        [f"{name}{k:05d}" for k in range(len(values))],
        time=np.arange(float(len(values))).tolist(),
        split=np.random.default_rng(seed).choice(3, len(values), p=[0.6, 0.2, 0.2]).tolist(),
        values=values,
    )


def same_file(values: np.ndarray) -> list[Rows]:
    return [table(values), table(values, name="x")]


def other_order(values: np.ndarray) -> list[Rows]:
    return [table(values), table(np.random.default_rng(1).permutation(values), 1, "x")]


def all_twice(values: np.ndarray) -> list[Rows]:
    return [table(np.random.default_rng(1).permutation(np.concatenate([values, values])))]


def three_sites(values: np.ndarray) -> list[Rows]:
    return [*other_order(values), table(values[::-1], 2, "y")]


def a_fifth(values: np.ndarray) -> list[Rows]:
    own = np.random.default_rng(1).normal(size=values.shape)
    return [table(values), table(np.concatenate([own, values[: len(values) // 5]]), 1, "x")]


@pytest.mark.parametrize("how", [same_file, other_order, all_twice, three_sites, a_fifth])
def test_single_rows_that_stand_twice_are_refused(how: Callable[..., list[Rows]]) -> None:
    values = np.random.default_rng(0).normal(size=(1000, 4))
    message = r"\d+ of \d+ rows for validation and test .*machine \w+ at a .* and machine \w+ at"
    with pytest.raises(LeakError, match=message):
        look(*how(values))
    machines = [f"m{k}" for k in range(10)]
    dealt = [replace(p, machine=np.sort(np.resize(machines, len(p)))) for p in how(values)]
    with pytest.raises(LeakError):  # whatever the ids: models see single rows
        look(*dealt, table=True)


def test_copies_among_training_rows_are_no_leak() -> None:
    rows = table(np.random.default_rng(0).normal(size=(600, 4)))
    training = rows.take(rows.split == Split.TRAIN)
    both = Rows.concatenate([rows, renamed(training), renamed(renamed(training))])
    look(both)


@pytest.mark.parametrize("seed", range(4))
def test_rows_of_few_values_are_equal_by_chance(seed: int) -> None:
    draw = np.random.default_rng(seed)
    rare = 1 / np.arange(1, 3001)
    kinds = draw.normal(size=(3000, 3))
    for values in (
        np.round(draw.normal(size=(1500, 4))),
        np.round(2 * draw.normal(size=(1500, 2))) @ [[1, 1, 0], [0, 1, 1]],
        np.round(9 * draw.normal(size=(1500, 2))),
        kinds[draw.integers(0, 1000, 1500)],
        kinds[draw.choice(3000, 1500, p=rare / rare.sum())],
        np.where(draw.random((1500, 1)) < 0.4, 0.0, draw.normal(size=(1500, 3))),
        np.tile(np.arange(24.0), 63)[:1500, None],  # a calendar
    ):
        look(table(values[:900]), table(values[900:], 1, "x"))


def test_a_reading_that_lasts_is_one_reading() -> None:
    draw = np.random.default_rng(0)
    slow = np.repeat(np.round(20 * draw.normal(size=(500, 2))), 2, axis=0)
    late = np.repeat([0, 1, 2], [600, 200, 200]).astype(np.int8)
    look(replace(table(slow), split=late))
    machines = np.repeat([f"m{k}" for k in range(10)], 100)
    look(replace(table(slow), split=late, machine=machines), table=True)


def test_a_shared_machine_may_have_its_rows_at_several_sites() -> None:
    rows = table(np.random.default_rng(0).normal(size=(600, 4)))
    look(rows, rows, shared=True)
    with pytest.raises(LeakError, match="at another site"):
        look(rows, rows)
    with pytest.raises(LeakError, match="at another site"):
        look(table(rows.values), table(rows.values, 1, "x"), shared=True)


@pytest.mark.parametrize(("length", "step"), [(2, 1), (4, 1), (4, 2), (4, 3), (9, 5)])
def test_short_windows_that_overlap_are_refused(length: int, step: int) -> None:
    one = np.random.default_rng(0).normal(size=(1600, 4)).cumsum(axis=0)
    starts = np.arange(0, 1600 - length, step)
    index = np.concatenate([np.arange(s, s + length) for s in starts])
    windows = rows_of(
        np.repeat([f"window-{k:04d}" for k in range(len(starts))], length).tolist(),
        time=index.astype(float).tolist(),
        split=np.repeat(np.random.default_rng(1).choice(3, len(starts)), length).tolist(),
        values=one[index],
    )
    with pytest.raises(LeakError, match=r"windows overlap: give each row once"):
        look(windows)
    apart = windows.take(np.flatnonzero(np.repeat(np.arange(len(starts)) % length == 0, length)))
    look(apart)
    look(apart, replace(renamed(apart), values=np.round(apart.values[::-1] / 20)))


@given(
    kinds=st.integers(1, 3000),
    rows=st.integers(2, 5000),
    slope=st.floats(0, 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_independent_draws_are_not_beyond_chance(
    kinds: int, rows: int, slope: float, seed: int
) -> None:
    share = np.arange(1.0, kinds + 1) ** -slope
    drawn = np.random.default_rng(seed).choice(kinds, rows, p=share / share.sum())
    times = np.bincount(drawn)
    times = times[times > 0]
    suspect = beyond_chance(times)[times]
    assert times[suspect].sum() <= 0.02 * rows


@given(rows=st.integers(50, 3000), times=st.integers(2, 9))
def test_rows_that_all_stand_there_so_often_are_beyond_chance(rows: int, times: int) -> None:
    beyond = beyond_chance(np.full(rows, times))
    assert np.flatnonzero(beyond).tolist() == [times]


@pytest.mark.parametrize("split", ["forward", "stratified"])
def test_ai4i_is_silent_and_a_copy_of_it_is_not(data_folder: Any, split: str) -> None:
    cfg = compose(["data=ai4i", f"data.split={split}", "partition=iid", "partition.sites=3"])
    source = build_source(cfg, make(cfg.task, "task"), 1)
    sites = [source.rows(site) for site in source.sites]
    look(*sites)
    look(*[replace(p, values=np.round(p.values[:, 2:4] / 5)) for p in sites])  # few values left
    measured = [replace(p, values=p.values[:, :6]) for p in sites]
    look(*measured)
    with pytest.raises(LeakError, match="more than chance makes equal"):
        look(*measured, renamed(measured[1]))

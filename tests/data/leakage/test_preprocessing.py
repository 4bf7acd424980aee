"""Scaling and augmentation before the split are found in the forms that pipelines leave them in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fedpdm.data.leakage.preprocessing import (
    ReadingSums,
    require_machines_unscaled,
    require_scaled_on_training,
    require_untouched,
)
from fedpdm.data.rows import Rows, Split
from fedpdm.errors import LeakError
from fedpdm.testing.tiny import TinySource
from tests.data.leakage.test_checks import SITES, Leaking, Table, check
from tests.data.row_examples import rows_of

TRAIN, TEST = int(Split.TRAIN), int(Split.TEST)
Values = Callable[[Rows], np.ndarray]


def standardised(values: np.ndarray, over: np.ndarray, ddof: int = 0) -> np.ndarray:
    spread = values[over].std(axis=0, ddof=ddof)
    return (values - values[over].mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def to_one(values: np.ndarray) -> np.ndarray:
    low, high = values.min(axis=0), values.max(axis=0)
    return (values - low) / np.where(high > low, high - low, 1.0)


def by_machine(rows: Rows, over: Callable[[np.ndarray], np.ndarray], ddof: int) -> Rows:
    """Standardise each machine by the rows of its own that ``over`` chooses by their split."""
    values = rows.values.copy()
    for name in np.unique(rows.machine):
        own = rows.machine == name
        chosen = over(rows.split[own])
        if chosen.any():
            values[own] = standardised(values[own], chosen, ddof)
    return replace(rows, values=values)


def everything(split: np.ndarray) -> np.ndarray:
    return np.ones(len(split), dtype=bool)


def wide(rows: Rows) -> Rows:
    """Let the extremes of every feature lie in the test part."""
    return replace(rows, values=np.where((rows.split == TEST)[:, None], 1.5, 1.0) * rows.values)


def test_one_site_scaled_to_0_and_1_hides_no_other_that_was_standardised() -> None:
    def spoil(rows: Rows, site: str) -> Rows:
        rows = wide(rows)
        over_all = np.ones(len(rows), dtype=bool)
        own = to_one(rows.values) if site == "a" else standardised(rows.values, over_all)
        return replace(rows, values=own)

    with pytest.raises(LeakError, match="b: every feature has mean 0"):
        check(Leaking(spoil, everywhere=True))


def test_every_site_scaled_to_0_and_1_is_named_once() -> None:
    def spoil(rows: Rows, site: str) -> Rows:
        return replace(rows, values=to_one(wide(rows).values))

    found = check(Leaking(spoil, everywhere=True))
    assert [warning.partition(" runs from")[0] for warning in found] == [
        "a: every feature",
        "b: every feature",
    ]


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("digits", [2, 3, 4, 12])
def test_each_machine_standardised_by_itself_is_refused(ddof: int, digits: int) -> None:
    def spoil(rows: Rows, site: str) -> Rows:
        scaled = by_machine(rows, everything, ddof)
        return replace(scaled, values=np.round(scaled.values, digits))

    with pytest.raises(LeakError, match=r"b: (\d of 6 machines .*have|every feature has) mean 0"):
        check(Leaking(spoil))


@pytest.mark.parametrize("digits", [2, 12])
def test_each_machine_standardised_by_its_training_rows_is_welcome(digits: int) -> None:
    def spoil(rows: Rows, site: str) -> Rows:
        scaled = by_machine(rows, lambda split: split == TRAIN, 1)
        return replace(scaled, values=np.round(scaled.values, digits))

    assert check(Leaking(spoil)) == []


def test_machines_wholly_in_one_part_may_be_standardised_by_their_own_history() -> None:
    def spoil(rows: Rows, site: str) -> Rows:
        split = np.where(np.isin(rows.machine, ["b-0", "b-1"]), TEST, TRAIN).astype(np.int8)
        return by_machine(replace(rows, split=split), everything, 1)

    assert check(Leaking(spoil), reach=0.0) == []


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("digits", [2, 3, 4, 6])
def test_rounding_and_a_column_of_few_values_hide_no_scaler(digits: int, kind: type) -> None:
    def spoil(rows: Rows, site: str) -> Rows:
        values = rows.values.copy()
        values[:, 2] = np.arange(len(rows)) % 10 < 3  # a flag
        values = standardised(values, np.ones(len(rows), dtype=bool), 1)
        return replace(rows, values=np.round(values, digits).astype(kind).astype(np.float64))

    with pytest.raises(LeakError, match="b: every feature has mean 0"):
        check(Leaking(spoil))


@pytest.mark.parametrize("digits", [0, 1, 2, 3, 4])
def test_raw_readings_of_about_0_and_1_are_never_taken_for_scaled_ones(digits: int) -> None:
    """The nearest that raw data comes: every column drawn from a standard normal distribution."""
    draw = np.random.default_rng(digits)
    for number in range(60):
        values = np.round(draw.normal(size=(600, 1 + number % 3)), digits)
        split = [0] * 360 + [1] * 120 + [2] * 120
        rows = rows_of(["m"] * 600, values=values, split=split, time=list(range(600)))
        assert require_scaled_on_training([ReadingSums.of("a", rows)]) == []
        machines = replace(
            rows, machine=np.repeat(list("abcdef"), 100), split=np.tile(np.repeat([0, 2], 50), 6)
        )
        require_machines_unscaled("a", machines, np.arange(6) * 100)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("digits", [1, 2, 3])
def test_generated_sites_are_raw_however_they_are_rounded(seed: int, digits: int) -> None:
    class Rounded(TinySource):
        def rows(self, site: str) -> Rows:
            rows = super().rows(site)
            return replace(rows, values=np.round(rows.values, digits))

    assert check(Rounded(SITES, seed=seed)) == []
    single = Rounded(SITES, seed=seed, window=None)
    assert check(single) == []


class Owned(Table):
    """Rows of ten machines: single rows still, but not each of a machine of its own."""

    labelled = True

    def rows(self, site: str) -> Rows:
        rows = super().rows(site)
        assert rows.label is not None
        machine = np.array([f"m{k % 10}" for k in range(len(rows))])
        order = np.lexsort((np.arange(len(rows)), rows.split, machine))
        given = replace(rows, machine=machine).take(order)
        rows = replace(given, time=np.arange(len(rows), dtype=float))
        if self.labelled:
            return rows
        left = np.where(given.label == 1, 3.0, np.nan)
        return replace(rows, label=None, time_to_failure=left, observed=np.full(len(rows), 9.0))


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("how", ["smote", "copies"])
def test_rows_of_machines_resampled_before_the_split_are_refused(how: str, labelled: bool) -> None:
    source = Owned(f"{how} before")
    source.labelled = labelled
    reach = 0.0 if labelled else 4.0
    split = source.rows("a").split
    apart = replace(source.rows("a"), time=np.arange(len(split)) + 10_000.0 * split)
    source.rows = lambda site: apart  # type: ignore[method-assign]
    with pytest.raises(LeakError, match=r"a: .* rows of class 1 .*split first"):
        check(source, reach)


def test_rows_of_machines_that_nobody_resampled_are_welcome() -> None:
    for how in ("nothing", "smote after", "copies after"):
        assert check(Owned(how), reach=0.0) == []


def test_a_machine_that_is_off_before_a_failure_is_no_copy() -> None:
    def spoil(rows: Rows, site: str) -> Rows:
        off = rows.time_to_failure <= 4.0
        return replace(rows, values=np.where(off[:, None], 0.0, rows.values))

    assert check(Leaking(spoil, everywhere=True, window=None)) == []


def mixed(rows: Rows, names: list[str]) -> Rows:
    """Replace machines by mixtures of b-0 and b-1."""
    values = rows.values.copy()
    for share, name in enumerate(names, start=1):
        parts = [rows.values[rows.machine == f"b-{k}"] for k in (0, 1)]
        values[rows.machine == name] = parts[0] + share / 5 * (parts[1] - parts[0])
    return replace(rows, values=values)


class Twelve(TinySource):
    """Twelve machines of three moving sensors at site b; some may be mixtures of two others."""

    made: tuple[str, ...] = ()
    all_training = False

    def rows(self, site: str) -> Rows:
        rows = super().rows(site)
        noise = np.random.default_rng(3).normal(size=len(rows))
        values = np.column_stack([rows.values[:, :2], noise])
        rows = mixed(replace(rows, values=values), list(self.made))
        if self.all_training:
            used = np.isin(rows.machine, ["b-0", "b-1", *self.made])
            rows = replace(rows, split=np.where(used, TRAIN, TEST).astype(np.int8))
        return rows


def test_machines_mixed_out_of_two_others_are_refused() -> None:
    source = Twelve({"b": {"machines": 12}})
    assert check(source) == []
    source.made = ("b-5", "b-6")
    with pytest.raises(LeakError, match=r"b: machine b-[0156] lies exactly between two others"):
        check(source)
    source.all_training = True
    assert check(source, reach=0.0) == [], (
        "what is made of training machines and trained on is no leak"
    )


def test_a_state_that_machines_come_back_to_is_no_copy() -> None:
    """Down machines read a whole number of degrees: few readings, many times each."""
    rows = Owned("nothing").rows("a")
    draw = np.random.default_rng(3)
    values, label = rows.values.copy(), np.zeros(len(rows), dtype=np.int64)
    down = draw.random(len(rows)) < 0.3
    values[down] = 0.0
    values[down, 0] = draw.integers(18, 24, int(down.sum()))
    label[down] = 1
    require_untouched("a", replace(rows, values=values, label=label), 7.0, 50)

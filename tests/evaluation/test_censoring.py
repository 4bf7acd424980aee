"""Ages and ends are those of the rows, and presence is what cutting at random gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpdm.data.rows import Rows, Split
from fedpdm.data.windows import Windows
from fedpdm.evaluation.censoring import Censoring, censoring_of, joined, presence
from tests.data.row_examples import any_rows, rows_of


def windows_at(rows: Rows, ends: np.ndarray) -> Windows:
    count = len(ends)
    return Windows(
        x=np.zeros((count, 1), dtype=np.float32), y=np.zeros(count, dtype=np.int64),
        truth=np.zeros(count), machine=rows.machine[ends], time=rows.time[ends],
        padded=np.zeros(count, dtype=bool), last=np.zeros(count, dtype=bool),
    )  # fmt: skip


@settings(max_examples=50)
@given(any_rows(), st.data())
def test_every_window_finds_its_row(rows: Rows, data: st.DataObject) -> None:
    rows = replace(rows, time_to_failure=np.arange(len(rows), dtype=float))
    ends = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)), dtype=int)
    censoring, none = censoring_of(rows, windows_at(rows, ends), windows_at(rows, ends[:0]))
    assert censoring.left.tolist() == ends.tolist() and len(none) == 0
    for number, end in enumerate(ends):
        same = (rows.machine == rows.machine[end]) & (rows.life == rows.life[end])
        assert censoring.age[number] == rows.time[end] - rows.time[same].min()
        for other, at in enumerate(ends):
            together = bool(same[at])
            assert (censoring.life[number] == censoring.life[other]) == together


def test_a_window_of_other_rows_is_an_error() -> None:
    rows = rows_of(["a", "a", "b"])
    windows = windows_at(rows, np.array([0]))
    with pytest.raises(ValueError, match="none of the rows"):
        censoring_of(rows, replace(windows, time=np.array([77.0])))
    with pytest.raises(ValueError, match="none of the rows"):
        censoring_of(rows, replace(windows, machine=np.array(["c"])))


def test_machines_of_two_sites_are_never_one() -> None:
    rows = rows_of(["a", "a", "b"], split=[Split.TEST] * 3)
    (one,) = censoring_of(rows, windows_at(rows, np.arange(3)))
    both = joined([one, one])
    assert len(np.unique(both.machine)) == 4 and len(np.unique(both.life)) == 4


def life(length: int, number: int) -> Censoring:
    age = np.arange(length, dtype=float)
    same = np.full(length, number)
    return Censoring(same, same, age, age, length - age)


def test_presence_is_the_mean_over_all_cuts() -> None:
    lengths = [40, 90]
    censoring = joined([life(n, 0) for n in lengths])
    weight = presence(censoring)
    random = np.random.default_rng(0)
    seen = np.zeros(len(censoring))
    for _ in range(4000):
        cut = random.uniform(0, lengths)
        seen += censoring.age <= cut[censoring.machine]
    np.testing.assert_allclose(weight, seen / 4000, atol=0.03)
    # A long life of 200 with a horizon of 30: (30 / 200)² of what is seen lies in the horizon.
    one = life(2000, 0)
    share = presence(one)
    assert share[one.left <= 300].sum() / share.sum() == pytest.approx(0.15**2, rel=0.01)


def test_who_was_cut_already_counts_fully() -> None:
    zeros = np.zeros(2, dtype=np.int64)
    censoring = Censoring(zeros, zeros, np.arange(2.0), np.arange(2.0), np.array([np.nan, np.nan]))
    assert presence(censoring).tolist() == [1.0, 1.0]
    at_once = Censoring(zeros[:1], zeros[:1], np.zeros(1), np.zeros(1), np.zeros(1))
    assert presence(at_once).tolist() == [0.0]

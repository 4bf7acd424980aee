"""A window never crosses a machine, a life or a split, and none is lost at a life's end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpdm.data.rows import Rows, Split
from fedpdm.data.windows import Windows, gather, segment_starts, window_ends
from tests.data.row_examples import any_rows, rows_of


def inside(rows: Rows, length: int, stride: int, usable: np.ndarray) -> list[np.ndarray]:
    """The row positions that each window really holds, read back from gathered values."""
    ends, _ = window_ends(rows, length, stride, usable)
    values = gather(rows.values.astype(np.float32), ends, segment_starts(rows)[ends], length)
    assert values.shape == (len(ends), length, 1)
    return [window[:, 0].astype(int) for window in values]


@given(any_rows(), st.integers(1, 15), st.integers(1, 4), st.data())
def test_window_stays_in_its_machine_life_and_split(
    rows: Rows, length: int, stride: int, data: st.DataObject
) -> None:
    usable = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    ends, padded = window_ends(rows, length, stride, usable)
    held = inside(rows, length, stride, usable)
    for end, short, positions in zip(ends, padded, held, strict=True):
        assert usable[end] and positions[-1] == end
        for column in (rows.machine, rows.life, rows.split):
            assert len(set(column[positions])) == 1
        steps = np.diff(positions)
        if short:
            assert rows.pad and len(set(positions)) < length
            assert (steps[: length - len(set(positions))] == 0).all()
            assert positions[0] == segment_starts(rows)[end]
        else:
            assert (steps == 1).all()


@given(any_rows(pad=False), st.integers(1, 15), st.integers(1, 4))
def test_count_of_full_windows_is_the_closed_form(rows: Rows, length: int, stride: int) -> None:
    ends, padded = window_ends(rows, length, stride, np.ones(len(rows), dtype=bool))
    _, sizes = np.unique(segment_starts(rows), return_counts=True)
    assert len(ends) == sum((n - length) // stride + 1 for n in sizes if n >= length)
    assert not padded.any()


@given(any_rows(pad=True), st.integers(1, 15), st.integers(1, 4))
def test_with_padding_every_segment_ends_in_a_window(rows: Rows, length: int, stride: int) -> None:
    ends, padded = window_ends(rows, length, stride, np.ones(len(rows), dtype=bool))
    first, sizes = np.unique(segment_starts(rows), return_counts=True)
    assert set(first + sizes - 1) <= set(ends)
    assert padded.sum() == (sizes < length).sum()


@pytest.mark.parametrize(
    ("stride", "expected"), [(1, [2, 3, 4, 5, 6]), (2, [2, 4, 6]), (3, [3, 6])]
)
def test_stride_is_counted_back_from_the_last_row(stride: int, expected: list[int]) -> None:
    rows = rows_of(["a"] * 7)
    ends, _ = window_ends(rows, 3, stride, np.ones(7, dtype=bool))
    assert ends.tolist() == expected


def test_unusable_row_ends_no_window_but_may_lie_inside_one() -> None:
    usable = np.array([True, True, False, True])
    rows = rows_of(["a"] * 4)
    assert [list(w) for w in inside(rows, 2, 1, usable)] == [[0, 1], [2, 3]]


def test_short_life_is_padded_at_its_start_with_its_first_row() -> None:
    rows = rows_of(["a", "a", "b", "b", "b"], pad=True)
    held = inside(rows, 3, 1, np.ones(5, dtype=bool))
    assert [list(w) for w in held] == [[0, 0, 1], [2, 3, 4]]


def test_padding_is_not_given_to_a_life_whose_last_row_is_unusable() -> None:
    rows = rows_of(["a", "a"], pad=True)
    ends, _ = window_ends(rows, 3, 1, np.array([True, False]))
    assert len(ends) == 0


def test_segment_starts_by_hand() -> None:
    rows = rows_of(
        ["a", "a", "a", "a", "b", "b"],
        life=[0, 0, 1, 1, 1, 1],
        split=[Split.TRAIN, Split.TRAIN, Split.TRAIN, Split.TEST, Split.TEST, Split.TEST],
    )
    assert segment_starts(rows).tolist() == [0, 0, 2, 3, 4, 4]


def test_no_rows_give_no_windows() -> None:
    rows = rows_of(["a"]).take(np.zeros(0, dtype=np.int64))
    ends, padded = window_ends(rows, 3, 1, np.zeros(0, dtype=bool))
    assert len(ends) == len(padded) == len(segment_starts(rows)) == 0


def some_windows(count: int, offset: float) -> Windows:
    number = np.arange(count) + offset
    return Windows(
        x=np.repeat(number, 6).reshape(count, 3, 2).astype(np.float32),
        y=number.astype(np.int64),
        truth=number,
        machine=np.array([f"m{k:g}" for k in number]),
        time=number,
        padded=number % 2 == 0,
        last=number % 3 == 0,
    )


def test_concatenated_windows_can_be_taken_apart_again() -> None:
    parts = [some_windows(3, 0), some_windows(2, 10)]
    both = Windows.concatenate(parts)
    assert len(both) == 5
    for part, index in zip(parts, (np.arange(3), np.arange(5) >= 3), strict=True):
        taken = both.take(index)
        for name in ("x", "y", "truth", "machine", "time", "padded", "last"):
            np.testing.assert_array_equal(getattr(taken, name), getattr(part, name))


@given(any_rows(), st.integers(1, 6), st.integers(1, 4))
def test_padding_all_rows_adds_the_early_ones_and_moves_no_other(
    rows: Rows, length: int, stride: int
) -> None:
    usable = np.ones(len(rows), dtype=bool)
    every, padded = window_ends(rows, length, stride, usable, pad_all=True)
    full, _ = window_ends(replace(rows, pad=False), length, stride, usable)
    assert every[~padded].tolist() == full.tolist()
    start = segment_starts(rows)[every]
    assert ((every - start + 1 < length) == padded).all()
    if stride == 1:
        assert every.tolist() == list(range(len(rows)))
    values = gather(rows.values.astype(np.float32), every, start, length)[:, :, 0]
    assert (values >= start[:, None]).all(), "nothing before the segment"

"""Rows: taking a part, and the hash that two runs on the same bytes agree on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpdm.data.rows import Rows, Split
from tests.data.row_examples import any_rows, rows_of

COLUMNS = ("values", "machine", "time", "life", "time_to_failure", "observed", "split", "condition")


def labelled() -> Rows:
    rows = rows_of(list("aabb"), groups={"type": np.array(list("LLMM"))})
    return replace(rows, label=np.array([0, 1, 0, 1]), time_to_failure=np.arange(4.0))


@given(any_rows(), st.data())
def test_mask_and_positions_take_the_same_rows(rows: Rows, data: st.DataObject) -> None:
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    taken, same = rows.take(mask), rows.take(np.flatnonzero(mask))
    assert len(taken) == mask.sum()
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(taken, name), getattr(rows, name)[mask])
    assert taken.sha256() == same.sha256() and taken.label is None and taken.pad == rows.pad


def test_take_follows_the_given_order_in_every_column() -> None:
    taken = labelled().take(np.array([3, 0]))
    assert taken.label is not None and taken.label.tolist() == [1, 0]
    assert taken.groups["type"].tolist() == ["M", "L"]
    assert taken.values[:, 0].tolist() == [3, 0] and taken.machine.tolist() == ["b", "a"]


@pytest.mark.parametrize(
    "change",
    [
        {"values": np.ones((4, 1))},
        {"machine": np.array(list("aaab"))},
        {"time": np.arange(4.0) + 9},
        {"life": np.ones(4, dtype=np.int64)},
        {"time_to_failure": np.full(4, np.nan)},
        {"observed": np.ones(4)},
        {"split": np.full(4, Split.TEST, dtype=np.int8)},
        {"condition": np.ones(4, dtype=np.int64)},
        {"label": np.zeros(4, dtype=np.int64)},
        {"label": None},
        {"features": ("other",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_hash_notices_a_change_in_any_column(change: dict[str, object]) -> None:
    rows = labelled()
    assert rows.sha256() == labelled().sha256()
    assert replace(rows, **change).sha256() != rows.sha256()  # type: ignore[arg-type]


def test_hash_does_not_hang_on_memory_layout() -> None:
    rows = rows_of(["a"] * 3, values=np.arange(6.0).reshape(3, 2))
    columns_first = replace(rows, values=np.asfortranarray(rows.values))
    assert columns_first.sha256() == rows.sha256()


def test_rows_of_several_sources_are_joined_or_refused() -> None:
    one = rows_of(list("aab"), groups={"kind": np.array(["x", "x", "y"])})
    two = rows_of(list("cd"), groups={"kind": np.array(["z", "z"])})
    joined = Rows.concatenate([one, two])
    assert joined.machine.tolist() == list("aabcd") and joined.groups["kind"].tolist() == list("xxyzz")  # fmt: skip # noqa: E501
    assert joined.take(np.arange(3)).sha256() == one.sha256()
    assert Rows.concatenate([one]) is one
    for other in (
        rows_of(["c"]),
        replace(two, pad=True),
        replace(two, label=np.zeros(2, np.int64)),
    ):
        with pytest.raises(ValueError, match="cannot be joined"):
            Rows.concatenate([one, other])

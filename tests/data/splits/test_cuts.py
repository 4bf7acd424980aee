"""No label, no window and no machine links training to what it is judged on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpdm.data.fleet.source import FleetSource
from fedpdm.data.rows import Rows, Split
from fedpdm.data.splits.cuts import by_time, drawn_machines, undecided, validated_on
from fedpdm.data.windows import segment_starts, window_ends
from fedpdm.errors import DataError
from fedpdm.tasks import within_horizon
from tests.data.row_examples import rows_of


def daily(machines: int, days: int) -> Rows:
    names = [f"m{k}" for k in range(machines) for _ in range(days)]
    return rows_of(names, time=[float(day) for _ in range(machines) for day in range(days)])


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(
    machines=st.integers(1, 8),
    days=st.integers(100, 160),
    reach=st.integers(0, 19),
    length=st.integers(1, 20),
    seed=st.integers(0, 50),
)
def test_time_cut_leaves_reach_between_a_training_label_and_a_later_window(
    machines: int, days: int, reach: int, length: int, seed: int
) -> None:
    rows = by_time(daily(machines, days), reach=reach, generator=generator(seed))
    ends, _ = window_ends(rows, length, 1, np.ones(len(rows), dtype=bool))
    assert (ends - length + 1 >= segment_starts(rows)[ends]).all()
    for early, late in ((Split.TRAIN, Split.VALIDATION), (Split.VALIDATION, Split.TEST)):
        label_looks_to = rows.time[ends[rows.split[ends] == early]] + reach
        begins = rows.time[ends[rows.split[ends] == late] - length + 1]
        assert len(label_looks_to) == 0 or len(begins) == 0 or label_looks_to.max() < begins.min()


@given(
    machines=st.integers(1, 12),
    seed=st.integers(0, 50),
    share=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
)
def test_heldout_machines_appear_nowhere_else(machines: int, seed: int, share: float) -> None:
    rows = by_time(daily(machines, 100), reach=5, generator=generator(seed), heldout_fraction=share)
    heldout = set(rows.machine[rows.split == Split.HELDOUT])
    others = (Split.TRAIN, Split.VALIDATION, Split.TEST)
    assert not heldout & set(rows.machine[np.isin(rows.split, others)])
    least = 1 if machines >= 3 and share > 0 else 0
    assert len(heldout) == min(max(round(share * machines), least), machines - 1)


def test_shares_of_the_calendar_without_reach() -> None:
    rows = by_time(daily(1, 1001), reach=0, generator=generator(), heldout_fraction=0)
    counts = {split: int(np.sum(rows.split == split)) for split in Split}
    assert counts == {
        Split.UNUSED: 0, Split.TRAIN: 601, Split.VALIDATION: 200, Split.TEST: 200, Split.HELDOUT: 0,
    }  # fmt: skip


def test_purged_rows_are_exactly_those_within_reach_before_a_cut() -> None:
    rows = by_time(daily(1, 101), reach=7, generator=generator(), heldout_fraction=0)
    unused = rows.time[rows.split == Split.UNUSED]
    assert unused.tolist() == [*range(54, 61), *range(74, 81), *range(94, 101)]


def test_no_label_is_used_that_the_end_of_the_record_decides() -> None:
    reach = 30.0
    fleet = FleetSource(sites={"detroit": {"machines": 30}}, reach=reach)
    rows = fleet.rows("detroit")
    used, end = rows.split != Split.UNUSED, rows.time.max()
    assert (rows.time[used] + reach <= end).all()
    positive, known = within_horizon(rows, reach)
    for part in (Split.TEST, Split.HELDOUT):
        mine = rows.split == part
        last = mine & (rows.time > rows.time[mine].max() - 7)
        assert known[last].all(), "services are off, so the record alone cuts lives short"
        assert 0 < positive[last].mean() < 1
    tail = ~used & (rows.time + reach > end)
    assert positive[tail & known].all(), "what was purged would have been positives only"


def test_machines_whose_own_rows_end_early_are_purged_there_unless_they_end_in_failure() -> None:
    rows = daily(3, 100)
    rows = rows.take((rows.machine == "m0") | (rows.time < 90))
    rows.time_to_failure[rows.machine == "m2"] = 89 - rows.time[rows.machine == "m2"]
    late = undecided(rows, 5)
    assert rows.time[late & (rows.machine == "m0")].tolist() == [95, 96, 97, 98, 99]
    assert rows.time[late & (rows.machine == "m1")].tolist() == [85, 86, 87, 88, 89]
    assert not late[rows.machine == "m2"].any()


def test_complete_or_labelled_records_lose_nothing_at_the_end() -> None:
    rows = daily(2, 100)
    complete = replace(rows, time_to_failure=99 - rows.time)
    labelled = replace(rows, label=np.zeros(len(rows), dtype=np.int64))
    for given_rows in (complete, labelled):
        cut = by_time(given_rows, reach=5, generator=generator(), heldout_fraction=0)
        assert (cut.split[cut.time > 80] == Split.TEST).all()
    assert not undecided(rows, 0).any()


def test_a_record_without_anything_left_to_test_is_refused() -> None:
    with pytest.raises(DataError, match=r"pune: 100 time units .* 15 ahead.*task\.cap"):
        by_time(daily(3, 101), reach=15, generator=generator(), fractions=(0.5, 0.4), site="pune")


def test_too_short_record_says_what_to_do() -> None:
    with pytest.raises(DataError, match=r"houston: 50 time units .* 30 ahead.*task\.horizon"):
        by_time(daily(3, 51), reach=30, generator=generator(), site="houston")


def test_another_generator_holds_out_other_machines_and_the_same_one_the_same() -> None:
    drawn = [
        frozenset(r.machine[r.split == Split.HELDOUT])
        for r in (by_time(daily(20, 100), reach=5, generator=generator(k)) for k in (1, 1, 2))
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@given(
    train=st.integers(1, 12),
    test=st.integers(0, 4),
    share=st.sampled_from([0.0, 0.2, 0.5, 0.9]),
    seed=st.integers(0, 50),
)
def test_split_by_machine_keeps_the_official_test_set_and_whole_machines(
    train: int, test: int, share: float, seed: int
) -> None:
    names = [f"train-{k}" for k in range(train) for _ in range(3)]
    names += [f"test-{k}" for k in range(test) for _ in range(2)]
    marks = [int(Split.TRAIN)] * (3 * train) + [int(Split.TEST)] * (2 * test)
    before = rows_of(names, split=marks)
    after = validated_on(before, drawn_machines(before, generator(seed), share))
    parts = {s: set(after.machine[after.split == s]) for s in Split}
    assert parts[Split.TEST] == {f"test-{k}" for k in range(test)}
    assert not parts[Split.TRAIN] & parts[Split.VALIDATION]
    assert parts[Split.TRAIN], "a site must keep something to train on"
    if train >= 2 and share > 0:
        assert len(parts[Split.VALIDATION]) == min(max(round(share * train), 1), train - 1)
    else:
        assert not parts[Split.VALIDATION]
    assert before.split.tolist() == marks, "the given rows must not change"


def test_split_by_machine_leaves_other_marks_of_a_training_machine_alone() -> None:
    marks = [Split.TRAIN, Split.UNUSED, Split.TEST] * 2
    rows = rows_of(list("aaabbb"), split=list(map(int, marks)))
    rows = validated_on(rows, drawn_machines(rows, generator(), 0.2))
    assert sorted(rows.split[[0, 3]]) == [Split.TRAIN, Split.VALIDATION]
    assert rows.split[[1, 2, 4, 5]].tolist() == [Split.UNUSED, Split.TEST] * 2

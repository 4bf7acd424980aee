"""Every row belongs to one site, whole machines stay together, order changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpdm.data.partition import ByMachine, ByType, Iid, Natural, Partition
from fedpdm.data.rows import Rows, Split
from fedpdm.errors import ConfigError
from tests.data.row_examples import rows_of


def engines(train: int, test: int, length: int = 3) -> Rows:
    names = [f"test-{k:03d}" for k in range(test) for _ in range(length)]
    names += [f"train-{k:03d}" for k in range(train) for _ in range(length)]
    marks = [int(Split.TEST)] * (test * length) + [int(Split.TRAIN)] * (train * length)
    return rows_of(names, split=marks)


def parts(types: str) -> Rows:
    names = [f"{k:05d}" for k in range(len(types))]
    return rows_of(names, groups={"type": np.array(list(types))})


def divide(
    partition: Partition, rows: Rows, names: tuple[str, ...] = (), seed: int = 0
) -> dict[str, np.ndarray]:
    return partition.divide(rows, names, np.random.default_rng(seed)).sites


def require_division(shares: dict[str, np.ndarray], rows: Rows) -> None:
    everything = np.concatenate(list(shares.values()))
    assert sorted(everything) == list(range(len(rows)))
    assert all((np.diff(positions) > 0).all() for positions in shares.values())


@given(st.integers(1, 30), st.integers(0, 30), st.integers(1, 30), st.integers(0, 99))
def test_machines_are_dealt_whole_and_evenly_in_each_split(
    train: int, test: int, sites: int, seed: int
) -> None:
    rows = engines(train, test)
    if sites > train:
        with pytest.raises(ConfigError, match=f"{sites} sites .* has {train}"):
            divide(ByMachine(sites), rows)
        return
    shares = divide(ByMachine(sites), rows, seed=seed)
    require_division(shares, rows)
    owned = [set(rows.machine[positions]) for positions in shares.values()]
    assert sum(len(machines) for machines in owned) == train + test
    for kind, count in (("train", train), ("test", test)):
        shares = [sum(name.startswith(kind) for name in machines) for machines in owned]
        assert sum(shares) == count and max(shares) - min(shares) <= 1


@given(st.integers(1, 40), st.integers(1, 10), st.integers(0, 99))
def test_single_rows_are_dealt_evenly(count: int, sites: int, seed: int) -> None:
    rows = parts("L" * count)
    if sites > count:
        with pytest.raises(ConfigError, match=r"lower partition\.sites"):
            divide(Iid(sites), rows)
        return
    shares = divide(Iid(sites), rows, seed=seed)
    require_division(shares, rows)
    sizes = [len(positions) for positions in shares.values()]
    assert max(sizes) - min(sizes) <= 1


@given(st.text("LMH", min_size=1, max_size=40))
def test_types_make_sites_largest_first(types: str) -> None:
    rows = parts(types)
    shares = divide(ByType(), rows)
    require_division(shares, rows)
    for kind, positions in shares.items():
        assert set(rows.groups["type"][positions]) == {kind}
    sizes = [len(positions) for positions in shares.values()]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("partition", [ByMachine(3), Iid(3)], ids=["machine", "iid"])
def test_order_of_rows_and_of_names_does_not_change_who_owns_what(partition: Partition) -> None:
    rows = engines(9, 6, length=1)
    shuffled = rows.take(np.random.default_rng(5).permutation(len(rows)))
    names = ("detroit", "houston", "seattle")

    def owned(some: Rows, order: tuple[str, ...]) -> dict[str, list[str]]:
        shares = divide(partition, some, order)
        assert tuple(shares) == order
        return {name: sorted(some.machine[positions]) for name, positions in shares.items()}

    assert owned(rows, names) == owned(shuffled, names) == owned(rows, names[::-1])


def test_seed_decides() -> None:
    rows = engines(30, 0)
    one, same, other = (divide(ByMachine(3), rows, seed=k) for k in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert any(not np.array_equal(one[name], other[name]) for name in one)


def test_sites_are_numbered_so_that_their_names_sort() -> None:
    assert list(divide(ByMachine(), engines(12, 0)))[::9] == ["plant-01", "plant-10"]
    assert list(divide(ByMachine(100), engines(100, 0)))[:2] == ["plant-001", "plant-002"]


def test_given_names_are_used_in_their_order() -> None:
    assert list(divide(ByMachine(), engines(5, 5), ("houston", "detroit"))) == [
        "houston",
        "detroit",
    ]
    shares = divide(ByType(), parts("LLLMMH"), ("big", "middle", "small"))
    assert [len(positions) for positions in shares.values()] == [3, 2, 1]


@pytest.mark.parametrize("sites", [0, -3, 2.5, "ten", True])
@pytest.mark.parametrize("kind", [ByMachine, Iid])
def test_number_of_sites_must_be_a_whole_number_of_at_least_1(kind: type, sites: object) -> None:
    with pytest.raises(ConfigError, match=r"partition\.sites=.*at least 1"):
        kind(sites)


@pytest.mark.parametrize(
    ("partition", "rows", "names", "message"),
    [
        (Natural(), engines(3, 3), (), r"partition=machine partition\.sites=10"),
        (ByMachine(3), engines(9, 9), ("a", "b"), r"partition\.sites=3 contradicts.*2.*\(a, b\)"),
        (Iid(3), parts("LMH"), ("a",), r"partition\.sites=3 contradicts"),
        (ByMachine(), engines(1, 9), ("a", "b"), r"2 sites .* has 1"),
        (ByType(), parts("LMH"), ("a", "b"), r"3 sites \(H, L, M\), but site= names 2"),
        (ByType("shape"), parts("LMH"), (), r"partition\.column=shape.*columns: type"),
        (ByType(), engines(3, 3), (), r"columns: none"),
    ],
)
def test_impossible_division_is_refused_with_the_way_out(
    partition: Partition, rows: Rows, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        divide(partition, rows, names)


def test_column_that_changes_within_a_machine_is_refused() -> None:
    rows = rows_of(["a", "a", "b"], groups={"shift": np.array(["day", "night", "day"])})
    with pytest.raises(ConfigError, match="changes within a machine"):
        divide(ByType("shift"), rows)

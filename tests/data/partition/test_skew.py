"""Skewed sites: by label, quantity, life, condition, calendar; and one machine each."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpdm.data.partition import (
    ByCondition,
    ByLife,
    ByMachine,
    ByQuantity,
    ByTime,
    Dirichlet,
    Iid,
    Paired,
    Partition,
)
from fedpdm.data.partition.base import Machines
from fedpdm.data.rows import Rows, Split
from fedpdm.errors import ConfigError
from tests.data.row_examples import rows_of

PARTS = (Split.TRAIN, Split.VALIDATION, Split.TEST)


def parts(count: int, positive: float = 0.2, seed: int = 0) -> Rows:
    """Single labelled rows in three splits, in a shuffled order of labels."""
    draw = np.random.default_rng(seed)
    rows = rows_of(
        [f"{k:05d}" for k in range(count)],
        time=[float(k) for k in range(count)],
        split=draw.choice([int(s) for s in PARTS], count, p=[0.6, 0.2, 0.2]).tolist(),
    )
    return replace(rows, label=(draw.random(count) < positive).astype(np.int64))


def engines(lives: dict[str, int], test: dict[str, tuple[int, int]] | None = None) -> Rows:
    """Engines that run to failure, and test engines of (length, remaining life)."""
    names, time, left, split = [], [], [], []
    for name, life in lives.items():
        names += [name] * life
        time += list(range(life))
        left += list(range(life))[::-1]
        split += [int(Split.TRAIN)] * life
    for name, (length, rest) in (test or {}).items():
        names += [name] * length
        time += list(range(length))
        left += [rest + k for k in range(length)][::-1]
        split += [int(Split.TEST)] * length
    rows = rows_of(names, time=[float(t) for t in time], split=split)
    number = np.array([name[-2:] for name in names])
    return replace(rows, time_to_failure=np.array(left, dtype=float), groups={"number": number})


def divide(partition: Partition, rows: Rows, seed: int = 0) -> dict[str, np.ndarray]:
    return partition.divide(rows, (), np.random.default_rng(seed)).sites


def require_division(shares: dict[str, np.ndarray], rows: Rows) -> None:
    assert sorted(np.concatenate(list(shares.values()))) == list(range(len(rows)))
    assert all((np.diff(positions) > 0).all() for positions in shares.values())


@settings(max_examples=30)
@given(
    st.sampled_from([Dirichlet, ByQuantity]),
    st.floats(0.3, 50.0),
    st.integers(1, 8),
    st.integers(1, 12),
    st.integers(0, 99),
)
def test_every_row_has_one_site_and_every_site_its_minimum_or_it_is_refused(
    kind: type[Dirichlet] | type[ByQuantity], alpha: float, sites: int, least: int, seed: int
) -> None:
    rows = parts(300, seed=seed)
    try:
        shares = divide(kind(alpha=alpha, sites=sites, minimum=least), rows, seed)
    except ConfigError as error:
        assert f"partition.alpha={alpha:g}" in str(error) and f"{sites} sites" in str(error)
        return
    require_division(shares, rows)
    assert len(shares) == sites
    assert min(np.sum(rows.split[p] == Split.TRAIN) for p in shares.values()) >= least


@pytest.mark.parametrize(
    "partition",
    [Dirichlet(0.5, 3), ByQuantity(0.5, 3), ByTime(3), Iid(3)],
    ids=["dirichlet", "quantity", "time", "iid"],
)
def test_the_seed_decides_and_the_order_of_rows_does_not(partition: Partition) -> None:
    rows = parts(200)
    shuffled = rows.take(np.random.default_rng(5).permutation(len(rows)))

    def owned(some: Rows, seed: int) -> list[list[str]]:
        return [sorted(some.machine[p]) for p in divide(partition, some, seed).values()]

    assert owned(rows, 1) == owned(shuffled, 1)
    chance = not isinstance(partition, ByTime)
    assert (owned(rows, 1) != owned(rows, 2)) == chance


def spread(shares: dict[str, np.ndarray], rows: Rows, split: Split) -> float:
    assert rows.label is not None
    own = [rows.label[p][rows.split[p] == split] for p in shares.values()]
    return float(np.std([part.mean() for part in own if len(part)]))


def test_small_alpha_skews_labels_in_every_split_and_large_alpha_hardly() -> None:
    rows = parts(4000)
    skewed, alike = divide(Dirichlet(0.3, 5), rows), divide(Dirichlet(1000.0, 5), rows)
    for split in PARTS:
        assert spread(skewed, rows, split) > 0.15 > 0.05 > spread(alike, rows, split)
    # A site is tested on what it trains on: its shares are the same in every split.
    assert rows.label is not None
    shares = [[rows.label[p][rows.split[p] == s].mean() for p in skewed.values()] for s in PARTS]
    assert np.corrcoef(shares)[0, 1:].min() > 0.9


def test_quantity_skew_leaves_labels_alike_and_makes_sizes_differ() -> None:
    rows = parts(4000)
    shares = divide(ByQuantity(0.5, 5, minimum=100), rows)
    sizes = [len(p) for p in shares.values()]
    assert max(sizes) > 4 * min(sizes)
    assert spread(shares, rows, Split.TRAIN) < 0.05
    even = [len(p) for p in divide(ByQuantity(1e6, 5), rows).values()]
    assert max(even) - min(even) < 40


def test_positives_at_the_front_of_a_file_do_not_go_to_the_first_sites() -> None:
    """The reference system forgot to shuffle within classes: first sites got every failure."""
    rows = replace(rows_of([f"{k:04d}" for k in range(1000)]), label=np.arange(1000) < 100)
    rows = replace(rows, label=rows.label.astype(np.int64))  # type: ignore[union-attr]
    shares = divide(Dirichlet(1000.0, 5), rows)
    for positions in shares.values():
        mine = positions[positions < 100]
        assert 15 <= len(mine) <= 25 and mine.min() < 30 and mine.max() > 70


def test_machines_are_classed_by_life_and_stay_whole() -> None:
    lives = {f"train-{k:02d}": 5 + 3 * k for k in range(40)}
    rows = engines(lives)
    shares = divide(Dirichlet(0.5, 4, minimum=3), rows)
    require_division(shares, rows)
    owned = [set(rows.machine[p]) for p in shares.values()]
    assert sum(map(len, owned)) == 40 and min(map(len, owned)) >= 3
    kinds = Dirichlet(classes=4).kinds(Machines(rows))
    assert kinds.tolist() == sorted(kinds) and np.bincount(kinds).tolist() == [10] * 4


def test_machines_of_many_lives_are_classed_by_failures_per_time() -> None:
    names = ["often"] * 12 + ["never"] * 12 + ["once"] * 12
    life = [k // 3 for k in range(12)] + [0] * 12 + [0] * 6 + [1] * 6
    left = [float(2 - k % 3) for k in range(12)] + [np.nan] * 12 + [5.0 - k for k in range(6)]
    rows = replace(rows_of(names, life=life), time_to_failure=np.array(left + [np.nan] * 6))
    classes = Dirichlet(classes=3).kinds(Machines(rows))
    kinds = dict(zip(Machines(rows).ids.tolist(), classes, strict=True))
    assert kinds["never"] < kinds["once"] < kinds["often"]


def test_the_error_names_alpha_sites_and_the_way_out() -> None:
    rows = parts(100)
    with pytest.raises(
        ConfigError,
        match=r"partition\.alpha=0\.01 .* 9 sites \(partition\.sites\) 10 training rows out of "
        r"\d+.*raise partition\.alpha, lower partition\.sites or partition\.minimum",
    ):
        divide(Dirichlet(0.01, 9), rows)


@pytest.mark.parametrize("alpha", [0, -1, "big", True, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [Dirichlet, ByQuantity])
def test_alpha_must_be_a_number_above_0(kind: type, alpha: object) -> None:
    with pytest.raises(ConfigError, match=r"partition\.alpha="):
        kind(alpha=alpha)


@given(st.lists(st.integers(2, 30), min_size=3, max_size=20), st.integers(1, 3))
def test_life_sorts_engines_into_blocks_in_each_split(lives: list[int], sites: int) -> None:
    train = {f"train-{k:02d}": life for k, life in enumerate(lives)}
    test = {f"test-{k:02d}": (1 + k % 4, life) for k, life in enumerate(lives[::-1])}
    rows = engines(train, test)
    shares = divide(ByLife(sites), rows)
    require_division(shares, rows)
    whole = train | {name: length + left for name, (length, left) in test.items()}
    for split in (Split.TRAIN, Split.TEST):
        blocks = [
            [whole[name] for name in set(rows.machine[p][rows.split[p] == split])]
            for p in shares.values()
        ]
        assert max(map(len, blocks)) - min(map(len, blocks)) <= 1
        for shorter, longer in pairwise(blocks):
            assert max(shorter) <= min(longer)


def test_life_needs_machines_with_one_life_that_ends() -> None:
    with pytest.raises(ConfigError, match=r"partition=life.*life of machine a is not known"):
        divide(ByLife(2), rows_of(["a"] * 4 + ["b"] * 4))


def test_condition_gives_each_site_its_rows_of_every_machine() -> None:
    rows = rows_of(list("aaaabbbb"), condition=[0, 1, 3, 1, 0, 0, 1, 3])
    shares = divide(ByCondition(), rows)
    assert list(shares) == ["condition-1", "condition-2", "condition-4"]
    require_division(shares, rows)
    for k, positions in zip((0, 1, 3), shares.values(), strict=True):
        assert set(rows.condition[positions]) == {k}
    assert ByCondition.shares_machines
    alone = rows_of(list("ab"))
    with pytest.raises(ConfigError, match="one only; use another partition"):
        divide(ByCondition(), alone)
    subsets = replace(alone, groups={"subset": np.full(len(alone), "FD001")})
    with pytest.raises(ConfigError, match=r"one only.*data\.subset=FD002"):
        divide(ByCondition(), subsets)


@settings(max_examples=40)
@given(st.integers(1, 5), st.integers(0, 6), st.integers(20, 80))
def test_time_blocks_follow_one_another_with_a_gap(sites: int, purge: int, days: int) -> None:
    rows = rows_of(
        ["a"] * days + ["b"] * days,
        time=[float(t) for t in range(days)] * 2,
        split=([0] * (days // 2) + [1] * (days - days // 2)) * 2,
    )
    try:
        shares = divide(ByTime(sites, purge), rows)
    except ConfigError as error:
        assert purge * sites > days // 4 and "partition.purge" in str(error)
        return
    for split in (Split.TRAIN, Split.VALIDATION):
        times = [rows.time[p][rows.split[p] == split] for p in shares.values()]
        for early, late in pairwise(times):
            if len(early) and len(late):
                assert late.min() - early.max() > purge
    lost = len(rows) - sum(map(len, shares.values()))
    assert lost <= 2 * (2 * (sites - 1) + 1) * purge + 4 and (purge > 0 or lost == 0)


def test_the_last_time_block_stops_where_the_record_cannot_decide_its_labels() -> None:
    days = [float(t) for t in range(100)]
    split = [0] * 50 + [2] * 50
    rows = rows_of(["a"] * 100, time=days, split=split)
    assert rows.time[divide(ByTime(2, 9), rows)["plant-02"]].max() == 99 - 9
    ends = replace(rows, time_to_failure=99 - rows.time)  # runs to failure: nothing is cut short
    assert ends.time[divide(ByTime(2, 9), ends)["plant-02"]].max() == 99


def test_stages_of_engines_that_run_to_failure_lose_no_rows() -> None:
    test = {f"test-{k:02d}": (60 + k, 30) for k in range(6)}
    rows = engines({f"train-{k:02d}": 150 + 9 * k for k in range(12)}, test)
    shares = divide(ByTime(10, reach=125.0), rows)  # a life is hardly longer than labels look
    require_division(shares, rows)
    trained = [rows.time[p][rows.split[p] == Split.TRAIN] for p in shares.values()]
    assert all(late.min() > early.max() for early, late in pairwise(trained))
    asked = divide(ByTime(3, purge=20, reach=125.0), rows)
    assert sum(map(len, asked.values())) < len(rows), "what partition.purge says counts"
    censored = replace(rows, time_to_failure=np.where(rows.machine == "train-00", np.nan,
                                                      rows.time_to_failure))  # fmt: skip
    with pytest.raises(ConfigError, match="125 time units before each cut"):
        divide(ByTime(10, reach=125.0), censored)


def test_paired_gives_one_engine_each_and_its_namesake_to_test() -> None:
    train = {f"train-{k:02d}": 6 for k in range(20)}
    rows = engines(train, {f"test-{k:02d}": (3, 4) for k in range(20)})
    division = Paired(17).divide(rows, (), np.random.default_rng(3))
    assert division.validation is not None and len(division.validation) == 3
    seen = []
    for positions in division.sites.values():
        machines = sorted(set(rows.machine[positions]) - set(division.validation))
        test, training = machines
        assert training == test.replace("test", "train")
        seen += machines
    assert len(seen) == len(set(seen)) == 34
    spares = [set(rows.machine[p]) & set(division.validation) for p in division.sites.values()]
    assert sum(map(len, spares)) == 3 and max(map(len, spares)) == 1
    with pytest.raises(ConfigError, match="21 sites .* has 20"):
        divide(Paired(21), rows)
    with pytest.raises(ConfigError, match="column 'number'"):
        divide(Paired(2), parts(10))


def test_iid_deals_whole_machines_of_a_time_series() -> None:
    rows = engines({f"train-{k:02d}": 5 for k in range(9)})
    shares = divide(Iid(3), rows)
    require_division(shares, rows)
    assert [len(set(rows.machine[p])) for p in shares.values()] == [3, 3, 3]
    same = divide(ByMachine(3), rows)
    assert all(np.array_equal(shares[name], same[name]) for name in shares)

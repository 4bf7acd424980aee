"""The five FedCMAPSS tasks on the real files: who owns what, and what is tested."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fedpdm.config.compose import compose
from fedpdm.config.values import make
from fedpdm.data.rows import Rows, Split
from fedpdm.data.sources.cmapss import SET_POINTS, CmapssSource, read_table
from fedpdm.federation import Federation, Site
from fedpdm.runs.run import Run
from fedpdm.runs.sources import build_source
from fedpdm.server.round_metrics import best_round

pytestmark = pytest.mark.usefixtures("data_folder")


BENCHMARK = ["data.window=30", "data.stride=1", "data.pad=short", "data.features=informative"]


@cache
def federation(task: str, seed: int = 0) -> Federation:
    cfg = compose([f"experiment=fedcmapss_{task}", f"seed={seed}", *BENCHMARK])
    made = make(cfg.task, "task")
    return Federation(build_source(cfg, made, seed), made)


@cache
def sites(task: str, seed: int = 0) -> tuple[tuple[Rows, Site], ...]:
    of = federation(task, seed)
    return tuple((of.rows(n), of.site(n, of.moments(n).scaler())) for n in of.sites)


def engines(rows: Rows, split: Split) -> set[str]:
    return set(rows.machine[rows.split == split].tolist())


# Sites; engines to train on, validate on and test on; test windows and those that are padded.
FACTS = {
    "a": (10, 90, 10, 100, 100, 0),
    "b": (4, 603, 106, 707, 707, 17),
    "c": (10, 209, 40, 248, 248, 11),
    "d": (6, 212, 37, 248, 1488, 918),
    "e": (85, 85, 15, 85, 85, 0),
}


@pytest.mark.parametrize("task", FACTS)
def test_counts(task: str) -> None:
    number, trained, validated, tested, windows, padded = FACTS[task]
    found = sites(task)
    assert len(found) == number
    for split, count in (
        (Split.TRAIN, trained), (Split.VALIDATION, validated), (Split.TEST, tested),
    ):  # fmt: skip
        assert len(set().union(*(engines(rows, split) for rows, _ in found))) == count
    assert sum(len(site.test) for _, site in found) == windows
    assert sum(int(site.test.padded.sum()) for _, site in found) == padded
    for rows, _ in found:
        assert all("test" in name for name in engines(rows, Split.TEST))
        learned = engines(rows, Split.TRAIN) | engines(rows, Split.VALIDATION)
        assert all("train" in name for name in learned)


def test_a_deals_engines_evenly_and_the_seed_picks_them() -> None:
    for rows, _ in sites("a"):
        counts = [len(engines(rows, s)) for s in (Split.TRAIN, Split.VALIDATION, Split.TEST)]
        assert counts == [9, 1, 10]
    other = federation("a", seed=1)
    assert other.rows("plant-01").sha256() != sites("a")[0][0].sha256()


def test_b_gives_each_subset_a_site_and_all_of_them_one_set_of_conditions() -> None:
    of = federation("b")
    assert of.sites == ("FD004", "FD002", "FD003", "FD001") and of.source.conditions == 6
    for name, (rows, _) in zip(of.sites, sites("b"), strict=True):
        assert all(machine.startswith(f"{name}-") for machine in set(rows.machine.tolist()))
        six = name in ("FD002", "FD004")
        assert set(rows.condition.tolist()) == (set(range(6)) if six else {0})
    # One scaler for all: sea-level rows of the four sites share condition 0.
    moments = [of.moments(name) for name in of.sites]
    assert all(m.count[0].min() > 0 for m in moments)
    assert all((m.count[1:] == 0).all() for m in moments[2:])


def test_c_sorts_engines_by_life() -> None:
    lives = {Split.TRAIN: [], Split.TEST: []}  # type: ignore[var-annotated]
    for rows, _ in sites("c"):
        whole = {
            str(m): float((rows.time + rows.time_to_failure)[rows.machine == m].max())
            for m in np.unique(rows.machine)
        }
        own = engines(rows, Split.TRAIN) | engines(rows, Split.VALIDATION)
        assert len(own) in (24, 25) and len(engines(rows, Split.VALIDATION)) == 4
        lives[Split.TRAIN].append([whole[m] for m in own])
        lives[Split.TEST].append([whole[m] for m in engines(rows, Split.TEST)])
    for blocks in lives.values():
        assert all(max(a) <= min(b) for a, b in zip(blocks, blocks[1:], strict=False))  # noqa: RUF007


def test_d_shows_every_engine_to_every_site_in_one_condition_each() -> None:
    found = sites("d")
    validated = engines(found[0][0], Split.VALIDATION)
    assert len(validated) == 37
    for k, (rows, _) in enumerate(found):
        assert set(rows.condition.tolist()) == {k}
        assert engines(rows, Split.VALIDATION) == validated, "the same engines at every site"
        assert len(engines(rows, Split.TRAIN)) == 212 and len(engines(rows, Split.TEST)) == 248
    assert sum(len(rows) for rows, _ in found) == 61_249 + 41_214, "every row once"


def test_d_tests_the_last_row_in_the_condition_with_its_true_remaining_life(
    data_folder: Path,
) -> None:
    """Worked out again from the files alone."""
    table = read_table(data_folder / "cmapss/test_FD004.txt")
    left = np.loadtxt(data_folder / "cmapss/RUL_FD004.txt")
    unit, cycle = table[:, 0].astype(int), table[:, 1]
    condition = np.abs(table[:, 2:3] - SET_POINTS[:, 0]).argmin(axis=1)
    for k, (_, site) in enumerate(sites("d")):
        for machine, time, truth in zip(
            site.test.machine.tolist(), site.test.time, site.test.truth, strict=True
        ):
            own = unit == int(machine.removeprefix("test-"))
            assert time == cycle[own & (condition == k)].max()
            assert truth == left[unit[own][0] - 1] + cycle[own].max() - time
        assert site.test.last.all()


def test_e_pairs_engines_and_spares_fifteen_to_validate_on() -> None:
    validated: Counter[int] = Counter()
    for rows, _ in sites("e"):
        (trained,) = engines(rows, Split.TRAIN)
        assert engines(rows, Split.TEST) == {trained.replace("train", "test")}
        validated[len(engines(rows, Split.VALIDATION))] += 1
    assert validated == {1: 15, 0: 70}


def test_e_runs_although_most_sites_have_nothing_to_validate_on(tmp_path: Path) -> None:
    cfg = compose([
        "experiment=fedcmapss_e", "seed=0", "rounds=1", "training.local_epochs=1", "model=lstm",
        *BENCHMARK, "strategy=fedavg", "partition.sites=96", "data.stride=20",
        "baselines.max_plants=0", "engine=serial",
    ])  # fmt: skip
    task = make(cfg.task, "task")
    from fedpdm.history import History
    from fedpdm.runs.experiment import build

    run = Run(build(cfg, build_source(cfg, task, 0)), cfg, tmp_path / "run")
    summary = run.execute()
    with History.open(tmp_path / "run") as history:
        records = history.rounds()
    scored = [v["validation"]["rmse"] for v in records[-1].sites.values()]
    known = [value for value in scored if value is not None and np.isfinite(value)]
    assert len(scored) == 96 and len(known) == 4
    assert np.isfinite(records[-1].metrics["rmse"])
    assert min(known) <= records[-1].metrics["rmse"] <= max(known), "a mean of those that have any"
    assert summary["best_round"] == best_round(records, task) >= 1
    assert summary["test"]["global"]["n"] == 96


def test_padding_all_training_rows_changes_training_windows_only() -> None:
    cfg = compose(["experiment=fedcmapss_d", *BENCHMARK, "data.pad=all"])
    task = make(cfg.task, "task")
    source = build_source(cfg, task, 0)
    assert isinstance(source, CmapssSource) and source.test_truncated and source.pad_training
    of, short = Federation(source, task), federation("d")
    name = "condition-2"
    rows = of.rows(name)
    assert rows.sha256() == short.rows(name).sha256()
    scaler = of.moments(name).scaler()
    all_rows, some = of.site(name, scaler), short.site(name, scaler)
    assert len(all_rows.train) == int((rows.split == Split.TRAIN).sum()) > len(some.train)
    for split in (Split.VALIDATION, Split.TEST):
        assert np.array_equal(all_rows.windows[split].x, some.windows[split].x)
    first = all_rows.train.take(all_rows.train.padded)
    assert np.array_equal(first.x[0], np.repeat(first.x[0][-1:], 30, axis=0)), "its first row"

"""Two equally good predictors are seldom called different, and too few failures never."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedpdm.data.rows import Floats, Split
from fedpdm.data.windows import Windows
from fedpdm.evaluation.bootstrap import (
    MOST_LEVELS,
    Size,
    average_precision,
    beyond_chance,
    draws,
)
from fedpdm.evaluation.confidence import certainty
from fedpdm.evaluation.scoring import score
from fedpdm.federation import Site
from fedpdm.tasks import Failure, Horizons, RemainingLife, Task


def equal(random: np.random.Generator, machines: int, failing: int) -> tuple[float, Floats]:
    """Return the gain of a predictor over an equally good one, and (B,) resamples of it.

    Risks have a level and a gap before a failure that are the machine's own.
    """
    rows, ahead = 12, 3
    machine = np.repeat(np.arange(machines), rows)
    truth = (machine < failing) & (np.tile(np.arange(rows), machines) >= rows - ahead)
    weights = draws(np.zeros(machines, dtype=np.int64), 200, int(random.integers(2**31)))
    every = np.concatenate([np.ones((1, machines)), weights])
    both = []
    for _ in range(2):
        level, gap = random.normal(0, 0.7, machines), random.normal(2, 1, machines)
        scores = level[machine] + gap[machine] * truth + random.normal(0, 1, len(machine))
        both.append(average_precision(truth, scores, machine, machines)(every).values)
    gain = both[0] - both[1]
    return float(gain[0]), gain[1:]


@pytest.mark.parametrize(("sites", "runs"), [(1, 400), (5, 100)])
def test_equal_predictors_are_called_different_in_few_runs(sites: int, runs: int) -> None:
    random, size = np.random.default_rng(sites), Size(20, 10, 1)
    called = percentile = 0
    for _ in range(runs):
        drawn = [equal(random, 20, 10) for _ in range(sites)]
        called += any(beyond_chance(*gain, size, sites) for gain in drawn)
        ends = [np.quantile(values, [0.025, 0.975]) for _, values in drawn]
        percentile += any(low > 0 or high < 0 for low, high in ends)
    assert called / runs <= 0.07, "0.05 and two standard errors of so few runs"
    assert percentile > called, "the interval alone would say sure too often"


def test_a_real_difference_is_found() -> None:
    values = np.random.default_rng(0).normal(0.2, 0.05, 1000)
    assert beyond_chance(0.2, values, Size(30, 10, 1), 4)
    assert not beyond_chance(0.2, values, Size(30, 10, 1), 400), "one of so many is luck"
    assert not beyond_chance(0.2, values, Size(30, 10, 8), 1), "two freedoms are little"


def make_site(name: str, task: Task, machines: int, failing: int, rows: int = 12) -> Site:
    """Return a site whose first machines fail after their last test window."""
    left = np.tile(np.arange(rows)[::-1] + 1.0, machines)
    machine = np.repeat(np.arange(machines), rows)
    left[machine >= failing] += 1000
    y: Any = left.astype(np.float32)
    if isinstance(task, Horizons):
        y = (left[:, None] <= np.asarray(task.horizons)).astype(np.float32)
    elif isinstance(task, Failure):
        y = (left <= 4).astype(np.int64)
    none = np.zeros(len(y), dtype=bool)
    names = np.array([f"m{number}" for number in machine])
    x = np.zeros((len(y), 1), dtype=np.float32)
    return Site(name, {Split.TEST: Windows(x, y, left, names, left, none, none)})


def judged(
    task: Task, sizes: dict[str, tuple[int, int]], rows: int = 12, shared: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the gain's intervals where the federation knows more than each site alone."""
    random = np.random.default_rng(0)
    sites = [make_site(name, task, *size, rows) for name, size in sizes.items()]
    ours: Any = {}
    theirs: Any = {}
    for site in sites:
        ours[site.name], theirs[site.name] = (
            {Split.TEST: said if isinstance(task, RemainingLife) else 1 / (1 + np.exp(-said))}
            for said in np.stack([site.test.y, 0 * site.test.y])
            + random.normal(0, 0.3, (2, *site.test.y.shape))
        )
    found = certainty(ours, {"alone": theirs}, sites, task, resamples=300, seed=1, shared=shared)
    assert found is not None
    return found, {"ours": score(ours, sites, task, Split.TEST),
                   "alone": score(theirs, sites, task, Split.TEST)}  # fmt: skip


def test_with_fewer_than_ten_failures_the_value_is_shown_and_no_verdict() -> None:
    found, _ = judged(Failure(4), {"many": (20, 12), "few": (20, 4)})
    gain = found["gain"]["alone"]
    many, few = gain["per_site"]["many"], gain["per_site"]["few"]
    assert (many["machines"], many["failing"], many["sure"]) == (20, 12, True)
    assert many["reason"] is None
    assert (few["machines"], few["failing"], few["sure"]) == (20, 4, None)
    assert few["low"] > 0 and few["value"] > 0, "the interval is there and leaves 0 out"
    assert few["reason"] == "only 4 machines failed: too few to be sure"
    assert gain["global"]["failing"] == 16 and gain["global"]["sure"] is True
    assert gain["mean_site"]["sure"] is True
    assert found["per_site"]["few"]["failing"] == 4 and found["global"]["reason"] is None


def test_the_nearest_horizon_counts_and_of_lives_the_machines() -> None:
    found, _ = judged(Horizons([4, 1005]), {"a": (15, 3), "b": (15, 4)})
    assert found["per_site"]["a"]["failing"] == 3, "all fail within the farther horizon"
    gain = found["gain"]["alone"]
    assert gain["global"]["sure"] is None
    assert gain["global"]["reason"] == "only 7 machines failed: too few to be sure"
    found, _ = judged(RemainingLife(30.0), {"a": (15, 15), "b": (16, 16)})
    gain = found["gain"]["alone"]["per_site"]
    assert gain["a"]["sure"] is None and gain["a"]["failing"] is None
    assert gain["a"]["low"] is None and gain["b"]["sure"] is True


def test_where_coverage_was_not_shown_there_is_no_interval() -> None:
    for task, sizes in (
        (Failure(4), {"a": (7, 5)}), (Failure(4), {"a": (20, 2)}),
        (Failure(4), {"a": (4, 3), "b": (3, 3)}), (RemainingLife(30.0), {"a": (15, 15)}),
    ):  # fmt: skip
        found, _ = judged(task, sizes)
        for entry in (found["global"], found["gain"]["alone"]["global"]):
            assert entry["low"] is None and entry["value"] is not None
            assert entry["reason"] == "too few machines for an interval"
        assert found["gain"]["alone"]["global"]["sure"] is None
    for task, sizes in (
        (Failure(4), {"a": (8, 3)}), (Failure(4), {"a": (5, 3), "b": (4, 3)}),
        (RemainingLife(30.0), {"a": (16, 16)}),
    ):  # fmt: skip
        found, _ = judged(task, sizes)
        gain = found["gain"]["alone"]["global"]
        assert gain["low"] < gain["value"] < gain["high"]


def test_machines_that_sites_share_count_once_and_single_failures_tell_nothing() -> None:
    found, _ = judged(Failure(4), {"a": (20, 6), "b": (20, 6)}, shared=True)
    assert found["global"]["failing"] == 6 and found["global"]["machines"] == 20
    found, _ = judged(Failure(4), {f"site{i}": (5, 1) for i in range(11)})
    alone = found["gain"]["alone"]["global"]
    assert alone["failing"] == 11 and alone["sure"] is None
    assert alone["low"] is None or "one machine failed at each site" in alone["reason"]


def test_the_value_is_that_of_the_table_however_many_scores_there_are() -> None:
    found, table = judged(Failure(4), {"a": (400, 380), "b": (12, 10)})
    assert 380 * 4 > MOST_LEVELS
    name = "average_precision"
    ours, alone = table["ours"], table["alone"]
    for key in ("global", "mean_site"):
        assert found[key]["value"] == pytest.approx(ours[key][name], abs=1e-12)
        gain = found["gain"]["alone"][key]["value"]
        assert gain == pytest.approx(ours[key][name] - alone[key][name], abs=1e-12)
    own = found["per_site"]["a"]
    assert own["value"] == pytest.approx(ours["per_site"]["a"][name], abs=1e-12)
    assert own["low"] < own["value"] < own["high"]


def test_a_site_of_failures_alone_has_no_value_as_in_its_metrics() -> None:
    found, scores = judged(Failure(4), {"all": (12, 12)}, rows=4)
    assert scores["ours"]["per_site"]["all"]["average_precision"] is None
    assert found["per_site"]["all"]["value"] is None
    assert found["gain"]["alone"]["per_site"]["all"]["value"] is None

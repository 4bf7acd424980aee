"""The benchmark of the virtual clock: its commands can be typed, its table says what there is."""

from __future__ import annotations

from typing import Any

from benchmarks import clock
from fedpdm.config.compose import compose
from fedpdm.config.schema import check_keys


def test_every_setting_is_a_command_and_no_two_share_a_folder() -> None:
    jobs = [clock.job(name, seed) for name in clock.SETTINGS for seed in clock.SEEDS]
    assert len({job.folder for job in jobs}) == len(jobs)
    for job in jobs[:: len(clock.SEEDS)]:
        check_keys(compose(list(job.overrides)))


def test_a_score_is_reached_when_three_evaluations_say_so() -> None:
    curve = [[10.0, 1, 0.9], [20.0, 2, 0.1], [30.0, 3, 0.5], [40.0, 4, 0.9], [50.0, 5, 0.9]]
    assert clock.reached(curve, 0.5) == [30.0, 3, 0.5]
    assert clock.reached(curve, 0.7) == [50.0, 5, 0.9]
    assert clock.reached(curve, 0.8) is None
    assert clock.best(curve) == [10.0, 1, 0.9]


def test_the_table_compares_within_a_seed_and_says_what_never_came() -> None:
    def found(*scores: float, step: float = 10.0) -> dict[str, Any]:
        curve = [[step * (n + 1), 100 * (n + 1), score] for n, score in enumerate(scores)]
        return {"test": 0.4, "baselines": {"hgb": 0.5}, "curve": curve, "messages": {}}

    stored = {name: {"0": found(0.1, 0.1, 0.1)} for name in clock.SETTINGS}
    stored[clock.FEDAVG] = {"0": found(0.2, 0.3, step=100.0)}
    stored["FedBuff, K = 10"] = {"0": found(0.3, 0.3, 0.3), "1": found(0.9)}
    lines = clock.table(stored).splitlines()
    (row,) = [line for line in lines if line.startswith("| FedBuff")]
    assert row.endswith("| 0.300 | 10 | 30 | 0.15 | 1.50 | 0.400 | 1 |")
    assert sum("never" in line for line in lines) == len(clock.SETTINGS) - 2
    assert lines[-1] == "Test AP of baselines, mean of sites: hgb 0.500."
    assert clock.table({}).count("not measured") == len(clock.SETTINGS)

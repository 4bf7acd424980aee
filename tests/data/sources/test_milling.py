"""Generated milling runs: what drives which sensors, and that no run is in two splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedpdm.data.normalise import moments
from fedpdm.data.rows import Rows, Split
from fedpdm.data.sources.milling import OPERATIONS, SEES, MillingSource
from fedpdm.data.windows import segment_starts, window_ends
from fedpdm.errors import ConfigError
from fedpdm.federation import Federation
from fedpdm.tasks import Operation, Program
from fedpdm.testing import check_data_source

SMALL: dict[str, Any] = {"sites": {}, "runs": 10, "window": 8, "stride": 4, "channels": 2}


def test_it_keeps_the_contract_of_data_sets() -> None:
    check_data_source(lambda: MillingSource(**SMALL, seed=1))


def test_groups_are_those_of_the_document_and_hold_every_feature_once() -> None:
    source = MillingSource(sites={})
    *sensors, states = source.groups.values()
    assert len(sensors) == 16 and sum(map(len, sensors)) == 155 and len(states) == 4
    named = [name for group in source.groups.values() for name in group]
    assert tuple(named) == source.features
    assert set(source.levels) == set(states)


def test_windows_of_a_run_and_of_a_line_stay_together() -> None:
    rows = MillingSource(**SMALL, seed=3).rows("shop-1")
    for run in np.unique(rows.machine):
        assert len(np.unique(rows.split[rows.machine == run])) == 1
    for split, least in ((Split.TRAIN, 6), (Split.VALIDATION, 2), (Split.TEST, 2)):
        assert len(np.unique(rows.machine[rows.split == split])) == least
    ends, _ = window_ends(rows, 8, 4, np.ones(len(rows), dtype=bool))
    start = segment_starts(rows)
    program = rows.groups["program"]
    for end in ends[::7]:
        assert end - 7 >= start[end] and set(program[end - 7 : end + 1]) == {program[end]}


def told(rows: Rows, names: tuple[str, ...]) -> float:
    """Return the largest share of a channel's variance that the lines of the programs explain."""
    line = np.cumsum(np.r_[True, (rows.life[1:] != rows.life[:-1])]) - 1
    shares = []
    for name in names:
        values = rows.values[:, rows.features.index(name)]
        means = np.bincount(line, values) / np.bincount(line)
        shares.append(means[line].var() / values.var())
    return float(max(shares))


@pytest.mark.parametrize(
    ("decisive", "irrelevant"), [("proximity", "motor_current"), ("audio", "proximity")]
)
def test_planted_groups_see_the_line_or_nothing(decisive: str, irrelevant: str) -> None:
    source = MillingSource(**SMALL, decisive=decisive, irrelevant=irrelevant, noise=0.1)
    rows = source.rows("shop-1")
    shares = {name: told(rows, group) for name, group in source.groups.items()}
    # Even noise has means that differ a little from line to line: one in so many rows.
    assert shares[irrelevant] < 0.2 and min(v for k, v in shares.items() if k != irrelevant) > 0.5
    assert source.plan.sees[decisive] == SEES["proximity"] and source.plan.sees[irrelevant] == ()
    assert sorted(source.plan.sees.values()) == sorted(SEES.values())


def test_a_shop_does_not_show_in_the_irrelevant_group() -> None:
    source = MillingSource(**SMALL, heterogeneity=5.0, noise=0.1)
    here, there = (source.rows(site).values.mean(axis=0) for site in source.sites[:2])
    apart = dict(zip(source.features, np.abs(here - there), strict=True))
    gaps = {name: max(apart[f] for f in group) for name, group in source.groups.items()}
    assert gaps["motor_current"] < 0.05 < gaps["proximity"]


def test_no_threshold_on_one_feature_gives_an_operation_away() -> None:
    source = MillingSource(**SMALL | {"runs": 30}, seed=2)
    rows = source.rows("shop-1")
    kinds, counts = np.unique(rows.groups["operation"], return_counts=True)
    for kind in kinds[counts > 500]:
        mine = rows.groups["operation"] == kind
        for values in rows.values.T:
            for limit in np.quantile(values, np.linspace(0.05, 0.95, 10)):
                above = values > limit
                hit = max(np.mean(mine[above]) if above.any() else 0,
                          np.mean(mine[~above]) if (~above).any() else 0)  # fmt: skip
                assert hit < 0.9


def test_codes_pass_the_scaler_and_numbers_do_not() -> None:
    source = MillingSource(**SMALL)
    federation = Federation(source, Program())
    total = federation.moments("shop-1") + federation.moments("shop-2")
    scaler = total.scaler()
    codes = [source.features.index(name) for name in source.levels]
    assert (scaler.mean[0, codes] == 0).all() and (scaler.scale[0, codes] == 1).all()
    x = federation.site("shop-1", scaler).train.x
    assert set(np.unique(x[:, :, codes])) <= {0.0, 1.0, 2.0}
    others = np.delete(np.arange(len(source.features)), codes)
    assert np.array_equal(
        scaler.mean[0, others],
        (moments(federation.rows("shop-1"), 1) + moments(federation.rows("shop-2"), 1))
        .scaler()
        .mean[0, others],
    )


def test_targets_are_the_line_and_the_operation_of_a_row() -> None:
    source = MillingSource(**SMALL)
    rows = source.rows("shop-2")
    tokens = Program().targets(rows)[0]
    assert tokens.shape == (len(rows), 7, 8)
    kinds = Operation(OPERATIONS).targets(rows)[0]
    assert (np.array(OPERATIONS)[kinds] == rows.groups["operation"]).all()


@pytest.mark.parametrize(
    "given",
    [{"runs": 3}, {"noise": -1}, {"decisive": "smell"}, {"reach": 3.0}, {"lines": 1},
     {"decisive": "audio", "irrelevant": "audio"}, {"channels": 0}],
)  # fmt: skip
def test_settings_without_meaning_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="data"):
        MillingSource(**SMALL | given)

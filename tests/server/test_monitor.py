"""When a round is bad, and how the monitor says so."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpdm.errors import ConfigError
from fedpdm.server.monitor import AcceptedRound, MonitorSettings, RoundMonitor

GOOD = [AcceptedRound(1, 0.5, 0.4, 20.0), AcceptedRound(2, 0.3, 0.6, 22.0)]
FINE = {"loss": 0.3, "metric": 0.6, "higher_is_better": True, "parameter_norm": 22.0}


def watch(**settings: object) -> RoundMonitor:
    return RoundMonitor(MonitorSettings(**settings), GOOD)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"loss": math.nan}, "the loss is nan"),
        ({"loss": math.inf}, "the loss is inf"),
        ({"metric": math.nan}, "the validation metric is nan"),
        ({"parameter_norm": math.inf}, "the parameter norm is inf"),
        ({"loss": 3.0}, None),
        ({"loss": 3.01}, r"loss 3.01 is over 10 times the best so far \(0.3, round 2\)"),
        ({"parameter_norm": 44.0}, None),
        ({"parameter_norm": 44.1}, r"norm 44.1 is over 2 times .* \(22, round 2\)"),
        ({"metric": 0.3}, None),
        ({"metric": 0.29}, r"metric 0.29 is over 50% below the best so far \(0.6, round 2\)"),
        ({"metric": 0.6, "higher_is_better": False}, None),
        ({"metric": 0.61, "higher_is_better": False}, r"over 50% above .* \(0.4, round 1\)"),
        ({"loss": None, "metric": None, "parameter_norm": None}, None),
    ],
)
def test_a_round_is_judged_against_the_good_ones(change, reason):
    found = watch().judge(3, **{**FINE, **change})
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(reason, found)


def test_limits_are_settings():
    bad = {**FINE, "loss": 3.5, "metric": 0.1, "parameter_norm": 60.0}
    assert "loss" in watch().judge(3, **bad)
    assert "norm" in watch(loss_factor=20).judge(3, **bad)
    assert "metric" in watch(loss_factor=20, norm_factor=3).judge(3, **bad)
    assert watch(loss_factor=20, norm_factor=3, metric_fall=None).judge(3, **bad) is None


@pytest.mark.parametrize(
    "settings",
    [{"loss_factor": 1.0}, {"norm_factor": math.nan}, {"metric_fall": 0.0}, {"max_rollbacks": -1}],
)
def test_limits_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigError, match=f"monitor.{next(iter(settings))}="):
        MonitorSettings(**settings)


def test_the_first_round_is_bad_only_if_it_is_not_finite():
    monitor = RoundMonitor(MonitorSettings())
    assert monitor.judge(1, 1e9, 0.0, True, 1e9) is None
    assert monitor.judge(1, math.nan, 0.0, True, 1.0) is not None
    monitor.accept(AcceptedRound(0, None, None, 10.0))  # the untrained model
    assert "norm" in (monitor.judge(1, 1e9, 0.0, True, 21.0) or "")


def test_best_values_that_have_no_multiples_judge_nothing():
    monitor = RoundMonitor(MonitorSettings(), [AcceptedRound(1, 0.0, -0.1, 0.0)])
    assert monitor.judge(2, 5.0, -0.9, True, 7.0) is None


def test_a_bad_round_that_was_let_pass_does_not_become_the_measure():
    monitor = watch()
    monitor.accept(AcceptedRound(3, math.nan, math.nan, math.nan))
    assert monitor.judge(4, **FINE) is None
    assert "loss" in monitor.judge(4, **{**FINE, "loss": 3.01})
    assert "norm" in monitor.judge(4, **{**FINE, "parameter_norm": 44.1})


rounds = st.lists(
    st.builds(
        AcceptedRound,
        round_num=st.integers(1, 30),
        loss=st.none() | st.floats(0.01, 5),
        metric=st.none() | st.floats(0.01, 1),
        parameter_norm=st.none() | st.floats(1, 50),
    ),
    max_size=10,
    unique_by=lambda good: good.round_num,
)
values = st.none() | st.floats(0, 100)


@given(good=rounds, loss=values, metric=values, norm=values, higher=st.booleans())
def test_a_rebuilt_monitor_judges_as_the_one_that_never_stopped(good, loss, metric, norm, higher):
    lived = RoundMonitor(MonitorSettings())
    for one in sorted(good, key=lambda g: g.round_num):
        lived.accept(one)
    resumed = RoundMonitor(MonitorSettings())
    resumed.accept(AcceptedRound(99, 1e-9, 1.0, 1e-9))
    resumed.rebuild(good)
    arguments = (31, loss, metric, higher, norm)
    assert lived.judge(*arguments) == resumed.judge(*arguments)
    assert lived.judge(*arguments) == lived.judge(*arguments)  # judging changes nothing


def test_the_best_round_so_far_is_the_measure_and_not_the_last_one():
    monitor = watch()
    monitor.accept(AcceptedRound(3, 2.9, 0.31, 30.0))
    assert "the best so far (0.3, round 2)" in monitor.judge(4, **{**FINE, "loss": 3.1})
    assert "the best so far (0.6, round 2)" in monitor.judge(4, **{**FINE, "metric": 0.2})
    assert monitor.judge(4, **{**FINE, "parameter_norm": 59.0}) is None  # norms follow the last
    monitor.accept(AcceptedRound(4, 0.3, 0.6, 10.0))
    assert "(10, round 4)" in monitor.judge(5, **{**FINE, "parameter_norm": 20.1})


def test_a_round_accepted_again_undoes_what_came_after():
    monitor = watch()
    monitor.accept(AcceptedRound(3, 0.01, 0.99, 40.0))
    monitor.accept(AcceptedRound(2, 0.4, 0.5, 23.0))
    assert [good.round_num for good in monitor.accepted] == [1, 2]
    assert monitor.judge(3, 3.9, 0.26, True, 46.0) is None

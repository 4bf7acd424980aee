"""When a round is bad, and how the monitor says so."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from fedpdm.errors import ConfigError
from fedpdm.server.monitor import Judged, MonitorSettings

GOOD = [Judged(1, 0.5, 0.4, 20.0), Judged(2, 0.3, 0.6, 22.0)]
FINE = {"loss": 0.3, "metric": 0.6, "parameter_norm": 22.0, "higher_is_better": True}


def judge(change: dict[str, Any], *later: Judged, **limits: Any) -> str:
    """Return why a round after ``GOOD`` and those ``later`` is bad; "" if it is not."""
    values = {**FINE, **change}
    higher = values.pop("higher_is_better")
    before = [*GOOD, *later]
    now = Judged(len(before) + 1, **values)
    return MonitorSettings(**limits).judge(now, before, higher) or ""


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
    found = judge(change)
    assert found == "" if reason is None else re.search(reason, found)


def test_limits_are_settings():
    bad = {"loss": 3.5, "metric": 0.1, "parameter_norm": 60.0}
    assert "loss" in judge(bad)
    assert "norm" in judge(bad, loss_factor=20)
    assert "metric" in judge(bad, loss_factor=20, norm_factor=3)
    assert judge(bad, loss_factor=20, norm_factor=3, metric_fall=None) == ""


@pytest.mark.parametrize(
    "settings",
    [{"loss_factor": 1.0}, {"norm_factor": math.nan}, {"metric_fall": 0.0}, {"max_rollbacks": -1}],
)
def test_limits_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigError, match=f"monitor.{next(iter(settings))}="):
        MonitorSettings(**settings)


def test_the_first_round_is_bad_only_if_it_is_not_finite():
    judge = MonitorSettings().judge
    assert judge(Judged(1, 1e9, 0.0, 1e9), [], True) is None
    assert judge(Judged(1, math.nan, 0.0, 1.0), [], True) is not None
    untrained = Judged(0, None, None, 10.0)
    assert "norm" in (judge(Judged(1, 1e9, 0.0, 21.0), [untrained], True) or "")


def test_best_values_that_have_no_multiples_judge_nothing():
    before = [Judged(1, 0.0, -0.1, 0.0)]
    assert MonitorSettings().judge(Judged(2, 5.0, -0.9, 7.0), before, True) is None


def test_a_bad_round_that_was_let_pass_does_not_become_the_measure():
    bad = Judged(3, math.nan, math.nan, math.nan)
    assert judge({}, bad) == ""
    assert "loss" in judge({"loss": 3.01}, bad)
    assert "norm" in judge({"parameter_norm": 44.1}, bad)


def test_the_best_round_so_far_is_the_measure_and_not_the_last_one():
    worse = Judged(3, 2.9, 0.31, 30.0)
    assert "the best so far (0.3, round 2)" in judge({"loss": 3.1}, worse)
    assert "the best so far (0.6, round 2)" in judge({"metric": 0.2}, worse)
    assert judge({"parameter_norm": 59.0}, worse) == ""  # norms follow the last
    smaller = Judged(4, 0.3, 0.6, 10.0)
    assert "(10, round 4)" in judge({"parameter_norm": 20.1}, worse, smaller)

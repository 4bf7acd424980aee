"""Thresholds against brute force: the best F1, a budget that is kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpdm.errors import ConfigError
from fedpdm.evaluation.protocol import Costs, ThresholdPolicy
from fedpdm.evaluation.thresholds import choose
from fedpdm.tasks.metrics import at_threshold
from tests.tasks.test_metrics import Labelled, labelled_scores


@settings(max_examples=100)
@given(labelled_scores(2))
def test_the_default_has_the_greatest_f1_of_all(case: Labelled) -> None:
    target, scores = case
    threshold = choose(ThresholdPolicy(), target, scores)
    if not 0 < target.sum() < len(target):
        assert threshold is None
        return
    assert threshold is not None
    best = max(at_threshold(target, scores, level)["f1"] for level in set(scores))  # type: ignore[type-var]
    assert at_threshold(target, scores, threshold)["f1"] == pytest.approx(best)


@settings(max_examples=100)
@given(labelled_scores(1), st.floats(0.01, 0.9))
def test_the_budget_is_kept_and_used_up(case: Labelled, budget: float) -> None:
    target, scores = case
    threshold = choose(ThresholdPolicy("false_alarms", budget=budget), target, scores)
    if target.all():
        assert threshold is None
        return
    assert threshold is not None
    healthy = scores[target == 0]
    assert (healthy >= threshold).mean() <= budget + 1e-12
    lower = [level for level in set(scores) if level < threshold]
    assert not lower or (healthy >= max(lower)).mean() > budget


@settings(max_examples=60)
@given(
    labelled_scores(2),
    st.data(),
    st.sampled_from([ThresholdPolicy(), ThresholdPolicy("false_alarms", budget=0.3)]),
)
def test_a_weight_is_a_number_of_windows(
    case: Labelled, data: st.DataObject, how: ThresholdPolicy
) -> None:
    target, scores = case
    counts = data.draw(st.lists(st.integers(1, 3), min_size=len(target), max_size=len(target)))
    repeated = choose(how, np.repeat(target, counts), np.repeat(scores, counts))
    weighed = choose(how, target, scores, np.array(counts, dtype=float))
    assert weighed == repeated
    assert choose(how, target, scores, np.ones(len(target))) == choose(how, target, scores)


def test_what_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="evaluate.threshold=f2 is unknown; choose f1"):
        ThresholdPolicy("f2")
    with pytest.raises(ConfigError, match="evaluate.threshold_scope=world"):
        ThresholdPolicy(scope="world")
    with pytest.raises(ConfigError, match="evaluate.false_alarm_budget=0"):
        ThresholdPolicy(budget=0)
    with pytest.raises(ConfigError, match=r"sites\.pune\.costs\.mised is unknown"):
        Costs.of({"mised": 1}, "sites.pune.costs")
    with pytest.raises(ConfigError, match=r"evaluate\.costs\.missed=-1 must be"):
        Costs.of({"missed": -1}, "evaluate.costs")

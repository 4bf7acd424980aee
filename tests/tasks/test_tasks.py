"""Tasks: censoring, nesting, losses and scores by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from fedpdm.data.rows import Rows
from fedpdm.errors import ConfigError
from fedpdm.tasks import Failure, Horizons, RemainingLife

NAN = float("nan")


def rows(time_to_failure: list[float], observed: list[float]) -> Rows:
    count = len(observed)
    return Rows(
        features=("x",),
        values=np.zeros((count, 1)),
        machine=np.array(["m"] * count),
        time=np.arange(count, dtype=float),
        life=np.zeros(count, dtype=np.int64),
        time_to_failure=np.array(time_to_failure),
        observed=np.array(observed),
        split=np.zeros(count, dtype=np.int8),
        condition=np.zeros(count, dtype=np.int64),
    )


CASE = rows([2.0, 5.0, 5.1, NAN, NAN], [2.0, 5.0, 5.1, 9.0, 4.9])


def test_failure_within_the_horizon_and_what_is_censored() -> None:
    target, _, known = Failure(horizon=5.0).targets(CASE)
    assert target.tolist()[:4] == [1, 1, 0, 0]
    assert known.tolist() == [True, True, True, True, False], "4.9 days watched are not 5"


def test_horizons_are_known_only_where_the_longest_is() -> None:
    target, _, known = Horizons([2.0, 5.0, 9.0]).targets(CASE)
    assert target[:3].tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]
    assert known.tolist() == [True, True, True, True, False]


def test_remaining_life_is_capped_for_training_and_whole_for_the_truth() -> None:
    target, truth, known = RemainingLife(cap=4.0).targets(CASE)
    assert target.tolist() == [0.5, 1.0, 1.0, 1.0, 1.0]
    np.testing.assert_array_equal(truth, [2.0, 5.0, 5.1, NAN, NAN])
    assert known.all(), "a life watched longer than the cap is at the cap"
    assert not RemainingLife(cap=6.0).targets(CASE)[2][4]


def test_a_given_label_is_the_target() -> None:
    labelled = replace(CASE, label=np.array([0, 1, 0, 1, 0]))
    target, _, known = Failure(horizon=None).targets(labelled)
    assert target.tolist() == [0, 1, 0, 1, 0] and known.all()
    for task in (Horizons([1.0]), RemainingLife(5.0)):
        with pytest.raises(ConfigError, match="only labels"):
            task.targets(labelled)


@given(st.lists(st.floats(-30, 30), min_size=3, max_size=3))
def test_probabilities_of_longer_horizons_are_never_smaller(logits: list[float]) -> None:
    scores = Horizons([1.0, 2.0, 3.0]).scores(torch.tensor([logits]))[0]
    assert np.all(np.diff(scores) >= 0) and np.all((scores >= 0) & (scores <= 1))


def test_horizon_scores_are_one_minus_survival() -> None:
    logits = torch.tensor([[0.3, -1.0]])
    hazard = torch.sigmoid(logits)[0].tolist()
    expected = [hazard[0], 1 - (1 - hazard[0]) * (1 - hazard[1])]
    assert Horizons([1.0, 2.0]).scores(logits)[0].tolist() == pytest.approx(expected)


def test_horizon_loss_is_the_likelihood_of_the_interval() -> None:
    logits = torch.tensor([[0.3, -1.0, 2.0]])
    h = torch.sigmoid(logits)[0]
    task = Horizons([1.0, 2.0, 3.0])
    second = -(torch.log(1 - h[0]) + torch.log(h[1]))  # failed in the second interval
    assert task.loss(logits, torch.tensor([[0.0, 1.0, 1.0]])).item() == pytest.approx(float(second))
    never = -torch.log(1 - h).sum()
    assert task.loss(logits, torch.zeros(1, 3)).item() == pytest.approx(float(never), rel=1e-5)


def test_failure_score_is_the_softmax_of_the_second_class() -> None:
    logits = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    assert Failure(1.0).scores(logits).tolist() == pytest.approx([0.880797, 0.5])
    assert torch.equal(
        Failure(1.0).loss(logits, torch.tensor([1, 0])),
        functional.cross_entropy(logits, torch.tensor([1, 0])),
    )


def test_remaining_life_scores_are_in_the_datas_unit_and_clipped() -> None:
    scores = RemainingLife(125.0).scores(torch.tensor([[-0.2], [0.5], [1.4]]))
    assert scores.tolist() == [0.0, 62.5, 125.0]


def test_trivial_predictors() -> None:
    assert Failure(1.0).trivial(np.array([0, 0, 0, 1])) == 0.25
    assert RemainingLife(100.0).trivial(np.array([0.2, 0.4])) == pytest.approx(30.0)
    assert Horizons([1, 2]).trivial(np.array([[0, 1], [0, 0]])).tolist() == [0.0, 0.5]


def test_better_knows_the_direction_and_the_unknown() -> None:
    assert Failure(1.0).better(0.5, 0.4) and not Failure(1.0).better(0.4, 0.4)
    assert RemainingLife(1.0).better(3.0, 4.0) and not RemainingLife(1.0).better(4.0, 3.0)
    assert Failure(1.0).better(0.1, None) and not Failure(1.0).better(None, 0.1)
    assert not Failure(1.0).better(NAN, None) and Failure(1.0).better(0.1, NAN)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Failure(0), "task.horizon=0"),
        (lambda: Failure(-3), "task.horizon=-3"),
        (lambda: Horizons([]), "task.horizons"),
        (lambda: Horizons([3, 2]), "task.horizons"),
        (lambda: Horizons([2, 2]), "task.horizons"),
        (lambda: Horizons(None), "task=horizons needs times"),
        (lambda: RemainingLife(None), "task=rul needs times"),
        (lambda: RemainingLife(-1), "task.cap=-1"),
        (lambda: Failure(None).targets(CASE), "task.horizon is needed"),
    ],
)
def test_impossible_tasks_are_refused_by_name(make: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()  # type: ignore[operator]

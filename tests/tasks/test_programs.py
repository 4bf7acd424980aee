"""Scores of written programs and of operations, in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedpdm.data import programs
from fedpdm.data.programs import LENGTH, PARTS
from fedpdm.errors import ConfigError
from fedpdm.tasks import Operation, Program

TRUE = ["G1 X-12.50 F400", "M30", "G0 X5.00 Y7.50", "M3 S2000"]


def measured(found: list[str], true: list[str] = TRUE) -> dict[str, float | None]:
    scores = programs.encode(found)[:, 1:].reshape(len(found), -1).astype(np.float64)
    return Program().metrics(programs.encode(true), np.zeros(len(true)), scores)


def test_right_lines_score_one_everywhere() -> None:
    found = measured(TRUE)
    assert found.pop("n") == 4 and set(found.values()) == {1.0}


def test_a_wrong_digit_is_one_digit_one_number_and_one_line() -> None:
    found = measured(["G1 X-12.60 F400", *TRUE[1:]])
    assert found["exact_match"] == 3 / 4
    assert found["number_accuracy"] == 4 / 5 and found["digit_accuracy"] == 19 / 20
    assert found["sign_accuracy"] == found["command_accuracy"] == found["type_accuracy"] == 1.0
    assert found["token_accuracy"] == 13 / 14


def test_tokens_that_are_missing_are_wrong_and_ends_are_not_counted_as_tokens() -> None:
    found = measured(["G1", *TRUE[1:]])
    assert found["token_accuracy"] == 10 / 14
    assert found["parameter_accuracy"] == 3 / 5 and found["number_accuracy"] == 3 / 5
    # Of 14 tokens and 4 ends four are missing; the end is where padding, of its type, stands.
    assert found["type_accuracy"] == pytest.approx(14 / 18)
    assert found["digit_accuracy"] == 12 / 20  # zeros where no number stands are not right by luck


def test_the_most_frequent_line_is_the_trivial_answer() -> None:
    target = programs.encode(["M30", "M30", *TRUE[:1]])
    constant = Program().trivial(target)
    line = np.concatenate([np.zeros((1, 1, len(PARTS))), constant.reshape(1, LENGTH - 1, -1)], 1)
    assert programs.decode(line) == ["M30"]


def test_no_lines_have_no_scores() -> None:
    none = np.zeros((0, LENGTH, len(PARTS)), dtype=np.uint8)
    scores = Program().scores(torch.zeros(0, Program.outputs))
    found = Program().metrics(none, np.zeros(0), scores)
    assert found.pop("n") == 0 and set(found.values()) == {None}


def test_operations_are_scored_class_by_class() -> None:
    task = Operation(["a", "b", "c"])
    target = np.array([0, 0, 0, 1])
    scores = np.eye(3)[[0, 0, 1, 1]]
    found = task.metrics(target, target.astype(float), scores)
    assert found["accuracy"] == 3 / 4 and found["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert task.trivial(target).tolist() == [0.75, 0.25, 0.0]
    with pytest.raises(ConfigError, match="operation"):
        Operation(None)

"""FedNova: how many steps a site makes does not decide where the model goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from fedpdm.strategies.fednova import FedNova
from fedpdm.testing.federated import distance, federate
from fedpdm.wire.flower import become_server
from fedpdm.wire.records import ARRAYS, METRICS, from_record, metric_record, to_record
from tests.strategies.both import SGD
from tests.strategies.quadratics import Bowl, optimum, settle

BUSY = {"p0": Bowl((1.0, 1.0), (4.0, -3.0), rows=8), "p1": Bowl((1.0, 1.0), (-5.0, 2.0), rows=24)}
"""One curvature, and one site that makes three times the steps of the other."""


def test_with_equal_steps_it_is_fedavg(tmp_path: Path) -> None:
    once = replace(SGD, batch_size=10_000, step_size=1)  # one batch each, whatever their size
    runs = [
        federate(tmp_path / s, s, rounds=3, settings=once, double=True)
        for s in ("fedavg", "fednova")
    ]
    assert distance(runs[0].weights(), runs[1].weights()) < 1e-12
    assert distance(runs[0].weights(0), runs[0].weights()) > 1e-4


def test_with_unequal_steps_it_is_not(tmp_path: Path) -> None:
    runs = [federate(tmp_path / s, s, rounds=2, settings=SGD) for s in ("fedavg", "fednova")]
    assert distance(runs[0].weights(), runs[1].weights()) > 1e-5


def test_its_error_shrinks_with_the_step_and_is_far_below_fedavgs(tmp_path: Path) -> None:
    goal = optimum(BUSY, by_rows=True)
    errors = {
        (name, rate): np.abs(
            settle(tmp_path / f"{name}{rate}", name, BUSY, rounds=round(0.9 / rate), rate=rate)
            - goal
        ).max()
        for name, rate in (("fednova", 0.016), ("fednova", 0.008), ("fedavg", 0.016))
    }
    assert errors["fednova", 0.016] < 0.1 * errors["fedavg", 0.016]
    assert errors["fednova", 0.008] < 0.6 * errors["fednova", 0.016]
    assert errors["fednova", 0.016] > 1e-4, "of the order of the step, not none"


def test_flowers_own_loop_gets_the_formula_of_the_paper() -> None:
    become_server()
    strategy, sent = FedNova(), np.array([1.0, -2.0])
    strategy._sent.arrays = {"w": sent}
    told = [(np.array([2.0, 0.0]), 30, 3.0), (np.array([-1.0, 1.0]), 10, 8.0)]
    replies = []
    for trained, examples, steps in told:
        content = RecordDict({
            ARRAYS: to_record({"w": trained}),
            METRICS: metric_record(examples, {"local_steps": steps}),
        })  # fmt: skip
        replies.append(Message(content, reply_to=Message(RecordDict(), 1, "train")))
    record, _ = strategy.aggregate_train(1, replies)
    shares = [0.75, 0.25]
    effective = sum(p * steps for p, (_, _, steps) in zip(shares, told, strict=True))
    moved = sum(p * (sent - w) / steps for p, (w, _, steps) in zip(shares, told, strict=True))
    assert record is not None
    assert np.allclose(from_record(record)["w"], sent - effective * moved, atol=1e-12)


@pytest.mark.parametrize("steps", [0.5, float("nan"), float("inf"), -3.0])
def test_impossible_numbers_of_steps_are_refused(steps: float) -> None:
    with pytest.raises(ValueError, match="local_steps"):
        FedNova().weight({"num-examples": 10, "local_steps": steps})

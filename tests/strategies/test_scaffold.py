"""SCAFFOLD: its controls take the drift out, and with none it is FedAvg."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedpdm.config.compose import compose
from fedpdm.errors import ConfigError
from fedpdm.runs.experiment import build
from fedpdm.testing.federated import Federated, distance, federate
from fedpdm.wire.records import ARRAYS, arrays_in, to_record
from tests.strategies.both import FAR_APART, SGD, mean_memory
from tests.strategies.quadratics import Bowl, optimum, settle

EQUAL = {"p0": Bowl((1.0, 4.0), (4.0, -3.0)), "p1": Bowl((3.0, 0.5), (-5.0, 2.0))}


def test_with_zero_controls_the_first_round_is_that_of_fedavg(tmp_path: Path) -> None:
    made = [
        settle(tmp_path / name, name, EQUAL, rounds=1, rate=0.05, epochs=5)
        for name in ("fedavg", "scaffold")
    ]
    assert np.abs(made[0] - made[1]).max() < 1e-12 < np.abs(made[0]).max()


def test_the_first_round_of_a_network_is_the_plain_mean_over_sites(tmp_path: Path) -> None:
    updates: dict[str, Any] = {}

    def spy(message: Message, context: Context, call: ClientAppCallable) -> Message:
        reply = call(message, context)
        updates[str(context.node_config["site"])] = arrays_in(reply.content, ARRAYS)
        return reply

    average = federate(tmp_path / "a", "fedavg", rounds=1, settings=SGD, mods=[spy], double=True)
    first = {n: np.mean([u[n] for u in updates.values()], axis=0) for n in average.weights()}
    run = federate(tmp_path / "b", "scaffold", rounds=1, settings=SGD, double=True)
    assert distance(first, run.weights()) < 1e-12
    assert distance(average.weights(), run.weights()) > 1e-5, "FedAvg weighs by examples"


def test_drifting_sites_reach_the_common_optimum_where_fedavg_stops_beside_it(
    tmp_path: Path,
) -> None:
    goal = optimum(FAR_APART)
    found, beside = (
        settle(tmp_path / name, name, FAR_APART, rounds=25, rate=0.1, epochs=2)
        for name in ("scaffold", "fedavg")
    )
    assert np.abs(found - goal).max() < 1e-4
    assert np.abs(beside - goal).max() > 0.1


def test_clipping_does_not_move_where_they_stop(tmp_path: Path) -> None:
    # At the optimum every site's own gradient is longer than 3; what is clipped is the step.
    goal = optimum(FAR_APART)
    slopes = [np.linalg.norm(np.array(p.a) * (goal - np.array(p.b))) for p in FAR_APART.values()]
    assert min(slopes) > 3.0
    found = settle(tmp_path, "scaffold", FAR_APART, rounds=25, rate=0.1, epochs=2, clip_norm=3.0)
    assert np.abs(found - goal).max() < 1e-4


def test_the_servers_control_is_the_mean_of_the_sites(tmp_path: Path) -> None:
    run = federate(
        tmp_path, "scaffold", sites=4, rounds=4, settings=SGD, double=True,
        overrides=["strategy.fraction_train=0.5"],
    )  # fmt: skip
    control = run.loop.strategy.control  # type: ignore[attr-defined]
    assert 1 < len(run.grid.states) < 5
    expected = mean_memory(run, "scaffold", "control")
    assert distance(expected, control) < 1e-12


def test_controls_travel_and_are_counted(tmp_path: Path) -> None:
    def bytes_of(run: Federated) -> tuple[int, int]:
        record = run.history.rounds()[-1]
        return record.bytes_up, record.bytes_down

    plain, double = (
        bytes_of(federate(tmp_path / s, s, rounds=1, settings=SGD, evaluate_fraction=0))
        for s in ("fedavg", "scaffold")
    )
    for once, twice in zip(plain, double, strict=True):
        assert 1.8 * once < twice < 2.1 * once


@pytest.mark.parametrize("broken", ["missing", "nan"])
def test_a_control_that_cannot_be_used_is_refused_by_name(tmp_path: Path, broken: str) -> None:
    def spoil(message: Message, context: Context, call: ClientAppCallable) -> Message:
        reply = call(message, context)
        if context.node_config["site"] == "p1":
            arrays = arrays_in(reply.content, "control")
            del reply.content["control"]
            if broken == "nan":
                reply.content["control"] = to_record({n: a * np.nan for n, a in arrays.items()})
        return reply

    run = federate(tmp_path, "scaffold", rounds=2, settings=SGD, double=True, mods=[spoil])
    refused = [event for event in run.screen.events if event["kind"] == "refused"]
    assert [event["site"] for event in refused] == ["p1", "p1"]
    assert "in its control" in refused[0]["message"]
    assert set(run.grid.states) == {"p0", "p2"}, "it forgot what did not count"
    assert distance(mean_memory(run, "scaffold", "control"), run.loop.strategy.control) < 1e-12  # type: ignore[attr-defined]


@pytest.mark.parametrize("strategy", ["scaffold", "feddyn", "fednova"])
def test_adam_is_refused_before_anything_is_read(strategy: str) -> None:
    with pytest.raises(ConfigError, match=r"needs training\.optimizer=sgd, not adam"):
        build(compose([f"strategy={strategy}", "training.optimizer=adam"]))


def test_a_server_rate_that_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"strategy\.server_learning_rate=0"):
        build(compose(["strategy=scaffold", "strategy.server_learning_rate=0"]))

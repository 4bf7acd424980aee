"""A site does what a train config asks for, or says that it cannot: it ignores nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedpdm.config.compose import compose
from fedpdm.engines.serial import SerialGrid
from fedpdm.engines.stacked.grid import BatchedGrid
from fedpdm.errors import ConfigError
from fedpdm.runs.experiment import build
from fedpdm.strategies.local_terms import gradient_terms
from fedpdm.testing.federated import federate


class AsksForMore(FedAvg):
    """Sends a key whose client half is nowhere."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        config["nobodys-key"] = 0.5
        return super().configure_train(server_round, arrays, config, grid)


@pytest.mark.parametrize("engine", [SerialGrid, BatchedGrid])
def test_a_key_that_no_site_knows_ends_the_run_as_a_mistake(tmp_path: Path, engine: Any) -> None:
    with pytest.raises(ConfigError, match=r"'nobodys-key'.*imports=\[") as caught:
        federate(tmp_path, AsksForMore(), engine=engine)
    assert caught.value.exit_code == 2


def test_one_site_without_the_package_is_an_event_of_the_round(tmp_path: Path) -> None:
    def adds(message: Message, context: Context, call: ClientAppCallable) -> Message:
        if context.node_config["site"] == "p1":
            config = dict(message.content.config_records["config"]) | {"nobodys-key": 0.5}
            message.content["config"] = ConfigRecord(config)
        return call(message, context)

    run = federate(tmp_path, sites=2, rounds=1, mods=[adds])
    (event,) = run.history.rounds()[1].events
    assert (event["kind"], event["site"]) == ("site-failed", "p1")
    assert "nobodys-key" in event["message"]


def test_keys_of_the_loop_and_of_flower_are_known() -> None:
    ours = {"server-round": 1, "attempt": 0, "report-received-loss": True}
    assert gradient_terms({**ours, "clipping_norm": 1.0}) == []
    assert len(gradient_terms({**ours, "proximal-mu": 0.1})) == 1


def test_a_key_without_its_client_half_is_refused_before_the_run() -> None:
    option = f"strategy={{_target_: {__name__}.AsksForMore}}"
    with pytest.raises(ConfigError, match=r"AsksForMore sends 'nobodys-key'.*imports=\[tests\]"):
        build(compose([option, "model=mlp"]))

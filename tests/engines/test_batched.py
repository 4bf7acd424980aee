"""The batched engine: as serial, but for the last digits."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from torch import nn

from fedpdm.client import make_client_app
from fedpdm.data.rows import Split
from fedpdm.engines.batched import BatchedGrid
from fedpdm.engines.serial import SerialGrid
from fedpdm.errors import ConfigError
from fedpdm.federation import Federation
from fedpdm.messages import to_tensors
from fedpdm.models import ModelFactory, ModelWrapper
from fedpdm.tasks import Failure
from fedpdm.training import TrainingSettings, outputs
from tests.federated import Federated, federate
from tests.tiny import TinySource

RAGGED = {f"p{n}": {"machines": 2 + n % 4, "rows": 60 + 10 * n} for n in range(8)}
OFF = {"dropout_rate": 0.0}
OWN = {
    "cnn": TrainingSettings(1, 32, 5e-4, 1e-4),
    "lstm": TrainingSettings(1, 16, 5e-4, 1e-4, clip_norm=1.0),
    "hybrid": TrainingSettings(1, 16, 1e-3, 1e-4, clip_norm=1.0),
}
"""How each model is trained if nothing else is said, for one epoch."""


def pair(folder: Path, strategy: str, **options: Any) -> tuple[Federated, Federated]:
    serial = federate(folder / "serial", strategy, engine=SerialGrid, **options)
    return serial, federate(folder / "batched", strategy, engine=BatchedGrid, **options)


@pytest.mark.parametrize("model", ["cnn", "lstm", "hybrid"])
@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fedadam"])
def test_five_rounds_are_those_of_serial_in_double_precision(
    tmp_path: Path, strategy: str, model: str
) -> None:
    serial, batched = pair(
        tmp_path, strategy, sites=RAGGED, rounds=5, model=model, model_config=OFF, double=True,
        settings=OWN[model],
    )  # fmt: skip
    for number in range(6):
        expected, found = serial.weights(number), batched.weights(number)
        assert expected.keys() == found.keys()
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-10, err_msg=name)
    assert np.abs(serial.weights(5)["fc1.weight"] - serial.weights(0)["fc1.weight"]).max() > 1e-4


@pytest.mark.parametrize("model", ["cnn", "lstm", "hybrid"])
def test_a_round_is_that_of_serial_in_single_precision(tmp_path: Path, model: str) -> None:
    serial, batched = pair(
        tmp_path, "fedavg", sites=RAGGED, rounds=1, model=model, model_config=OFF,
        settings=OWN[model],
    )  # fmt: skip
    expected, found = serial.weights(1), batched.weights(1)
    names = [n for n, a in expected.items() if a.dtype == np.float32 and "running" not in n]
    change = sum(np.sum((expected[n] - found[n]).astype(float) ** 2) for n in names)
    size = sum(np.sum(expected[n].astype(float) ** 2) for n in names)
    assert np.sqrt(change / size) <= 1e-6

    plants = Federation(TinySource(RAGGED), Failure(4.0))
    module = ModelFactory.create_model(model, 3, 2, sequence_length=8, **OFF)
    for site in plants.sites:
        x = plants.site(site, plants.moments(site).scaler()).windows[Split.VALIDATION].x
        both = []
        for weights in (expected, found):
            module.set_parameters(to_tensors(weights))
            both.append(outputs(module.module, torch.from_numpy(x)).softmax(1))
        torch.testing.assert_close(both[0], both[1], rtol=0, atol=1e-5)


def test_with_dropout_it_is_another_draw_of_the_same_training(tmp_path: Path) -> None:
    differences = []
    for seed in range(5):
        serial, batched = pair(
            tmp_path / str(seed), "fedavg", sites=4, rounds=3, model="mlp", seed=seed,
            model_config={"dropout_rate": 0.3}, epochs=2,
        )  # fmt: skip
        last = [r.history.rounds()[-1].metrics["train_loss"] for r in (serial, batched)]
        assert not np.array_equal(serial.weights(3)["fc1.weight"], batched.weights(3)["fc1.weight"])
        differences.append(last[1] - last[0])
    error = np.std(differences, ddof=1) / np.sqrt(len(differences))
    assert abs(np.mean(differences)) <= 3 * error
    assert np.abs(differences).max() > 1e-5  # dropout was on


@pytest.mark.parametrize("chunk", [1, 3])
def test_the_size_of_a_stack_changes_no_result(tmp_path: Path, chunk: int) -> None:
    runs = [
        federate(tmp_path / str(size), sites=RAGGED, rounds=2, model="cnn", double=True,
                 engine=functools.partial(BatchedGrid, chunk=size))
        for size in (None, chunk)
    ]  # fmt: skip
    for name, array in runs[0].weights(2).items():
        np.testing.assert_allclose(runs[1].weights(2)[name], array, rtol=0, atol=1e-10)


def test_a_broken_plant_is_an_event_and_the_others_train(tmp_path: Path) -> None:
    run = federate(tmp_path, sites=4, rounds=1, engine=BatchedGrid, broken=["p2"],
                   federated_scaling=False)  # fmt: skip
    record = run.history.rounds()[-1]
    assert [e["site"] for e in record.events if e["kind"] == "site-failed"][:1] == ["p2"]
    assert sorted(s for s, v in record.sites.items() if "examples" in v) == ["p0", "p1", "p3"]


def test_a_fault_hits_its_plant_only(tmp_path: Path) -> None:
    run = federate(tmp_path, sites=4, rounds=1, engine=BatchedGrid, faults={"nan": "p1@1"})
    events = run.history.rounds()[-1].events
    assert [(e["kind"], e["site"]) for e in events] == [("refused", "p1")]


def test_a_plant_that_cannot_be_stacked_trains_by_itself(tmp_path: Path) -> None:
    # Batch norm over batches of one row is not stacked; such plants train as in serial.
    one = TrainingSettings(local_epochs=1, batch_size=1, learning_rate=1e-3)
    few = {"p0": {"machines": 1, "rows": 60}, "p1": {"machines": 1, "rows": 60}}
    serial, batched = pair(tmp_path, "fedavg", sites=few, rounds=1, model="cnn", settings=one)
    for name, array in serial.weights(1).items():
        assert np.array_equal(batched.weights(1)[name], array), name


def test_client_mods_run_around_the_stack(tmp_path: Path) -> None:
    seen: list[str] = []

    def watch(message: Message, context: Context, call: ClientAppCallable) -> Message:
        seen.append(str(context.node_config["site"]))
        return call(message, context)

    federate(tmp_path, sites=3, rounds=1, mods=[watch], engine=BatchedGrid)
    assert seen == ["p0", "p1", "p2"]


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = federate(tmp_path / "whole", "fedadam", sites=RAGGED, rounds=4, engine=BatchedGrid)
    federate(tmp_path / "parts", "fedadam", sites=RAGGED, rounds=2, engine=BatchedGrid)
    parts = federate(tmp_path / "parts", "fedadam", sites=RAGGED, rounds=4, engine=BatchedGrid)
    for name, array in whole.weights(4).items():
        assert np.array_equal(parts.weights(4)[name], array), name


class Recurrent(nn.Module):
    """A model with a layer that cannot be stacked."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)
        self.output = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.gru(x)[0][:, -1])
        return logits


def test_an_operation_without_a_rule_is_named_with_the_way_out() -> None:
    plants = Federation(TinySource({"a": {}, "b": {}}), Failure(4.0))
    app = make_client_app(plants, lambda: ModelWrapper(Recurrent()), OWN["lstm"], seed=0)
    grid = BatchedGrid(app, plants.sites)
    weights = ModelWrapper(Recurrent()).snapshot()
    from fedpdm.messages import ARRAYS, CONFIG, config_record, to_record

    messages = []
    from flwr.app import RecordDict

    content = RecordDict({ARRAYS: to_record(weights), CONFIG: config_record(server_round=1)})
    messages = [Message(content, node, "train") for node in (1, 2)]
    with pytest.raises(ConfigError, match=r"gru.*engine=serial|engine=serial.*gru") as caught:
        list(grid.stream(messages))
    assert "Recurrent" in str(caught.value)


def test_another_client_app_is_refused() -> None:
    with pytest.raises(ConfigError, match="engine=serial"):
        BatchedGrid(ClientApp(), ["a"])

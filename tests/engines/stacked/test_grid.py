"""The batched engine: as serial, but for the last digits."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from torch import Tensor, nn

from fedpdm.client.app import SiteApp, make_client_app
from fedpdm.data.rows import Rows, Split
from fedpdm.engines.local_grid import LocalGrid
from fedpdm.engines.serial import SerialGrid
from fedpdm.engines.stacked import grid as batched
from fedpdm.engines.stacked import schedule as stacked_schedule
from fedpdm.engines.stacked.grid import BatchedGrid
from fedpdm.errors import ConfigError
from fedpdm.federation import Federation
from fedpdm.models import ModelFactory, ModelWrapper, registry
from fedpdm.strategies.local_terms import _MAKERS
from fedpdm.tasks import Failure
from fedpdm.testing import check_engine
from fedpdm.testing.federated import Federated, federate, same
from fedpdm.testing.tiny import TinySource
from fedpdm.training.loop import GradientTerm, TrainingSettings
from fedpdm.training.objective import outputs
from fedpdm.wire.records import (
    ARRAYS,
    CONFIG,
    Arrays,
    arrays_in,
    config_record,
    to_record,
    to_tensors,
)

RAGGED = {f"p{n}": {"machines": 1 + n % 3, "rows": 60 + 7 * n} for n in range(8)}
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


@pytest.mark.parametrize(
    ("strategy", "model"), [("fedavg", "lstm"), ("fedprox", "cnn"), ("fedadam", "hybrid")]
)
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

    sites = Federation(TinySource(RAGGED), Failure(4.0))
    module = ModelFactory.create_model(model, 3, 2, sequence_length=8, **OFF)
    for site in sites.sites:
        x = sites.site(site, sites.moments(site).scaler()).windows[Split.VALIDATION].x
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


def test_a_term_that_looks_across_sites_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's own: right for one site, and in a stack the norm of all of them."""

    def by_norm(mu: float) -> GradientTerm:
        def add(parameters: Sequence[Tensor], received: Sequence[Tensor]) -> None:
            for parameter, start in zip(parameters, received, strict=True):
                if parameter.grad is not None:
                    far = torch.linalg.vector_norm(parameter.detach() - start)
                    parameter.grad.add_(parameter.detach() - start, alpha=float(mu * far))

        return add

    monkeypatch.setitem(_MAKERS, "proximal-mu", by_norm)
    run = functools.partial(
        federate, strategy="fedprox", sites=RAGGED, rounds=1, model="mlp", engine=BatchedGrid,
        overrides=["strategy.proximal_mu=50"], epochs=3,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"(?s)looks across sites.*engine=serial"):
        run(tmp_path / "across")
    run(tmp_path / "serial", engine=SerialGrid)
    monkeypatch.undo()
    run(tmp_path / "elementwise")


def test_it_keeps_the_contract_of_engines() -> None:
    check_engine(BatchedGrid, tolerance=1e-10)


class Unreadable(TinySource):
    """A source that fails in a way of its own, as users' sources do."""

    def rows(self, site: str) -> Rows:
        if site == "p1":
            raise ValueError("its clock runs backwards")
        return super().rows(site)


def test_an_unforeseen_error_of_one_site_is_an_event_too(tmp_path: Path) -> None:
    run = federate(tmp_path, sites=3, rounds=1, engine=BatchedGrid, source=Unreadable,
                   federated_scaling=False)  # fmt: skip
    record = run.history.rounds()[-1]
    event = next(e for e in record.events if e["kind"] == "site-failed")
    assert event["site"] == "p1" and "its clock runs backwards" in event["message"]
    assert sorted(s for s, v in record.sites.items() if "examples" in v) == ["p0", "p2"]


class Sent:
    """A client mod that keeps each site's new weights."""

    def __init__(self) -> None:
        self.arrays: dict[str, Arrays] = {}

    def __call__(self, message: Message, context: Context, call: ClientAppCallable) -> Message:
        reply = call(message, context)
        self.arrays[str(context.node_config["site"])] = arrays_in(reply.content, ARRAYS)
        return reply


@pytest.mark.parametrize("kind", ["nan", "poison"])
def test_a_fault_hits_its_site_only(tmp_path: Path, kind: str) -> None:
    well, ill = Sent(), Sent()
    federate(tmp_path / "well", sites=4, rounds=1, engine=BatchedGrid, mods=[well])
    run = federate(tmp_path / "ill", sites=4, rounds=1, engine=BatchedGrid, mods=[ill],
                   faults={kind: "p1@1"})  # fmt: skip
    assert [s for s in well.arrays if not same(well.arrays[s], ill.arrays[s])] == ["p1"]
    if kind == "nan":
        events = run.history.rounds()[-1].events
        assert [(e["kind"], e["site"]) for e in events] == [("refused", "p1")]


class ToEachItsOwn(FedAvg):
    """Sends half of the sites other weights, and another half another proximal term."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        other = to_record({name: 0.5 * array.numpy() for name, array in arrays.items()})
        for message in super().configure_train(server_round, arrays, config, grid):
            node = message.metadata.dst_node_id
            own = ConfigRecord({**config, "proximal-mu": float(node > 2)})
            content = RecordDict({ARRAYS: other if node % 2 else arrays, CONFIG: own})
            yield Message(content, node, "train")


def test_a_strategy_may_send_every_site_something_else(tmp_path: Path) -> None:
    one, many = Sent(), Sent()
    options: dict[str, Any] = {"sites": 4, "rounds": 1, "double": True}
    strategy = functools.partial(ToEachItsOwn, min_train_nodes=1, min_available_nodes=1)
    federate(tmp_path / "serial", strategy(), mods=[one], **options)
    federate(tmp_path / "batched", strategy(), mods=[many], engine=BatchedGrid, **options)
    for site, arrays in one.arrays.items():
        for name, array in arrays.items():
            np.testing.assert_allclose(many.arrays[site][name], array, atol=1e-10, err_msg=site)


def test_stacks_that_are_not_done_in_time_are_left_out_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]  # a clock of our own: a busy machine must not decide
    monkeypatch.setattr(batched, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    asked: list[str] = []

    def slow(message: Message, context: Context, call: ClientAppCallable) -> Message:
        asked.append(str(context.node_config["site"]))
        if asked[-1] == "p2" and message.content["config"]["server-round"] == 1:  # type: ignore[index]
            clock[0] += 61.0
        return call(message, context)

    def pairs(app: SiteApp, sites: Sequence[str]) -> BatchedGrid:
        grid = BatchedGrid(app, sites)
        grid._group = 2
        return grid

    run = federate(tmp_path, sites=6, rounds=2, mods=[slow], round_timeout=60.0, engine=pairs)
    late = [(e["kind"], e["site"], e["round"]) for e in run.screen.events]
    assert late == [("timeout", site, 1) for site in ("p2", "p3", "p4", "p5")]
    trained = [{s for s, v in r.sites.items() if "examples" in v} for r in run.history.rounds()]
    assert trained[1] == {"p0", "p1"} and len(trained[2]) == 6
    assert asked == ["p0", "p1", "p2", "p3", *(f"p{n}" for n in range(6))]


class Scarce(TinySource):
    """Site p1 has a single window to train on."""

    left = TinySource({}).window

    def rows(self, site: str) -> Rows:
        rows = super().rows(site)
        if site != "p1":
            return rows
        split, first = rows.split.copy(), np.flatnonzero(rows.split == Split.TRAIN)
        split[first[self.left :]] = Split.UNUSED
        return replace(rows, split=split)


class Barren(Scarce):
    """And here not even one."""

    left = 2


def test_a_site_of_one_window_trains_beside_the_stack(tmp_path: Path) -> None:
    one, many = Sent(), Sent()
    options: dict[str, Any] = {"model": "cnn", "model_config": OFF, "double": True, "rounds": 1}
    serial = federate(tmp_path / "a", mods=[one], source=Scarce, **options)
    federate(tmp_path / "b", mods=[many], source=Scarce, engine=BatchedGrid, **options)
    assert serial.history.rounds()[1].sites["p1"]["examples"] == 1
    assert same(one.arrays["p1"], many.arrays["p1"]), "trained by the same function"
    for site in ("p0", "p2"):
        for name, array in one.arrays[site].items():
            np.testing.assert_allclose(many.arrays[site][name], array, atol=1e-10, err_msg=name)
    before = serial.weights(0)
    assert not same({n: before[n] for n in one.arrays["p1"]}, one.arrays["p1"])


@pytest.mark.parametrize("engine", [SerialGrid, BatchedGrid])
def test_a_site_without_a_window_says_so(tmp_path: Path, engine: type[LocalGrid]) -> None:
    run = federate(tmp_path, rounds=1, source=Barren, engine=engine)
    failed = [e for e in run.screen.events if e["kind"] == "site-failed"]
    assert [e["site"] for e in failed] == ["p1"]
    assert "0 training windows, at least 2 are needed" in failed[0]["message"]
    trained = [s for s, v in run.history.rounds()[1].sites.items() if "examples" in v]
    assert trained == ["p0", "p2"]


def test_a_site_that_cannot_be_stacked_trains_by_itself(tmp_path: Path) -> None:
    # Batch norm over batches of one row is not stacked; such sites train as in serial.
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


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, model: str) -> None:
    options: dict[str, Any] = {
        "sites": RAGGED, "model": model, "model_config": {"dropout_rate": 0.3},
        "engine": BatchedGrid, "overrides": ["strategy.fraction_train=0.67"],
    }  # fmt: skip
    whole = federate(tmp_path / "whole", "fedadam", rounds=4, **options)
    federate(tmp_path / "parts", "fedadam", rounds=2, **options).history.close()
    parts = federate(tmp_path / "parts", "fedadam", rounds=4, **options)
    for number in range(5):
        assert same(parts.weights(number), whole.weights(number)), number
    records = [[r.metrics for r in run.history.rounds()] for run in (whole, parts)]
    assert records[0] == records[1]


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
    sites = Federation(TinySource({"a": {}, "b": {}}), Failure(4.0))
    app = make_client_app(sites, lambda: ModelWrapper(Recurrent()), OWN["lstm"], seed=0)
    grid = BatchedGrid(app, sites.sites)
    weights = ModelWrapper(Recurrent()).snapshot()
    content = RecordDict({ARRAYS: to_record(weights), CONFIG: config_record(server_round=1)})
    messages = [Message(content, node, "train") for node in (1, 2)]
    with pytest.raises(ConfigError, match=r"gru.*engine=serial|engine=serial.*gru") as caught:
        list(grid.stream(messages))
    assert "Recurrent" in str(caught.value)


class Registered(Recurrent):
    """The same as a user would register it."""

    def __init__(self, input_dim: int, num_classes: int, sequence_length: int | None) -> None:
        super().__init__()


def test_a_registered_model_that_cannot_be_stacked_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No site is to blame: without this the run would go on, and say that all of them failed.
    monkeypatch.setitem(registry._classes, "recurrent", Registered)
    with pytest.raises(ConfigError, match=r"Registered .*gru.*: use engine=serial"):
        federate(tmp_path / "batched", model="recurrent", rounds=1, engine=BatchedGrid)
    run = federate(tmp_path / "serial", model="recurrent", rounds=1)
    assert run.history.rounds()[-1].round == 1


def test_another_client_app_is_refused() -> None:
    with pytest.raises(ConfigError, match="engine=serial"):
        BatchedGrid(ClientApp(), ["a"])


def test_the_sites_rows_are_joined_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joined = []
    check = stacked_schedule._check_alike
    monkeypatch.setattr(
        stacked_schedule, "_check_alike", lambda p: (joined.append(len(p)), check(p))
    )
    federate(tmp_path, sites=4, rounds=3, engine=BatchedGrid)
    assert joined == [4]  # rounds 2 and 3 found them


class Scaled(nn.Module):
    """A model with a parameter that is a single number."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(x[:, -1]) * self.scale
        return logits


def test_a_parameter_of_one_number_is_clipped_with_the_others() -> None:
    sites = Federation(TinySource({"a": {}, "b": {}}), Failure(4.0))

    def trained(engine: type[LocalGrid]) -> list[Arrays]:
        torch.manual_seed(0)
        wrapper = ModelWrapper(Scaled())
        start = wrapper.snapshot()
        app = make_client_app(sites, lambda: ModelWrapper(Scaled()), OWN["lstm"], seed=0)
        content = RecordDict({ARRAYS: to_record(start), CONFIG: config_record(server_round=1)})
        messages = [Message(content, node, "train") for node in (1, 2)]
        return [arrays_in(r.content, ARRAYS) for r in engine(app, sites.sites).stream(messages)]

    for serial, stacked in zip(trained(SerialGrid), trained(BatchedGrid), strict=True):
        for name, array in serial.items():
            np.testing.assert_allclose(stacked[name], array, atol=1e-6)

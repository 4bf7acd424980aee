"""A frozen encoder in a federation: it stays at home, or travels and stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpdm.client.state import LOCAL
from fedpdm.engines.local_grid import LocalGrid
from fedpdm.engines.serial import SerialGrid
from fedpdm.engines.stacked.grid import BatchedGrid
from fedpdm.errors import ConfigError
from fedpdm.models import ModelFactory
from fedpdm.models.policy import ALL, POLICIES, ParameterPolicy
from fedpdm.testing.federated import Federated, federate, same
from fedpdm.training.loop import TrainingSettings
from fedpdm.wire.records import Arrays, arrays_in

ADAPTERS = POLICIES["adapters"]()
SMALL: dict[str, Any] = {
    "patch": 4, "width": 16, "num_layers": 2, "hidden_size": 16, "lora_rank": 2,
    "freeze_encoder": True, "dropout_rate": 0.0,
}  # fmt: skip
OPTIONS: dict[str, Any] = {"model": "mixer_hybrid", "model_config": SMALL, "rounds": 2}


def initial(run: Federated) -> Arrays:
    return run.grid.client_app.client.build_model().snapshot()  # type: ignore[attr-defined]


def encoders(run: Federated) -> list[Arrays]:
    return [arrays_in(state, LOCAL) for state in run.grid.states.values()]


def test_adapters_attention_and_heads_travel_and_the_encoder_does_not():
    model = ModelFactory.create_model("mixer_hybrid", 3, 2, sequence_length=8, **SMALL)
    found = ADAPTERS.parts(model)
    assert found.buffers == () and all(name.startswith("encoder.") for name in found.local)
    assert set(found.local) == {n for n in model.parameter_names if n.startswith("encoder.")}
    tops = {name.split(".")[0] for name in found.shared}
    assert tops == {
        "adapters", "attention", "norm", "channel", "shared", "shared_norm", "output"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "config"), [("lstm", {}), ("mixer_hybrid", {}), ("mixer_hybrid", {"lora_rank": 0})]
)
def test_a_model_without_adapters_is_refused(name, config):
    frozen = {"freeze_encoder": True} if config else {}
    model = ModelFactory.create_model(name, 3, 2, sequence_length=16, **config, **frozen)
    with pytest.raises(ConfigError, match="no adapters.*model.config.freeze_encoder=true"):
        ADAPTERS.parts(model)


@pytest.mark.parametrize("engine", [SerialGrid, BatchedGrid])
def test_the_encoder_is_the_initial_one_at_every_site(
    tmp_path: Path, engine: type[LocalGrid]
) -> None:
    run = federate(tmp_path, engine=engine, policy=ADAPTERS, **OPTIONS)
    start, end = initial(run), run.weights()
    assert len(encoders(run)) == 3
    for own in encoders(run):
        assert own and same(own, {name: start[name] for name in own})
    assert set(end) == {name for name in start if not name.startswith("encoder.")}
    moved = {name for name, array in end.items() if not np.array_equal(array, start[name])}
    assert moved == set(end)  # adapters, too


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "scaffold", "fedprox"])
def test_where_everything_travels_no_strategy_moves_what_is_frozen(
    tmp_path: Path, strategy: str
) -> None:
    run = federate(tmp_path, strategy, policy=ALL, **OPTIONS)
    start, end = initial(run), run.weights()
    frozen = [name for name in start if name.startswith("encoder.")]
    assert frozen and same({n: end[n] for n in frozen}, {n: start[n] for n in frozen})
    assert not np.array_equal(end["adapters.0.up"], start["adapters.0.up"])


def test_less_is_sent_by_the_size_of_the_encoder(tmp_path: Path) -> None:
    runs = [
        federate(tmp_path / name, policy=policy, **OPTIONS)
        for name, policy in (("adapters", ADAPTERS), ("all", ALL))
    ]
    sent = [sum(r.bytes_up for r in run.history.rounds()) for run in runs]
    encoder = sum(a.nbytes for n, a in initial(runs[0]).items() if n.startswith("encoder."))
    sites, rounds = 3, 2
    assert sent[1] - sent[0] >= encoder * sites * rounds
    assert same(*({n: a for n, a in run.weights().items() if n in runs[0].weights()}
                  for run in runs))  # fmt: skip


@pytest.mark.parametrize("policy", [ADAPTERS, ALL])
def test_serial_and_batched_train_alike(tmp_path: Path, policy: ParameterPolicy) -> None:
    def run(engine: type[LocalGrid]) -> Federated:
        settings = TrainingSettings(1, 16, 0.05, clip_norm=1.0, optimizer="sgd")
        return federate(
            tmp_path / engine.__name__, engine=engine, double=True, settings=settings,
            policy=policy, **OPTIONS,
        )  # fmt: skip

    serial, batched = run(SerialGrid), run(BatchedGrid)
    for name, array in serial.weights().items():
        np.testing.assert_allclose(batched.weights()[name], array, rtol=0, atol=1e-10)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = federate(tmp_path / "whole", policy=ADAPTERS, **OPTIONS)
    federate(tmp_path / "parts", policy=ADAPTERS, **{**OPTIONS, "rounds": 1}).history.close()
    parts = federate(tmp_path / "parts", policy=ADAPTERS, **OPTIONS)
    assert all(same(parts.weights(n), whole.weights(n)) for n in range(3))


def test_at_the_documents_width_and_depth_less_than_half_of_the_bytes_travel():
    """The model of ``benchmarks/horizons.py``: 15 sensors with 28 statistics each."""
    model = ModelFactory.create_model(
        "mixer_hybrid", 15 * 29, 3, sequence_length=90, sensors=15, patch=15, hidden_size=32,
        lora_rank=4, freeze_encoder=True,
    )  # fmt: skip
    sizes = {name: tensor.nbytes for name, tensor in model.get_parameters().items()}
    sent = {name: sizes[name] for name in ADAPTERS.parts(model).shared}
    heads = sum(size for name, size in sent.items() if name.startswith("output."))
    assert (sum(sent.values()), heads, sum(sizes.values())) == (291_324, 6_540, 634_556)
    assert (sum(sent.values()) - heads) / (sum(sizes.values()) - heads) < 0.5

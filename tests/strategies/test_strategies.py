"""Every strategy of the catalogue: invariants, limits, and that its defaults train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedpdm.config.command_line import options
from fedpdm.config.schema import conf_dir
from fedpdm.errors import ConfigError
from fedpdm.strategies.checkpoint import capture, restore
from fedpdm.strategies.fedprox import proximal_term
from fedpdm.testing import check_strategy
from fedpdm.testing.federated import Federated, composed, distance, federate, named, same
from fedpdm.wire.records import ARRAYS, arrays_in


def own_ones() -> list[str]:
    """Return the options whose strategy is no plain FedAvg: in those something else is another."""
    found = []
    for name in options("strategy"):
        read = yaml.safe_load((conf_dir() / "strategy" / f"{name}.yaml").read_text())
        block = read.get("strategy", read)
        if name == "fedavg" or not block["_target_"].endswith(".FedAvg"):
            found.append(name)
    return found


ALL = own_ones()


def test_the_catalogue_is_complete() -> None:
    assert set(ALL) >= {
        "fedavg", "fedavgm", "fedadam", "fedadagrad", "fedyogi", "fedmedian", "fedtrimmedavg",
        "krum", "multikrum", "bulyan", "qfedavg", "fedprox", "feddyn", "fednova", "scaffold",
    }  # fmt: skip


@pytest.mark.parametrize("strategy", ALL)
def test_every_strategy_keeps_its_contract(strategy: str) -> None:
    """With 1, 2 and 5 sites, through a restart, on both engines: see ``check_strategy``."""
    optimizer = composed((f"strategy={strategy}",)).training.optimizer
    # Flower's own code in these writes into the messages.
    check_strategy(
        lambda: named([f"strategy={strategy}"]),
        optimizer=optimizer,
        changes_replies=strategy in ("bulyan", "fedmedian", "fedtrimmedavg", "qfedavg"),
        # Drifts travel beside the weights, and the model is the mean of both.
        moves_without_updates=strategy == "feddc",
    )


@pytest.mark.parametrize("strategy", ALL)
def test_defaults_train(strategy: str, tmp_path: Path) -> None:
    run = federate(tmp_path, strategy, rounds=6, epochs=2)
    records = run.history.rounds()
    first, last = records[1].metrics, records[-1].metrics
    assert last["train_loss"] < 0.85 * first["train_loss"]
    assert last["average_precision"] > 2 * last["prevalence"]
    assert not run.screen.events


@pytest.mark.parametrize("strategy", ALL)
def test_replies_keep_the_models_dtypes(strategy: str, tmp_path: Path) -> None:
    run = federate(tmp_path, strategy, rounds=1, model="cnn")
    assert {a.dtype.name for a in run.weights(1).values()} == {"float32", "int64"}


def test_mu_zero_is_fedavg_to_the_bit(tmp_path: Path) -> None:
    average = federate(tmp_path / "a", "fedavg")
    proximal = federate(tmp_path / "b", "fedprox", overrides=["strategy.proximal_mu=0.0"])
    assert same(average.weights(), proximal.weights())


def test_mu_above_zero_stays_closer_to_the_received_model(tmp_path: Path) -> None:
    norms = []
    for mu in (0.0, 0.5, 50.0):
        run = federate(
            tmp_path / str(mu),
            "fedprox",
            overrides=[f"strategy.proximal_mu={mu}"],
            rounds=1,
            epochs=5,
        )
        sites = run.history.rounds()[1].sites.values()
        norms.append(np.mean([site["update_norm"] for site in sites]))
    assert norms[0] > norms[1] > norms[2]


def test_proximal_gradient_is_that_of_half_mu_times_the_squared_distance() -> None:
    w = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    received = torch.tensor([0.5, 1.0, 0.0])
    (0.3 / 2 * (w - received).square().sum()).backward()  # FedProx, eq. 2, with mu = 0.3
    expected = w.grad.clone()
    w.grad = torch.zeros(3)
    term = proximal_term(0.3)
    assert term is not None
    term([w], [received])
    assert torch.allclose(w.grad, expected)


@pytest.fixture(scope="module")
def average(tmp_path_factory: pytest.TempPathFactory) -> Federated:
    """A run of plain FedAvg."""
    return federate(tmp_path_factory.mktemp("average"), "fedavg")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("fedavgm", "strategy.server_momentum=0.9"),
        ("fedadam", "strategy.eta=0.05"),
        ("fedtrimmedavg", "strategy.beta=0.4"),
        ("qfedavg", "strategy.q=2.0"),
        ("fedprox", "strategy.proximal_mu=1.0"),
        ("multikrum", "strategy.num_nodes_to_select=1"),
        ("scaffold", "strategy.server_learning_rate=0.5"),
        ("feddyn", "strategy.alpha=1.0"),
        ("fedcm", "strategy.alpha=0.9"),
        ("feddc", "strategy.alpha=1.0"),
        ("fedams", "strategy.eta=0.05"),
        ("fedmom", "strategy.server_momentum=0.9"),
        ("term", "strategy.tilt=-3.0"),
    ],
)
def test_every_setting_changes_the_run(
    name: str, change: str, tmp_path: Path, average: Federated
) -> None:
    default = federate(tmp_path / "a", name)
    changed = federate(tmp_path / "b", name, overrides=[change])
    assert distance(default.weights(), changed.weights()) > 1e-5
    assert distance(average.weights(), changed.weights()) > 1e-5


def test_q_zero_is_the_plain_mean_over_sites(tmp_path: Path) -> None:
    run = federate(tmp_path, "qfedavg", overrides=["strategy.q=0.0"], rounds=1)
    updates: dict[str, Any] = {}

    def spy(message: Message, context: Context, call: ClientAppCallable) -> Message:
        reply = call(message, context)
        updates[str(context.node_config["site"])] = arrays_in(reply.content, ARRAYS)
        return reply

    federate(tmp_path / "spy", "fedavg", rounds=1, mods=[spy])
    for name, value in run.weights(1).items():
        mean = np.mean([u[name] for u in updates.values()], axis=0)
        assert np.allclose(value, mean, atol=1e-6)


@pytest.mark.parametrize(("strategy", "sites", "needed"), [("bulyan", 2, 3), ("multikrum", 1, 2)])
def test_too_few_sites_are_refused_with_the_number_needed(
    strategy: str, sites: int, needed: int, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"needs at least {needed} sites"):
        federate(tmp_path, strategy, sites=sites)


@pytest.mark.parametrize(
    "strategy",
    [
        "fedadam",
        "fedavgm",
        "fedyogi",
        "fedadagrad",
        "qfedavg",
        "feddyn",
        "scaffold",
        "fedams",
        "fedmom",
        "fedcm",
        "feddc",
    ],
)
def test_state_survives_capture_and_restore(strategy: str, tmp_path: Path) -> None:
    run = federate(tmp_path, strategy, rounds=2)
    tree = capture(run.loop.strategy)
    fresh = named([f"strategy={strategy}"])
    restore(fresh, tree)
    again = capture(fresh)
    assert set(again) == set(tree)
    assert any(isinstance(v, dict | list) for v in tree.values()), "the momentum is in it"
    np.testing.assert_equal(again, tree)

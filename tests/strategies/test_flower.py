"""Any Flower strategy, wrappers too: it trains and resumes to the bit, or says why it cannot."""

from __future__ import annotations

import gc
import inspect
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAdam, FedAvg, Strategy

from fedpdm.client.mods import AdaptedMod
from fedpdm.errors import ConfigError
from fedpdm.server.monitor import MonitorSettings
from fedpdm.strategies.fednova import FedNova
from fedpdm.strategies.scaffold import Scaffold
from fedpdm.strategies.wrappers import MODS_NEEDED, check_mods, unwrap
from fedpdm.testing.federated import Federated, federate, same
from fedpdm.training.loop import TrainingSettings

SHIPPED = [
    name
    for name in flower.__all__
    if issubclass(getattr(flower, name), Strategy) and not inspect.isabstract(getattr(flower, name))
]
WRAPPERS = [name for name in SHIPPED if name.startswith("DifferentialPrivacy")]
CASES = [
    *((name, None) for name in SHIPPED if name not in WRAPPERS),
    *((name, inner) for name in WRAPPERS for inner in (FedAvg, FedAdam)),
]
REFUSED = {("Bulyan", 1), ("Bulyan", 2)} | {
    (name, sites) for name in ("FedXgbBagging", "FedXgbCyclic") for sites in (1, 2, 5)
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of a tiny run: a collection of the whole process's garbage."""
    monkeypatch.setattr(gc, "collect", lambda *_: 0)


def make(name: str, inner: Callable[[], Strategy] | None, sites: int) -> Strategy:
    """Return one of Flower's strategies with its defaults, and noise where there is some."""
    kind = getattr(flower, name)
    given: dict[str, Any] = {"client_learning_rate": 0.05} if name == "QFedAvg" else {}
    if inner is not None:
        given = {"strategy": inner(), "noise_multiplier": 0.05, "num_sampled_clients": sites}
        given |= {"clipping_norm": 0.5} if "Fixed" in name else {"clipped_count_stddev": 0.5}
    return kind(**given)  # type: ignore[no-any-return]


def run(folder: Path, strategy: Strategy, sites: int, rounds: int, **more: Any) -> Federated:
    """Run or go on, with the global generators anywhere."""
    random.seed()
    np.random.seed()
    needed = [mod for kind, mod in MODS_NEEDED.items() if isinstance(strategy, kind)]
    mods = [AdaptedMod(mod, 0) for mod in needed]
    return federate(
        folder, strategy, sites=sites, rounds=rounds, mods=mods,
        evaluate_fraction=0.2, monitor=MonitorSettings(metric_fall=None), **more,
    )  # fmt: skip


def test_all_that_flower_ships_is_tried() -> None:
    left = {"Strategy", "Result"}  # the base class, and what its own loop returns
    assert set(SHIPPED) == set(flower.__all__) - left


@pytest.mark.parametrize("sites", [1, 2, 5])
@pytest.mark.parametrize(("name", "inner"), CASES)
def test_it_trains_and_resumes_to_the_bit_or_says_why_not(
    name: str, inner: type[FedAvg] | None, sites: int, tmp_path: Path
) -> None:
    if (name, sites) in REFUSED:
        with pytest.raises(ConfigError, match=name) as refused:
            run(tmp_path, make(name, inner, sites), sites, 1)
        assert "\n" not in str(refused.value)
        return
    whole = run(tmp_path / "whole", make(name, inner, sites), sites, 2)
    assert not whole.screen.events
    start, first, second = (whole.weights(number) for number in range(3))
    assert not same(start, first) and not same(first, second)
    run(tmp_path / "parts", make(name, inner, sites), sites, 1)
    parts = run(tmp_path / "parts", make(name, inner, sites), sites, 2)
    assert same(parts.weights(), second)


@pytest.mark.parametrize("name", WRAPPERS)
def test_the_seed_draws_the_noise(name: str, tmp_path: Path) -> None:
    first, second = (
        run(tmp_path / str(noise), strategy, 2, 1)
        for noise, strategy in ((0, make(name, FedAvg, 2)), (1, make(name, FedAvg, 2)))
    )
    assert same(first.weights(), second.weights())
    silent = make(name, FedAvg, 2)
    silent.noise_multiplier = 0.0  # type: ignore[attr-defined]
    assert not same(first.weights(), run(tmp_path / "silent", silent, 2, 1).weights())


def test_a_wrapper_samples_the_share_of_what_it_holds(tmp_path: Path) -> None:
    name = "DifferentialPrivacyServerSideFixedClipping"
    strategy = make(name, lambda: FedAvg(fraction_train=0.4), 2)
    done = run(tmp_path, strategy, 5, 2)
    assert [len(record.sampled) for record in done.history.rounds()] == [0, 2, 2]


def test_noise_for_another_number_of_sites_is_refused(tmp_path: Path) -> None:
    name = "DifferentialPrivacyServerSideFixedClipping"
    with pytest.raises(ConfigError, match="num_sampled_clients=3"):
        run(tmp_path, make(name, FedAvg, 5), 3, 1)


def test_noise_that_hides_too_little_is_said(tmp_path: Path) -> None:
    name = "DifferentialPrivacyServerSideFixedClipping"
    done = run(tmp_path, make(name, FedAvg, 3), 3, 2, faults={"nan": "p1@2"})
    kinds = [(event["kind"], event["round"]) for event in done.screen.events]
    assert sorted(kinds) == [("refused", 2), ("warning", 2)]


def test_a_wrapper_holds_our_own_strategies_if_only_weights_travel(tmp_path: Path) -> None:
    name = "DifferentialPrivacyServerSideFixedClipping"
    strategy = make(name, FedNova, 3)
    plain = TrainingSettings(
        local_epochs=1, batch_size=16, learning_rate=0.01, weight_decay=0.0, optimizer="sgd"
    )
    run(tmp_path / "nova", strategy, 3, 1, settings=plain)
    assert [type(layer) for layer in unwrap(strategy)] == [type(strategy), FedNova]
    with pytest.raises(ConfigError, match="control"):
        run(tmp_path / "scaffold", make(name, Scaffold, 3), 3, 1)


@pytest.mark.parametrize("name", [kind.__name__ for kind in MODS_NEEDED])
def test_a_wrapper_that_clips_at_the_sites_is_refused_without_its_mod(name: str) -> None:
    strategy = make(name, FedAvg, 2)
    needed = MODS_NEEDED[type(strategy)]
    with pytest.raises(ConfigError, match=needed.__name__):  # type: ignore[attr-defined]
        check_mods(strategy, [])
    check_mods(strategy, [needed])

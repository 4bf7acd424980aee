"""Client mods around training: what they see, what is put back, and what they draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp.mod import (
    LocalDpMod,
    adaptiveclipping_mod,
    arrays_size_mod,
    fixedclipping_mod,
    message_size_mod,
)
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping as ServerSide
from flwr.serverapp.strategy import FedAvg

from fedpdm.client.mods import AdaptedMod, mod_name, unprotected
from fedpdm.config.compose import compose
from fedpdm.engines.stacked.grid import BatchedGrid
from fedpdm.errors import ConfigError, SiteError
from fedpdm.runs.experiment import build
from fedpdm.runs.update_pipeline import build_mods
from fedpdm.strategies.scaffold import Scaffold
from fedpdm.testing.federated import distance, federate, same

NORM = 0.05
NOISE = LocalDpMod(clipping_norm=NORM, sensitivity=1e-3, epsilon=1.0, delta=0.1)


class ClippedFedAvg(FedAvg):
    """Sends the norm that Flower's clipping mods ask for."""

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
        config["clipping_norm"] = NORM
        return super().configure_train(server_round, arrays, config, grid)


class Watch:
    """Keeps which records a mod sees on the way to a site and back."""

    def __init__(self) -> None:
        self.seen: list[tuple[set[str], set[str]]] = []

    def __call__(self, message: Message, context: Context, call: ClientAppCallable) -> Message:
        reply = call(message, context)
        self.seen.append((set(message.content), set(reply.content)))
        return reply


def norms(run: Any) -> list[float]:
    return [site["update_norm"] for site in run.history.rounds()[-1].sites.values()]


@pytest.mark.parametrize("mod", [fixedclipping_mod, adaptiveclipping_mod, NOISE])
def test_flowers_own_mods_work_beside_buffers_and_scaler(mod: Mod, tmp_path: Path) -> None:
    mods = [AdaptedMod(mod, 0)]
    run = federate(tmp_path / "a", ClippedFedAvg(), rounds=1, model="cnn", mods=mods)
    assert not run.screen.events
    size = sum(run.weights()[name].size for name in run.loop.trainable)
    # Noise of many parameters is nearly orthogonal to the update, so squares add up.
    noise = 1e-3 * np.sqrt(2 * np.log(1.25 / 0.1) * size) if mod is NOISE else 0.0
    np.testing.assert_allclose(norms(run), np.hypot(NORM, noise), rtol=0.02)
    free = federate(tmp_path / "b", ClippedFedAvg(), rounds=1, model="cnn")
    assert min(norms(free)) > NORM
    buffers = {name for name in free.weights() if "running" in name}
    assert buffers
    for name in buffers:  # no mod sees them
        np.testing.assert_array_equal(run.weights()[name], free.weights()[name])


@pytest.mark.parametrize("mod", [arrays_size_mod, message_size_mod])
def test_mods_that_only_look_change_nothing(mod: Mod, tmp_path: Path) -> None:
    watched = federate(tmp_path / "a", rounds=1, model="cnn", mods=[AdaptedMod(mod, 0)])
    assert same(watched.weights(), federate(tmp_path / "b", rounds=1, model="cnn").weights())


def test_a_mod_sees_parameters_config_and_metrics_and_the_rest_arrives(tmp_path: Path) -> None:
    watch = Watch()
    options: dict[str, Any] = {"rounds": 2, "model": "cnn"}
    run = federate(tmp_path / "a", "scaffold", mods=[AdaptedMod(watch, 0)], **options)
    assert watch.seen == [({"arrays", "config"}, {"arrays", "metrics"})] * 6
    assert same(run.weights(), federate(tmp_path / "b", "scaffold", **options).weights())


def test_the_norm_bit_of_adaptive_clipping_is_a_metric_of_the_round(tmp_path: Path) -> None:
    run = federate(tmp_path, ClippedFedAvg(), rounds=1, mods=[AdaptedMod(adaptiveclipping_mod, 0)])
    record = run.history.rounds()[1]
    assert record.metrics["norm_bit"] == 1.0
    assert {site["norm_bit"] for site in record.sites.values()} == {1.0}


def test_noise_differs_by_site_and_round_and_repeats_with_the_seed(tmp_path: Path) -> None:
    drawn: dict[tuple[str, int], np.ndarray] = {}

    def noisy(message: Message, context: Context, call: ClientAppCallable) -> Message:
        place = str(context.node_config["site"]), int(message.content["config"]["server-round"])  # type: ignore[index, call-overload]
        drawn[place] = np.random.normal(size=3)
        return call(message, context)

    runs = []
    for name in "ab":
        np.random.seed()
        federate(tmp_path / name, rounds=2, sites=2, mods=[AdaptedMod(noisy, 5)])
        runs.append(dict(drawn))
    assert len({values.tobytes() for values in drawn.values()}) == 4
    np.testing.assert_equal(*runs)


def test_a_stack_of_sites_is_wrapped_site_by_site(tmp_path: Path) -> None:
    """Ray's processes are tried in tests/engines/ray."""
    mods = [AdaptedMod(NOISE, 0)]
    options: dict[str, Any] = {"rounds": 2, "mods": mods}
    serial = federate(tmp_path / "serial", **options)
    batched = federate(tmp_path / "batched", engine=BatchedGrid, **options)
    assert not batched.screen.events
    assert distance(serial.weights(), batched.weights()) < 1e-5


def test_what_a_mod_refuses_is_the_sites_failure(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="clipping_norm"):  # FedAvg sends no norm
        federate(tmp_path, rounds=1, mods=[AdaptedMod(fixedclipping_mod, 0)])


def test_the_config_names_mods_and_gives_them_arguments() -> None:
    size = "arrays_size_mod"
    local = (
        "{_target_:flwr.clientapp.mod.LocalDpMod,"
        "clipping_norm:1.0,sensitivity:1.0,epsilon:1.0,delta:0.1}"
    )
    partial = "{_target_:tests.client.test_mods.scaled,_partial_:true,factor:0.5}"
    mods = build_mods(compose([f"client_mods=[{size},{local},{partial}]"]), FedAvg())
    assert mods[0] is arrays_size_mod
    assert isinstance(mods[1], LocalDpMod) and mods[1].clipping_norm == 1.0
    assert [mod_name(mod) for mod in mods] == ["arrays_size_mod", "LocalDpMod", "scaled"]
    assert build_mods(compose([]), FedAvg()) == []
    for wrong in ("[nowhere]", "[os.system]", "[7]", "[{_target_:no.where}]", "{a: 1}"):
        with pytest.raises(ConfigError, match="client_mods"):
            build_mods(compose([f"client_mods={wrong}"]), FedAvg())


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("fixedclipping_mod", "DifferentialPrivacyClientSideFixedClipping"),
        ("adaptiveclipping_mod", "DifferentialPrivacyClientSideAdaptiveClipping"),
        ("LocalDpMod", "_target_.*clipping_norm.*epsilon"),
        ("{_target_:flwr.clientapp.mod.LocalDpMod,_partial_:true,epsilon:1}", "without _partial_"),
        ("{_target_:flwr.clientapp.mod.LocalDpMod,clip:1}", "clip.*clipping_norm"),
        ("{_target_:tests.client.test_mods.scaled}", "_partial_: true"),
        ("{_target_:tests.client.test_mods.scaled,_partial_:true}", "factor"),
        ("{_target_:tests.client.test_mods.scaled,_partial_:true,factr:1}", "factr|factor"),
        ("{_target_:tests.client.test_mods.scald,_partial_:true}", "scaled"),
        ("{_target_:flwr.serverapp.strategy.FedAvg}", "message"),
    ],
)
def test_a_mod_that_would_fail_at_every_site_is_refused(entry: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"client_mods.*{said}"):
        build_mods(compose([f"client_mods=[{entry}]"]), FedAvg())


def test_mods_and_transforms_exclude_each_other() -> None:
    codec = "+transforms.codec={_target_:tests.toys.half_codec.HalfCodec}"
    with pytest.raises(ConfigError, match="either client_mods or transforms"):
        build_mods(compose(["client_mods=[arrays_size_mod]", codec]), FedAvg())


def scaled(message: Message, context: Context, call: ClientAppCallable, factor: float) -> Message:
    return call(message, context)


def test_a_wrapper_that_clips_at_the_sites_needs_its_mod_in_the_config() -> None:
    clipping = [
        "strategy._target_=flwr.serverapp.strategy.DifferentialPrivacyClientSideFixedClipping",
        "~strategy.fraction_train", "+strategy.noise_multiplier=1.0",
        "+strategy.clipping_norm=1.0", "+strategy.num_sampled_clients=2",
        "+strategy.strategy={_target_:flwr.serverapp.strategy.FedAvg}", "model=mlp",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="fixedclipping_mod"):
        build(compose(clipping))
    build(compose([*clipping, "client_mods=[fixedclipping_mod]"]))


def test_what_stays_unprotected_is_said() -> None:
    assert unprotected([], FedAvg(), ["mean"], True) is None
    said = unprotected([NOISE], Scaffold(), ["mean"], True)
    assert said is not None
    assert all(word in said for word in ("LocalDpMod", "buffers", "control", "scaler", "metrics"))
    wrapped = ServerSide(FedAvg(), 1.0, 1.0, 2)
    said = unprotected([], wrapped, [], False)
    assert said is not None and "ServerSideFixedClipping" in said
    assert "buffers" not in said and "scaler" not in said

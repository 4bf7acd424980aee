"""Servers of other kinds, in the same loop: each goes on bit for bit after it was stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable
from omegaconf import open_dict

from fedpdm.config.compose import compose
from fedpdm.errors import ConfigError
from fedpdm.history import History
from fedpdm.runs.update_pipeline import build_server
from fedpdm.server.base import Server
from fedpdm.server.synchronous import Synchronous
from fedpdm.testing.federated import Federated, distance, federate, same
from fedpdm.wire.records import ARRAYS, arrays_in
from tests.toys.mask import Mask
from tests.toys.masked_sum import Masked, publish
from tests.toys.one_by_one import OneByOne
from tests.toys.two_models import TwoModels

SITES = 4


def run(folder: Path, server: Callable[[], Server], rounds: int, **options: Any) -> Federated:
    if server is Masked:
        options = {"mods": [publish], "transforms": {"mask": Mask()}, **options}
    return federate(folder, sites=SITES, rounds=rounds, model="cnn", server=server, **options)


@pytest.mark.parametrize("server", [OneByOne, Masked, TwoModels])
def test_a_run_that_was_killed_goes_on_bit_for_bit(
    server: Callable[[], Server], tmp_path: Path
) -> None:
    whole = run(tmp_path / "whole", server, 6)

    def power_cut(message: Message, context: Context, call: ClientAppCallable) -> Message:
        seen.append(1)
        if len(seen) == (4 if server is OneByOne else 14):
            raise KeyboardInterrupt
        return call(message, context)

    seen: list[int] = []
    mods = [power_cut, publish] if server is Masked else [power_cut]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", server, 6, mods=mods)
    with History.open(tmp_path / "part") as left:
        assert 0 < len(left.rounds()) < 7
    part = run(tmp_path / "part", server, 6)
    for number in range(7):
        assert same(whole.weights(number), part.weights(number)), number
        for name, model in whole.history.models(number).items():
            assert same(model, part.history.models(number)[name])
    assert [r.metrics for r in whole.history.rounds()] == [r.metrics for r in part.history.rounds()]


def test_one_update_makes_a_version_and_its_base_may_be_old(tmp_path: Path) -> None:
    bases: list[tuple[str, str, int]] = []

    def watch(message: Message, context: Context, call: ClientAppCallable) -> Message:
        config = message.content.config_records["config"]
        site = str(context.node_config["site"])
        bases.append((site, str(config["job"]), int(str(config["server-round"])) - 1))
        return call(message, context)

    found = run(tmp_path, OneByOne, 7, mods=[watch])
    assert bases == [
        ("p0", "0", 0), ("p1", "1", 0), ("p2", "2", 0), ("p3", "3", 0),
        ("p0", "4", 1), ("p1", "5", 2), ("p2", "6", 3),
    ]  # fmt: skip
    trained = [[s for s, v in r.sites.items() if "examples" in v] for r in found.history.rounds()]
    assert trained == [[], ["p0"], ["p1"], ["p2"], ["p3"], ["p0"], ["p1"], ["p2"]]
    assert len(found.history.strategy_state()[":server"]["under_way"]) == SITES - 1


def test_the_server_learns_the_sum_and_no_update(tmp_path: Path) -> None:
    sent: list[np.ndarray] = []

    def watch(message: Message, context: Context, call: ClientAppCallable) -> Message:
        reply = call(message, context)
        if ARRAYS in reply.content:
            sent.extend(arrays_in(reply.content, ARRAYS).values())
        return reply

    plain = federate(tmp_path / "plain", sites=SITES, rounds=2, model="cnn")
    masked = run(tmp_path / "masked", Masked, 2, mods=[watch, publish])
    # A sum cannot give the largest of the counters, as an open one does: theirs is the mean.
    clear, hidden = (
        {n: a for n, a in each.weights(1).items() if a.dtype.kind == "f"}
        for each in (plain, masked)
    )
    assert 0 < distance(clear, hidden) < 1e-6
    assert {n: a.dtype for n, a in masked.weights().items()} == {
        n: a.dtype for n, a in plain.weights().items()
    }
    shares = np.concatenate([array.ravel() for array in sent]) / 2**44
    assert abs(shares.mean() - 0.5) < 0.01 and abs(shares.std() - 12**-0.5) < 0.01
    assert all(
        site.get("update_norm") is None
        for record in masked.history.rounds()
        for site in record.sites.values()
    )


def test_a_commit_holds_two_models_that_train_apart(tmp_path: Path) -> None:
    found = run(tmp_path, TwoModels, 2)
    assert found.history.models(0) == {}
    models = found.history.models()
    assert set(models) == {"even", "odd"} and not same(models["even"], models["odd"])
    for name, array in found.weights().items():
        mean = ((models["even"][name] + models["odd"][name]) / 2).astype(array.dtype)
        assert np.array_equal(array, mean)
    alone = federate(
        tmp_path / "alone", sites={f"p{n}": {"machines": 3 + n} for n in (0, 2)}, rounds=2,
        model="cnn", federated_scaling=False,
    )  # fmt: skip
    both = run(tmp_path / "both", TwoModels, 2, federated_scaling=False)
    assert same(alone.weights(), both.history.models()["even"])


def test_the_config_chooses_the_server_and_an_old_one_waits_for_all() -> None:
    assert type(build_server(compose([]))) is Synchronous
    old = compose([])
    with open_dict(old):
        del old["server"]
    assert type(build_server(old)) is Synchronous
    assert (
        type(build_server(compose(["server._target_=tests.toys.one_by_one.OneByOne"]))) is OneByOne
    )
    with pytest.raises(ConfigError, match="HalfCodec is no "):
        build_server(compose(["server._target_=tests.toys.half_codec.HalfCodec"]))

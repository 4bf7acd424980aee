"""Transforms: on their way in a run, and what does not go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg, Strategy
from omegaconf import open_dict

from fedpdm.config.compose import compose
from fedpdm.engines.local_grid import LocalGrid
from fedpdm.engines.ray.grid import RayGrid
from fedpdm.engines.stacked.grid import BatchedGrid
from fedpdm.errors import ConfigError
from fedpdm.runs.update_pipeline import build_transforms
from fedpdm.strategies.scaffold import CONTROL
from fedpdm.testing.federated import Federated, distance, federate, named, same
from fedpdm.transforms.base import Chain, Stage, Transform
from tests.toys.clip_and_noise import ClipAndNoise
from tests.toys.half_codec import HalfCodec


def states(run: Federated) -> dict[str, bytes]:
    return run.history.client_states()


def made(kind: str) -> dict[str, Transform]:
    if kind == "codec":
        return {"codec": HalfCodec()}
    return {"codec": HalfCodec(), "privacy": ClipAndNoise(0.5, 1e-3)}


@pytest.mark.parametrize("kind", ["codec", "both"])
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_a_run_with_transforms_goes_on_bit_for_bit(
    kind: str, strategy: str, tmp_path: Path
) -> None:
    whole = federate(tmp_path / "whole", strategy, rounds=4, model="cnn", transforms=made(kind))
    federate(
        tmp_path / "part", strategy, rounds=2, model="cnn", transforms=made(kind)
    ).history.close()
    again = federate(tmp_path / "part", strategy, rounds=4, model="cnn", transforms=made(kind))
    assert same(whole.weights(), again.weights())
    assert whole.history.strategy_state(4).keys() == again.history.strategy_state(4).keys()
    assert states(whole) == states(again)
    assert whole.loop.transforms.state == again.loop.transforms.state
    if kind == "both":
        assert again.loop.transforms.state == {"privacy": {"draws": 4}}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("engine", [RayGrid, BatchedGrid])
def test_every_engine_sends_the_same(engine: type[LocalGrid], tmp_path: Path) -> None:
    serial = federate(tmp_path / "serial", rounds=2, transforms=made("both"))
    other = federate(tmp_path / "other", rounds=2, transforms=made("both"), engine=engine)
    other.grid.close()
    assert distance(serial.weights(), other.weights()) < 1e-3
    if engine is RayGrid:
        assert same(serial.weights(), other.weights()) and states(serial) == states(other)


def test_bytes_are_counted_after_encoding(tmp_path: Path) -> None:
    plain = federate(tmp_path / "plain", rounds=1).history.rounds()[1]
    coded = federate(tmp_path / "coded", rounds=1, transforms=made("codec")).history.rounds()[1]
    weights = federate(tmp_path / "plain", rounds=1).weights()
    assert plain.bytes_up - coded.bytes_up > 3 * sum(a.nbytes for a in weights.values()) / 2 - 500
    assert plain.bytes_down == coded.bytes_down


def test_what_the_codec_cuts_off_is_sent_later(tmp_path: Path) -> None:
    plain = federate(tmp_path / "plain", rounds=3)
    coded = federate(tmp_path / "coded", rounds=3, transforms=made("codec"))
    assert 0 < distance(plain.weights(), coded.weights()) < 0.01


def test_clipping_bounds_every_record_together(tmp_path: Path) -> None:
    bound = 0.01
    run = federate(tmp_path, "scaffold", rounds=2, transforms={"privacy": ClipAndNoise(bound, 0.0)})
    for record in run.history.rounds()[1:]:
        assert all(0 < site["update_norm"] < bound * 1.001 for site in record.sites.values())
    control = run.history.strategy_state()[CONTROL]
    assert 0 < np.sqrt(sum(float(np.sum(c**2)) for c in control.values())) < 2 * bound * 1.001


def test_an_update_that_does_not_count_leaves_no_trace_in_the_site(tmp_path: Path) -> None:
    run = federate(tmp_path, sites=2, rounds=1, transforms=made("codec"), faults={"nan": "p1@1"})
    assert set(states(run)) == {"p0"}


class Mask(Transform):
    stage = Stage.MASK
    hides_values = True


class MaskByExamples(Mask):
    needs_examples = True


class WeightsOnly(Transform):
    stage = Stage.NOISE
    records = ("arrays",)


@pytest.mark.parametrize(
    ("chain", "strategy", "words"),
    [
        ({"a": Mask(), "b": HalfCodec()}, "fedavg", "transforms.a hides them"),
        ({"a": Mask(), "b": Mask()}, "fedavg", "hides them"),
        ({"a": Mask()}, "krum", "transforms.a works on sums"),
        ({"a": ClipAndNoise(1.0, 1.0)}, "fedmedian", "transforms.a works on sums"),
        ({"a": MaskByExamples()}, "scaffold", "weighs updates by their examples"),
        ({"a": WeightsOnly()}, "scaffold", "sends control as well"),
    ],
)
def test_a_chain_that_cannot_work_is_refused(
    chain: dict[str, Transform], strategy: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Chain(chain).check(named([f"strategy={strategy}"]))


@pytest.mark.parametrize(
    ("chain", "strategy"),
    [({"a": HalfCodec()}, "krum"), ({"a": MaskByExamples()}, "fednova"), ({}, "fedmedian")],
)
def test_others_are_not(chain: dict[str, Any], strategy: str) -> None:
    made: Strategy = named([f"strategy={strategy}"]) if strategy != "fednova" else FedAvg()
    Chain(chain).check(made)


def test_the_order_is_that_of_the_stages() -> None:
    chain = Chain({"c": Mask(), "b": HalfCodec(), "a": ClipAndNoise(1.0, 1.0)})
    assert [each.name for each in chain.transforms] == ["a", "b", "c"]


def test_the_config_makes_them_and_an_old_one_has_none() -> None:
    target = "+transforms.codec._target_=tests.toys.half_codec.HalfCodec"
    chain = build_transforms(compose([target]), 7, FedAvg())
    assert [each.name for each in chain.transforms] == ["codec"] and chain.seed == 7
    old = compose([])
    with open_dict(old):
        del old["transforms"]
    assert len(build_transforms(old, 7, FedAvg())) == len(Chain()) == 0
    with pytest.raises(ConfigError, match="transforms.codec"):
        build_transforms(compose([target + "s"]), 7, FedAvg())

"""Tensors that stay at their site: the same on every engine, after a resume and a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from fedpdm.client.state import LOCAL, PersonalModels
from fedpdm.data.normalise import Scaler
from fedpdm.data.rows import Split
from fedpdm.engines.local_grid import LocalGrid
from fedpdm.engines.serial import SerialGrid
from fedpdm.engines.stacked.grid import BatchedGrid
from fedpdm.evaluation.scoring import predict_site
from fedpdm.models.policy import POLICIES, ParameterPolicy
from fedpdm.testing.federated import Federated, distance, federate, same
from fedpdm.training.loop import TrainingSettings
from fedpdm.wire.flower import pack_state
from fedpdm.wire.records import Arrays, arrays_in

RAGGED = {f"p{n}": {"machines": 1 + n % 3, "rows": 60 + 7 * n} for n in range(5)}
OPTIONS: dict[str, Any] = {"sites": RAGGED, "rounds": 3, "model": "cnn"}


class FedBN(ParameterPolicy):
    """A policy of one's own: batch normalisation stays at the site (Li et al. 2021)."""

    def is_local(self, name: str, layer: nn.Module) -> bool:
        return isinstance(layer, nn.BatchNorm1d)


def own(run: Federated) -> dict[str, Arrays]:
    return {site: arrays_in(state, LOCAL) for site, state in run.grid.states.items()}


def packed(run: Federated) -> dict[str, bytes]:
    return {site: pack_state(state) for site, state in run.grid.states.items()}


def test_normalisation_stays_at_the_site_and_all_else_is_learnt_together(tmp_path: Path) -> None:
    run = federate(tmp_path / "bn", policy=FedBN(), **OPTIONS)
    plain = federate(tmp_path / "all", **OPTIONS)
    weights, sites = run.weights(), own(run)
    assert not any(name.startswith("bn") for name in weights)
    assert {*weights, *sites["p0"]} == set(plain.weights())
    assert not same(sites["p0"], sites["p1"])
    assert distance({n: plain.weights()[n] for n in weights}, weights) > 1e-4
    sent = [record.bytes_up for record in run.history.rounds()]
    assert sent[1] < plain.history.rounds()[1].bytes_up


@pytest.mark.parametrize("policy", ["no_norm", "body", "head"])
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "fedprox"])
def test_a_stack_starts_each_site_from_its_own_tensors(
    tmp_path: Path, policy: str, strategy: str
) -> None:
    def run(engine: type[LocalGrid]) -> Federated:
        settings = TrainingSettings(1, 16, 0.05, clip_norm=1.0, optimizer="sgd")
        return federate(
            tmp_path / engine.__name__, strategy, engine=engine, double=True, settings=settings,
            model_config={"dropout_rate": 0.0}, policy=POLICIES[policy](),
            overrides=["strategy.fraction_train=0.7"], **OPTIONS,
        )  # fmt: skip

    serial, batched = run(SerialGrid), run(BatchedGrid)
    assert own(serial).keys() == own(batched).keys()
    pairs = [(serial.weights(), batched.weights())]
    pairs += [(own(serial)[site], own(batched)[site]) for site in own(serial)]
    for mine, theirs in pairs:
        for name, array in mine.items():
            np.testing.assert_allclose(theirs[name], array, rtol=0, atol=1e-10)


@pytest.mark.parametrize("engine", [SerialGrid, BatchedGrid])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, engine: type[LocalGrid]) -> None:
    options = {**OPTIONS, "policy": FedBN(), "engine": engine}
    options["overrides"] = ["strategy.fraction_train=0.5"]
    whole = federate(tmp_path / "whole", **options)
    federate(tmp_path / "parts", **{**options, "rounds": 1}).history.close()
    parts = federate(tmp_path / "parts", **options)
    for number in range(4):
        assert same(parts.weights(number), whole.weights(number))
    assert packed(parts) == packed(whole)
    assert [r.metrics for r in parts.history.rounds()] == [
        r.metrics for r in whole.history.rounds()
    ]


def test_a_refused_update_leaves_the_sites_own_tensors_as_they_were(tmp_path: Path) -> None:
    options = {**OPTIONS, "policy": FedBN()}
    before = federate(tmp_path, **{**options, "rounds": 1})
    states = packed(before)
    before.history.close()
    run = federate(tmp_path, faults={"nan": "p1@2"}, **{**options, "rounds": 2})
    assert [site for site, data in packed(run).items() if data == states[site]] == ["p1"]


def test_a_site_is_judged_with_its_own_tensors(tmp_path: Path) -> None:
    options = {**OPTIONS, "rounds": 1, "overrides": ["strategy.fraction_train=0.5"]}
    scalers: list[Scaler] = []
    run = federate(tmp_path, policy=FedBN(), on_scaler=scalers.append, **options)
    client, states = run.grid.client_app.client, run.grid.states  # type: ignore[attr-defined]
    models = PersonalModels(
        client.build_model(), run.weights(), client.parts.local, states, client.minimised,
        client.device,
    )  # fmt: skip
    never = next(site for site in RAGGED if site not in states)
    mine, other = list(states)
    site = client.federation.site(mine, scalers[0])
    found = [
        predict_site(models(name), site, run.loop.task, client.device, [Split.TEST])
        for name in (mine, other, never)
    ]
    scores = [each[Split.TEST] for each in found]
    assert np.abs(scores[0] - scores[1]).max() > 1e-6  # of another site
    assert np.abs(scores[0] - scores[2]).max() > 1e-6  # of one that has the initial ones
    initial = client.build_model().get_parameters()
    current = dict(models(never).state_dict())
    assert all((current[n] == initial[n]).all() for n in client.parts.local)

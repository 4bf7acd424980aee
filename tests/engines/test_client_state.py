"""What sites remember for a strategy: the same on every engine, after a resume, a rollback
and a refusal; and a new strategy of this kind needs no more than its own file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedpdm.aggregation.sums import Sums
from fedpdm.engines.serial import SerialGrid
from fedpdm.engines.stacked.grid import BatchedGrid
from fedpdm.engines.stacked.sites import obstacle
from fedpdm.server import loop as server
from fedpdm.server.monitor import MonitorSettings
from fedpdm.strategies import local_terms as terms
from fedpdm.strategies.base import ClientHalf, Outcome, ServerHalf, Work, client_half
from fedpdm.testing.federated import Federated, distance, federate, same
from fedpdm.training.loop import GradientTerm, Memory
from fedpdm.wire.flower import pack_state
from fedpdm.wire.records import Arrays
from tests.strategies.both import SGD, mean_memory, memories

RAGGED = {f"p{n}": {"machines": 1 + n % 3, "rows": 60 + 7 * n} for n in range(6)}
MEMORY = {"scaffold": ("scaffold", "control"), "feddyn": ("feddyn-alpha", "lambda")}
HALF = ["strategy.fraction_train=0.5"]


def packed(run: Federated) -> dict[str, bytes]:
    return {site: pack_state(state) for site, state in run.grid.states.items()}


def assert_two_halves_agree(run: Federated, strategy: str) -> None:
    """The server's sum is the mean of what sites remember: true only if both know the same."""
    server = getattr(run.loop.strategy, {"scaffold": "control", "feddyn": "h"}[strategy])
    assert max(np.abs(array).max() for array in server.values()) > 1e-5
    assert distance(mean_memory(run, *MEMORY[strategy]), server) < 1e-12


@pytest.mark.parametrize(
    ("strategy", "model"),
    [("scaffold", "lstm"), ("scaffold", "mlp"), ("feddyn", "cnn"), ("fednova", "mlp")],
)
def test_a_stack_remembers_what_serial_does(tmp_path: Path, strategy: str, model: str) -> None:
    runs = [
        federate(
            tmp_path / engine.__name__, strategy, sites=RAGGED, rounds=3, model=model,
            engine=engine, settings=SGD, double=True, model_config={"dropout_rate": 0.0},
            overrides=["strategy.fraction_train=0.7"],
        )
        for engine in (SerialGrid, BatchedGrid)
    ]  # fmt: skip
    serial, batched = runs
    for number in range(4):
        for name, array in serial.weights(number).items():
            np.testing.assert_allclose(batched.weights(number)[name], array, rtol=0, atol=1e-10)
    assert serial.grid.states.keys() == batched.grid.states.keys()
    if strategy in MEMORY:
        mine, theirs = (memories(run, *MEMORY[strategy]) for run in runs)
        for site, arrays in theirs.items():
            for name, array in arrays.items():
                np.testing.assert_allclose(mine[site][name], array, rtol=0, atol=1e-10)
        assert_two_halves_agree(batched, strategy)


def test_nothing_keeps_auto_from_stacking_them(tmp_path: Path) -> None:
    run = federate(tmp_path, "scaffold", rounds=1, settings=SGD)
    site = run.grid.client_app.client  # type: ignore[attr-defined]
    assert obstacle(site, torch.zeros(8, 8, 3), torch.zeros(8, dtype=torch.int64)) is None


@pytest.mark.parametrize("strategy", MEMORY)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, strategy: str) -> None:
    options: dict[str, Any] = {"sites": RAGGED, "settings": SGD, "overrides": HALF}
    whole = federate(tmp_path / "whole", strategy, rounds=5, **options)
    federate(tmp_path / "parts", strategy, rounds=2, **options).history.close()
    parts = federate(tmp_path / "parts", strategy, rounds=5, **options)
    for number in range(6):
        assert same(parts.weights(number), whole.weights(number)), number
    assert len(whole.grid.states) > 3 and packed(parts) == packed(whole)
    np.testing.assert_equal(parts.history.strategy_state(), whole.history.strategy_state())


@pytest.mark.parametrize("strategy", MEMORY)
def test_only_sampled_sites_remember_anew(tmp_path: Path, strategy: str) -> None:
    options: dict[str, Any] = {"sites": RAGGED, "settings": SGD, "overrides": HALF}
    before = federate(tmp_path, strategy, rounds=2, **options)
    states = packed(before)
    before.history.close()
    after = federate(tmp_path, strategy, rounds=3, **options)
    sampled = set(after.history.rounds()[3].sampled)
    assert {s for s, data in packed(after).items() if states.get(s) != data} == sampled
    assert len(sampled) == 3


@pytest.mark.parametrize("strategy", MEMORY)
def test_a_rollback_takes_back_what_sites_remember(tmp_path: Path, strategy: str) -> None:
    run = federate(
        tmp_path, strategy, sites=4, rounds=4, settings=SGD, double=True,
        faults={"poison": "p1@3"}, monitor=MonitorSettings(rollback=True),
    )  # fmt: skip
    assert [r.attempt for r in run.history.rounds()] == [0, 0, 0, 1, 1]
    assert_two_halves_agree(run, strategy)


@pytest.mark.parametrize("strategy", MEMORY)
def test_a_site_whose_update_is_refused_forgets_the_round(tmp_path: Path, strategy: str) -> None:
    options: dict[str, Any] = {"sites": 3, "settings": SGD, "double": True}
    before = federate(tmp_path, strategy, rounds=1, **options)
    states = packed(before)
    before.history.close()
    run = federate(tmp_path, strategy, rounds=2, faults={"nan": "p1@2"}, **options)
    assert [event["site"] for event in run.screen.events if event["kind"] == "refused"] == ["p1"]
    assert [s for s, data in packed(run).items() if states[s] == data] == ["p1"]
    assert_two_halves_agree(run, strategy)


def test_a_site_that_goes_astray_does_not_remember_nan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As under a supernode, where the server cannot take back what a site remembers.
    monkeypatch.setattr(server, "undo_round", lambda *_: None)
    wild = {**vars(SGD), "learning_rate": 1e35, "clip_norm": None}
    run = federate(tmp_path, "feddyn", sites=2, rounds=1, settings=type(SGD)(**wild))
    refused = [event["site"] for event in run.screen.events if event["kind"] == "refused"]
    assert refused == ["p0", "p1"] and run.grid.states == {}


# A strategy of one's own ---------------------------------------------------------------------


def test_a_new_strategy_needs_nothing_but_its_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terms, "_MAKERS", dict(terms._MAKERS))

    @client_half("anchor-strength")
    class AnchorSite(ClientHalf):
        """Pulls towards where the site came to last time; sends how far that was."""

        groups = ("anchor", "rounds")
        reads = ("scale",)
        replies = ("way",)

        def term(self, received: Sequence[Tensor], memory: Memory) -> GradientTerm:
            scale = [self.setting * s for s in self.sent["scale"]]

            def add(parameters: Sequence[Tensor], received: Sequence[Tensor]) -> None:
                with torch.no_grad():
                    for p, s, anchor in zip(parameters, scale, memory["anchor"], strict=True):
                        assert p.grad is not None
                        p.grad.add_(s * (p - anchor))

            return add

        def finish(self, work: Work) -> Outcome:
            way = {n: w - work.memory["anchor"][n] for n, w in work.trained.items()}
            rounds = {n: a + 1 for n, a in work.memory["rounds"].items()}
            return Outcome({"anchor": work.trained, "rounds": rounds}, {"way": way}, {"seen": 1.0})

    class Anchored(ServerHalf):
        client = AnchorSite

        def __init__(self) -> None:
            super().__init__(setting=0.5)
            self.way: Arrays = {}
            self.seen = 0.0

        def send(self, arrays: Arrays) -> dict[str, Arrays]:
            return {"scale": {name: np.ones_like(a) for name, a in arrays.items()}}

        def combine(self, server_round: int, sent: Arrays, sums: Sums) -> Arrays:
            self.way, self.seen = dict(sums.means["way"]), sum(p["seen"] for p in sums.sites)
            return sums.mean

    runs = [
        federate(tmp_path / e.__name__, Anchored(), sites=RAGGED, rounds=3, engine=e, double=True)
        for e in (SerialGrid, BatchedGrid)
    ]
    for name, array in runs[0].weights().items():
        np.testing.assert_allclose(runs[1].weights()[name], array, rtol=0, atol=1e-10)
    plain = federate(tmp_path / "plain", "fedavg", sites=RAGGED, rounds=3, double=True)
    assert distance(plain.weights(), runs[0].weights()) > 1e-5
    for run in runs:
        assert run.loop.strategy.seen == 6  # type: ignore[attr-defined]
        counted = memories(run, "anchor-strength", "rounds")
        assert all((a == 3).all() for arrays in counted.values() for a in arrays.values())

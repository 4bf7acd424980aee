"""``check_strategy`` finds every breach; that ours pass is in tests/strategies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from fedpdm.aggregation.sums import Sums
from fedpdm.errors import ConfigError
from fedpdm.strategies import local_terms
from fedpdm.strategies.base import ClientHalf, Outcome, ServerHalf, Work, client_half
from fedpdm.testing import check_strategy
from fedpdm.training.loop import GradientTerm, Memory
from fedpdm.wire.records import Arrays, from_record, to_record

Aggregate = tuple[ArrayRecord | None, MetricRecord | None]


class Changed(FedAvg):
    """FedAvg whose new weights are changed; each toy below says how."""

    def change(self, arrays: Arrays) -> Arrays:
        return arrays

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Aggregate:
        record, metrics = super().aggregate_train(server_round, replies)
        assert record is not None
        return to_record(self.change(from_record(record))), metrics


class Drifts(Changed):
    def change(self, arrays: Arrays) -> Arrays:
        return {name: array + np.float32(0.01) for name, array in arrays.items()}


class Forgets(Changed):
    """Its memory is an object, which is not captured."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = type("Memory", (), {"rounds": 0})()

    def change(self, arrays: Arrays) -> Arrays:
        self.memory.rounds += 1
        factor = np.float32(1 + 1e-7 * self.memory.rounds**2)
        return {name: array * factor for name, array in arrays.items()}


class Loses(Changed):
    def change(self, arrays: Arrays) -> Arrays:
        return {name: array.ravel() for name, array in arrays.items()}


class Overwrites(Changed):
    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Aggregate:
        taken = list(replies)
        found = super().aggregate_train(server_round, taken)
        for reply in taken:
            reply.content["arrays"] = to_record({"nothing": np.zeros(1)})
        return found


class Idle(Changed):
    """Gives back the weights that it was sent."""

    sent: Any = None

    def configure_train(self, server_round: int, arrays: Any, *rest: Any) -> Iterable[Message]:
        self.sent = from_record(arrays)
        return super().configure_train(server_round, arrays, *rest)

    def change(self, arrays: Arrays) -> Arrays:
        return self.sent  # type: ignore[no-any-return]


class Refuses(FedAvg):
    min_sites = 9


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        (Drifts, "every site returned what it received"),
        (Forgets, "after a stop and a restart"),
        (Loses, "shape"),
        (Overwrites, "changed the content of a reply"),
        (Idle, "did not change the model"),
        (Refuses, "refuses 1, 2 and 5 sites"),
    ],
)
def test_every_breach_is_found(strategy: type[FedAvg], said: str) -> None:
    with pytest.raises((AssertionError, ValueError), match=said):
        check_strategy(strategy, engines=())


def test_drift_may_be_declared() -> None:
    check_strategy(Drifts, engines=(), moves_without_updates=True)


def test_a_client_half_that_serves_sites_from_one_memory_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local_terms, "_MAKERS", dict(local_terms._MAKERS))
    calls = []

    @client_half("counts-calls")
    class Counts(ClientHalf):
        def term(self, received: Sequence[Tensor], memory: Memory) -> GradientTerm:
            calls.append(1)
            push = len(calls) * 1e-3

            def add(parameters: Sequence[Tensor], received: Sequence[Tensor]) -> None:
                for parameter in parameters:
                    if parameter.grad is not None:
                        parameter.grad.add_(push)

            return add

    class Server(ServerHalf):
        client = Counts

        def combine(self, server_round: int, sent: Arrays, sums: Any) -> Arrays:
            return dict(sums.mean)

    with pytest.raises(AssertionError, match="after a stop and a restart|differ from the serial"):
        check_strategy(Server, optimizer="sgd")


def test_one_that_needs_more_sites_says_so_and_passes() -> None:
    class Two(FedAvg):
        min_sites = 2

    check_strategy(Two)
    assert issubclass(ConfigError, Exception)


@pytest.mark.parametrize("lost", ["memory", "records"])
def test_what_a_client_half_returns_under_a_name_of_no_use_is_refused(
    lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_terms, "_MAKERS", dict(local_terms._MAKERS))

    @client_half("misspells")
    class Misspells(ClientHalf):
        groups, replies = ("drift",), ("drifts",)

        def finish(self, work: Work) -> Outcome:
            return Outcome(**{lost: {"drfit": work.trained}})

    class Server(ServerHalf):
        client = Misspells

        def combine(self, server_round: int, sent: Arrays, sums: Sums) -> Arrays:
            return sums.mean

    with pytest.raises(AssertionError, match="drfit"):
        check_strategy(Server, engines=())


def test_a_server_half_without_a_client_or_with_tensors_missing_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local_terms, "_MAKERS", dict(local_terms._MAKERS))

    class NoHalf(ServerHalf):
        def combine(self, server_round: int, sent: Arrays, sums: Sums) -> Arrays:
            return sums.mean

    with pytest.raises(ConfigError, match="NoHalf names no client half"):
        NoHalf()

    class Omits(NoHalf):
        client = client_half("omits")(type("Plain", (ClientHalf,), {}))

        def combine(self, server_round: int, sent: Arrays, sums: Sums) -> Arrays:
            return {}

    with pytest.raises(AssertionError, match="every tensor"):
        check_strategy(Omits, engines=())

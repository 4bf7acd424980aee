"""Metrics that a strategy or a site's training report, on their way to every output."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdam, FedAvg

from fedpdm.aggregation.sums import is_weighted_mean
from fedpdm.aggregation.update import Contribution
from fedpdm.server.round_metrics import describe, further_metrics
from fedpdm.server.strategy_calls import StrategyCalls
from fedpdm.simulate import main
from fedpdm.strategies.base import ClientHalf, Outcome, ServerHalf, Work, client_half
from fedpdm.tasks import Failure
from fedpdm.testing.federated import federate
from fedpdm.trackers import round_scalars
from fedpdm.wire.records import config_record
from tests.trackers.small import SMALL


class Telling(FedAdam):
    """Returns metrics of its own beside Flower's means."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        arrays, metrics = super().aggregate_train(server_round, replies)
        assert metrics is not None
        return arrays, MetricRecord({**metrics, "moments": 0.25 * server_round, "pair": [1.0, 2.0]})

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        losses = [float(r.content.metric_records["metrics"]["loss"]) for r in replies]  # type: ignore[arg-type]
        return MetricRecord({"loss": max(losses), "worst_loss": max(losses)})


@client_half("telling")
class Steps(ClientHalf):
    """Says how many steps it made."""

    def finish(self, work: Work) -> Outcome:
        return Outcome(metrics={"steps": float(len(work.rates)), "brier": 0.125})


class Stepping(ServerHalf):
    """FedAvg whose sites say more, and whose server does."""

    client = Steps

    def combine(self, server_round: int, sent: Any, sums: Any) -> Any:
        self.heard = len(sums.sites)
        return sums.mean

    def metrics(self) -> Mapping[str, float]:
        return {"heard": self.heard}


def test_what_a_strategy_returns_stands_beside_the_rounds_own_metrics(tmp_path: Path) -> None:
    run = federate(tmp_path, Telling(), rounds=2)
    plain = federate(tmp_path / "plain", FedAdam(), rounds=2)
    first, second = (record.metrics for record in run.history.rounds()[1:])
    assert (first["moments"], second["moments"]) == (0.25, 0.5)
    assert (first["pair_0"], first["pair_1"]) == (1.0, 2.0)
    losses = [s["validation"]["loss"] for s in run.history.rounds()[2].sites.values()]
    assert second["worst_loss"] == second["strategy_loss"] == max(losses)
    usual = plain.history.rounds()[2].metrics
    assert {name: second[name] for name in usual} == usual  # Flower's means are not repeated
    assert set(second) - set(usual) == {
        "moments",
        "pair_0",
        "pair_1",
        "worst_loss",
        "strategy_loss",
    }


def test_what_sites_say_of_their_training_is_averaged_by_examples(tmp_path: Path) -> None:
    sites = {"small": {"machines": 3}, "large": {"machines": 9}}
    run = federate(tmp_path, Stepping(), rounds=1, sites=sites)
    record = run.history.rounds()[1]
    small, large = (record.sites[name] for name in sites)
    assert small["steps"] < large["steps"]
    total = small["examples"] + large["examples"]
    mean = sum(s["steps"] * s["examples"] for s in (small, large)) / total
    np.testing.assert_allclose(record.metrics["steps"], mean)
    # A name that validation uses for something else.
    assert small["train_brier"] == record.metrics["train_brier"] == 0.125
    assert record.metrics["brier"] != 0.125
    assert set(further_metrics(record.to_dict())) == {"steps", "train_brier", "heard"}
    assert record.metrics["heard"] == 2.0
    assert round_scalars(record.to_dict())["sites/small/steps"] == small["steps"]


def test_the_rounds_own_numbers_are_not_overwritten() -> None:
    update = Contribution("a", {"num-examples": 4.0, "train_loss": 1.0, "update_norm": 9.0}, 0.5)
    metrics, sites = describe([update], {}, {}, Failure(horizon=4.0), {"train_loss": 7.0})
    assert metrics["train_loss"] == 1.0 and metrics["train_update_norm"] == 9.0
    assert sites["a"]["update_norm"] == 0.5


def test_a_strategy_with_its_own_mean_of_metrics_gets_the_replies(tmp_path: Path) -> None:
    def count(contents: list[RecordDict], key: str) -> MetricRecord:
        return MetricRecord({"replies": len(contents)})

    strategy = FedAvg(train_metrics_aggr_fn=count)
    assert is_weighted_mean(FedAvg()) and not is_weighted_mean(strategy)
    run = federate(tmp_path, strategy, rounds=1)
    assert run.history.rounds()[1].metrics["replies"] == 3.0


def test_every_call_has_draws_of_its_own_and_leaves_the_generators_alone() -> None:
    drawn: list[tuple[float, float, float]] = []

    class Drawing(FedAvg):
        def draw(self) -> None:
            drawn.append((random.random(), float(np.random.random()), float(torch.rand(()))))

        def configure_train(
            self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
        ) -> Iterable[Message]:
            self.draw()
            yield from ()
            self.draw()  # a generator too is run under the seed

        def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
            self.draw()
            return None, None

    for _ in range(2):
        random.seed()
        np.random.seed()
        before = random.getstate(), repr(np.random.get_state()), torch.get_rng_state()
        for attempt in (0, 1):
            calls = StrategyCalls(Drawing(), seed=3)
            calls.begin(attempt)
            config = config_record(server_round=1, attempt=attempt)
            calls.configure_train(1, ArrayRecord(), config, None)  # type: ignore[arg-type]
            calls.aggregate_train(1, [])
        after = random.getstate(), repr(np.random.get_state()), torch.get_rng_state()
        assert before[:2] == after[:2] and torch.equal(before[2], after[2])
    assert drawn[:6] == drawn[6:]
    assert len(set(drawn[:6])) == 6


def test_further_metrics_reach_csv_summary_and_report(tmp_path: Path) -> None:
    target = f"strategy._target_={__name__}.Telling"
    assert main([*SMALL, "rounds=2", "strategy=fedadam", target, f"hydra.run.dir={tmp_path}"]) == 0
    lines = pd.read_csv(tmp_path / "metrics.csv")
    assert list(lines[lines["site"].isna()]["moments"]) == [0.25, 0.5]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["reported"]["moments"] == 0.25 * summary["best_round"]
    report = (tmp_path / "report.html").read_text()
    assert "worst_loss" in report and "What else was reported" in report

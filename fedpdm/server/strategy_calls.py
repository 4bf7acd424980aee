"""Guarded calls into a strategy, which may be foreign code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

from fedpdm.seeding import seeded_globals
from fedpdm.wire.records import EXAMPLES


class StrategyCalls:
    """Passes calls on to a strategy, each under global generators seeded for it.

    Args:
        strategy: any Flower Message-API strategy.
        seed: the run's seed.

    Attributes:
        reported: the metrics that the strategy returned in this round, by name. Flower's own
            means of what the sites sent are left out; a name that the sites use for something
            else begins with ``strategy_``.
    """

    def __init__(self, strategy: Strategy, seed: int) -> None:
        self.strategy, self._seed = strategy, seed
        self._attempt = self._count = 0
        self.reported: dict[str, float] = {}

    def begin(self, attempt: int) -> None:
        """Begin a round, which a rollback may have brought back."""
        self._attempt, self._count, self.reported = attempt, 0, {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Return the messages that let sites train."""
        with self._seeded("configure_train", server_round):
            return list(self.strategy.configure_train(server_round, arrays, config, grid))

    def aggregate_train(self, server_round: int, replies: list[Message]) -> ArrayRecord | None:
        """Return the new parameters, if there are any."""
        means = flower_means(replies)
        with self._seeded("aggregate_train", server_round):
            arrays, metrics = self.strategy.aggregate_train(server_round, replies)
        self._keep(metrics, means)
        return arrays

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Return the messages of the round's evaluation."""
        with self._seeded("configure_evaluate", server_round):
            return list(self.strategy.configure_evaluate(server_round, arrays, config, grid))

    def aggregate_evaluate(self, server_round: int, replies: list[Message]) -> None:
        """Tell the strategy what the sites measured."""
        means = flower_means(replies)
        with self._seeded("aggregate_evaluate", server_round):
            metrics = self.strategy.aggregate_evaluate(server_round, replies)
        self._keep(metrics, means)

    @contextmanager
    def _seeded(self, call: str, server_round: int) -> Iterator[None]:
        self._count += 1  # a round may have several calls of a kind
        key = (type(self.strategy).__name__, call, server_round, self._attempt, self._count)
        with seeded_globals(self._seed, "strategy", *key):
            yield

    def _keep(self, metrics: MetricRecord | None, means: MetricRecord) -> None:
        for name, value in (metrics or {}).items():
            if name in means and np.array_equal(value, means[name], equal_nan=True):
                continue
            label = f"strategy_{name}" if name in means else name
            if isinstance(value, list):
                self.reported |= {f"{label}_{n}": float(each) for n, each in enumerate(value)}
            else:
                self.reported[label] = float(value)


def flower_means(replies: Iterable[Message]) -> MetricRecord:
    """Return what Flower's strategies make of the sites' metrics: means by examples."""
    return aggregate_metricrecords([reply.content for reply in replies], EXAMPLES)

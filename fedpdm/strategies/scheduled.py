"""Server learning rate by a schedule: the server's step grows in, or fades out, over the run.

Reddi et al. 2021, Adaptive Federated Optimization (ICLR), algorithm 1 with plain gradient steps at
the server. With Δ the sites' mean change, weighted by examples,

    w ← w_t + η_t·Δ        η_t = η · warm-up(t) · schedule(t)

in round t of T, counted from 1: ``constant`` is 1; ``cosine`` is (1 + cos(π·(t−1)/T))/2 (Loshchilov
and Hutter 2017, eq. 5, one cycle); ``step`` is γ^⌊(t−1)/s⌋; ``inverse`` is 1/√t, with which the
noise of sampled sites dies out. The warm-up is min(1, t/warm-up rounds). With η = 1, ``constant``
and no warm-up this is FedAvg, bit for bit.

Use it where few of many sites are sampled: a falling server rate averages out their noise, where a
falling local rate slows the sites too. It costs nothing. The round's number decides the rate,
so a rollback comes back to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from fedpdm.aggregation.sums import Sums
from fedpdm.errors import ConfigError
from fedpdm.strategies.base import PlainClient, ServerHalf
from fedpdm.strategies.ranges import check_range
from fedpdm.wire.records import Arrays

__all__ = ["ScheduledAvg"]


class ScheduledAvg(ServerHalf):
    """The server's half; sites train as with FedAvg.

    Args:
        server_learning_rate: η, before the schedule.
        schedule: how the rate falls: constant, cosine, step or inverse.
        rounds: T, of the whole run; ``cosine`` reads it.
        warm_up: rounds in which the rate grows to its full size; 0: none.
        step_size: rounds between two falls with ``step``.
        gamma: what ``step`` multiplies the rate by.
        **flower: further arguments of Flower's FedAvg.

    Raises:
        ConfigError: a value out of its range; names ``strategy.KEY``.
    """

    client = PlainClient

    def __init__(
        self,
        server_learning_rate: float = 1.0,
        schedule: str = "cosine",
        rounds: int = 10,
        warm_up: int = 0,
        step_size: int = 10,
        gamma: float = 0.5,
        **flower: Any,
    ) -> None:
        check_range("server_learning_rate", server_learning_rate)
        check_range("rounds", rounds)
        check_range("warm_up", warm_up, zero=True)
        check_range("step_size", step_size)
        check_range("gamma", gamma, below=1.0001)
        if schedule not in SCHEDULES:
            raise ConfigError(
                f"strategy.schedule={schedule} is unknown; there are {list(SCHEDULES)}"
            )
        super().__init__(**flower)
        self.server_learning_rate, self.schedule = float(server_learning_rate), schedule
        self.rounds, self.warm_up = rounds, warm_up
        self.step_size, self.gamma = step_size, float(gamma)
        self.rate = self.server_learning_rate

    def rate_of(self, server_round: int) -> float:
        """Return η_t of a round, counted from 1."""
        warm = min(1.0, server_round / self.warm_up) if self.warm_up else 1.0
        return self.server_learning_rate * warm * SCHEDULES[self.schedule](self, server_round - 1)

    def combine(self, server_round: int, sent: Arrays, sums: Sums) -> Arrays:
        self.rate = self.rate_of(server_round)
        if self.rate == 1.0:
            return sums.mean
        return {name: w + self.rate * (sums.mean[name] - w) for name, w in sent.items()}

    def metrics(self) -> Mapping[str, float]:
        return {"server_rate": self.rate}


SCHEDULES: dict[str, Callable[[ScheduledAvg, int], float]] = {
    "constant": lambda strategy, done: 1.0,
    "cosine": lambda strategy, done: (1 + math.cos(math.pi * min(done / strategy.rounds, 1.0))) / 2,
    "step": lambda strategy, done: strategy.gamma ** (done // strategy.step_size),
    "inverse": lambda strategy, done: 1 / math.sqrt(done + 1),
}
"""The factor of the server's rate after so many rounds, by name."""

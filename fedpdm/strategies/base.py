"""Base classes of strategies with two halves: one on the server, one at the sites.

A strategy is one file with both, found by each other through a key of the train config:

    @client_half("mine")
    class MineClient(ClientHalf):       # what to add to the gradient, what to remember
        ...

    class Mine(ServerHalf):            # conf/strategy/mine.yaml names this one
        client = MineClient
        def combine(self, server_round, sent, sums): ...

The weights themselves always travel as weights, under ``arrays``, never as differences:
what looks at updates (refusals, outliers, faults, privacy mods) need not know the strategy.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray
from torch import Tensor

from fedpdm.aggregation.collector import Collector
from fedpdm.aggregation.sums import Sums
from fedpdm.aggregation.update import Base
from fedpdm.errors import ConfigError
from fedpdm.strategies.local_terms import local_term
from fedpdm.training.loop import GradientTerm, Memory, TrainingSettings
from fedpdm.wire.records import EXAMPLES, Arrays, from_record, to_record

Half = TypeVar("Half", bound="ClientHalf")


@dataclass(frozen=True)
class Work:
    """What a site did in a round. Arrays are by the parameters' names, not to be changed.

    Attributes:
        received: the parameters it got.
        trained: the parameters it came to.
        memory: what it remembered, by group.
        sent: the records that came with the parameters, by name.
        rates: the learning rate of each of its steps.
        targets: (N, …) of its training windows.
    """

    received: Arrays
    trained: Arrays
    memory: Mapping[str, Arrays]
    sent: Mapping[str, Arrays]
    rates: Sequence[float]
    targets: NDArray[Any] = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Outcome:
    """What a site takes from a round: what to remember, and what to send beside its weights."""

    memory: Mapping[str, Arrays] = field(default_factory=dict)
    records: Mapping[str, Arrays] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


class ClientHalf:
    """A site's half. One is made per round, from the value that the server sent.

    Attributes:
        key: of the train config, and of the site's memory.
        optimizers: the formulas hold for these; empty for any.
        groups: what a site remembers, each group with an array per parameter, zero at first
            and of the parameters' type.
        reads: records that the server sends beside the parameters, with an array for each.
        replies: records that the site sends back, likewise.
        setting: the value that the server sent.
        sent: the tensors of ``reads``, in the order of the parameters.
    """

    key: ClassVar[str]
    optimizers: ClassVar[tuple[str, ...]] = ()
    groups: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[tuple[str, ...]] = ()
    replies: ClassVar[tuple[str, ...]] = ()

    def __init__(self, setting: Any) -> None:
        self.setting = setting
        self.sent: Mapping[str, Sequence[Tensor]] = {}

    def term(self, received: Sequence[Tensor], memory: Memory) -> GradientTerm | None:
        """Return what to add to the gradient; see ``training.loop.SiteTerm``."""
        return None

    def finish(self, work: Work) -> Outcome:
        """Return what remains of a round. The same arithmetic on every engine."""
        return Outcome()

    @classmethod
    def check(cls, settings: TrainingSettings) -> None:
        """Refuse local training that the strategy's formulas do not describe.

        Raises:
            ConfigError: the optimizer is another.
        """
        if cls.optimizers and settings.optimizer not in cls.optimizers:
            raise ConfigError(
                f"this strategy's formulas ({cls.key}) assume plain gradient steps: it needs "
                f"training.optimizer={' or '.join(cls.optimizers)}, not {settings.optimizer}, and "
                "a learning rate to go with it (strategy yamls of its kind set both)"
            )
        if cls.optimizers and settings.freezing is not None and settings.freezing.rate != 1:
            raise ConfigError(
                f"init.unfrozen_rate={settings.freezing.rate:g}: this strategy's formulas "
                f"({cls.key}) assume one learning rate for all tensors; leave it at 1"
            )


def client_half(key: str) -> Callable[[type[Half]], type[Half]]:
    """Register a client half under a key of the train config."""

    def decorate(half: type[Half]) -> type[Half]:
        half.key = key
        return local_term(key)(half)

    return decorate


@client_half("plain-training")
class PlainClient(ClientHalf):
    """The half of a strategy whose sites train as with FedAvg."""


class _Sent:
    """The arrays of the round, as no part of the strategy's memory (``state.capture``)."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays


class ServerHalf(FedAvg):
    """The server's half: sends what sites need, and needs of their updates only sums.

    So updates are added up as they come, and none is kept. What it remembers are attributes
    of plain data, which the history keeps (``state.capture``): sums over rounds in float64,
    so that a thousand rounds do not wear them off.

    Args:
        setting: sent to the sites under the client half's key.
        **flower: further arguments of Flower's FedAvg.

    Attributes:
        client: the other half; ``PlainClient`` where sites train as with FedAvg.
        sites: how many sites the federation has, sampled or not.
    """

    client: ClassVar[type[ClientHalf]]

    def __init__(self, setting: Any = True, **flower: Any) -> None:
        super().__init__(**flower)
        if not hasattr(type(self), "client"):
            raise ConfigError(
                f"{type(self).__name__} names no client half: write client = YOUR_CLIENT_HALF "
                "in its class"
            )
        self.setting = setting
        self.total_sites = 0
        self._sent = _Sent({})

    @property
    def replies(self) -> Sequence[str]:
        """Records that sites send beside weights."""
        return self.client.replies

    def check_training(self, settings: TrainingSettings) -> None:
        """Refuse local training that does not go with this strategy, with a ConfigError."""
        self.client.check(settings)

    def send(self, arrays: Arrays) -> Mapping[str, Arrays]:
        """Return the records that go to every site beside the parameters ``arrays``."""
        return {}

    def weight(self, metrics: Mapping[str, float]) -> float:
        """Return what a site counts in the sums, from what it reported."""
        return metrics[EXAMPLES]

    @abstractmethod
    def combine(self, server_round: int, sent: Arrays, sums: Sums) -> Arrays:
        """Return the new parameters from those that were sent and the sums of the replies."""

    def metrics(self) -> Mapping[str, float]:
        """Return what the server has to say of the round, after ``combine``: metrics by name."""
        return {}

    # Flower's side ------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        config[self.client.key] = self.setting
        self._sent = _Sent(from_record(arrays))
        self.total_sites = self.total_sites or len(list(grid.get_node_ids()))
        records = {name: to_record(a) for name, a in self.send(self._sent.arrays).items()}
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for content in {id(message.content): message.content for message in messages}.values():
            for name, record in records.items():
                content[name] = record
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Combine replies as Flower's own loop hands them over; ours adds them up itself."""
        sent = self._sent.arrays
        base = Base(server_round - 1, sent, {})
        collector = Collector(base, lambda kind, message, site=None: None, self)
        for reply in replies:
            collector.take(str(reply.metadata.src_node_id), reply)
        sums = collector.sums()
        if sums is None:
            return None, None
        new = self.combine(server_round, sent, sums)
        arrays = to_record({n: np.asarray(new[n], a.dtype) for n, a in sent.items()})
        return arrays, MetricRecord(dict(self.metrics()))

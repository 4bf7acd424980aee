"""The interface of a server: the steps of a round, whatever triggers a commit.

The loop calls ``select``, ``submit``, then ``next_reply`` and ``apply`` in turn until no
reply is left, and ``result``; it evaluates and judges what came out, and commits it. A
round that was not committed is begun again from ``select``, all its stages with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedpdm.aggregation.collector import Note
from fedpdm.aggregation.update import Base, Contribution, Update
from fedpdm.history import History
from fedpdm.server.clock import Clock
from fedpdm.server.dispatch import Dispatcher
from fedpdm.server.strategy_calls import StrategyCalls
from fedpdm.tasks import Task
from fedpdm.transforms.base import Chain
from fedpdm.wire.records import Arrays, to_record

MAIN = ""
"""The model that a round's weights file holds, beside which a commit may hold others by name."""
SERVER = ":server"
"""Where the server's state lies beside the strategy's in the history; no attribute is named so."""
MEMBERS = "members"
"""Key of a server's state: by site, the name of its model, where sites have different ones."""


@dataclass(frozen=True)
class Services:
    """What a server works with.

    Attributes:
        calls: passes calls on to the run's strategy.
        dispatcher: carries messages.
        history: the rounds so far.
        transforms: what updates go through on their way.
        fraction: share of the sites that are to train in a round.
        seed: the run's seed.
        clock: what time it is.
        model: returns a committed round's model.
        task: what the run learns.
    """

    calls: StrategyCalls
    dispatcher: Dispatcher
    history: History
    transforms: Chain
    fraction: float
    seed: int
    clock: Clock
    model: Callable[[int], Base]
    task: Task

    @property
    def strategy(self) -> Strategy:
        """The run's strategy: any of Flower's Message API."""
        return self.calls.strategy


@dataclass
class Round:
    """A round while it is under way.

    Attributes:
        number: of the version that is to be committed.
        attempt: how many rollbacks lie before it.
        model: the last committed version.
        models: the models that were committed beside it, by name.
        config: goes to the sites.
        note: remembers an event.
        sampled: the sites that ``select`` chose.
        bytes_down: bytes to the sites so far.
        accept: told of every accepted update and its reply, where updates are to be kept.
        version: the name of the version that is being made.
        names: by site, what the site calls what it remembers of its last message, where it keeps
            that itself; those of messages that are still under way stay from round to round.
    """

    number: int
    attempt: int
    model: Base
    models: Mapping[str, Arrays]
    config: ConfigRecord
    note: Note
    sampled: Sequence[str] = ()
    bytes_down: int = 0
    accept: Callable[[Update, Message], None] | None = None
    version: str = ""
    names: dict[str, str] = field(default_factory=dict)

    def name(self, sites: Iterable[str]) -> None:
        """Name what sites will remember of a message: the version, numbered from the second on."""
        for site in sites:
            before = self.names.get(site, "")
            again = before.startswith(self.version)
            number = int(before[len(self.version) :] or 0) + 1 if again else 0
            self.names[site] = f"{self.version}{number:03d}" if number else self.version


@dataclass(frozen=True)
class Result:
    """What a round came to.

    Attributes:
        arrays: the new parameters.
        buffers: the new buffers.
        updates: whose updates count.
        bytes_up: bytes from the sites.
        models: all tensors of further models, by name.
    """

    arrays: Arrays
    buffers: Arrays
    updates: Sequence[Contribution]
    bytes_up: int
    models: Mapping[str, Arrays] = field(default_factory=dict)


class Server(ABC):
    """A kind of server. One is made per run.

    Attributes:
        services: what it works with.
        state: what it must remember from round to round, a tree of plain values and arrays;
            the history keeps it. Under ``members``: which site has which further model.
        in_order: replies are wanted in site order, all that there will be at once; else each as
            it comes.
        one_model: every update that counts in a round was made from the model of the round
            before, the only one there is. A class says so itself, it is not inherited.
        least_sites: how many sites a round must be able to have.
        at_sites: sites have a part in it beside training.
        costs: what it costs beside FedAvg, for its page.
        trains: sites train with what is being sent, and may remember something of it.
        withholds_validation: sites do not evaluate during training; the last round is the result.
    """

    services: Services
    in_order: ClassVar[bool] = True
    one_model: ClassVar[bool] = False
    least_sites: ClassVar[int] = 1
    at_sites: ClassVar[bool] = False
    costs: ClassVar[Sequence[str]] = ()
    trains: bool = True
    withholds_validation: bool = False

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with what was committed: after a start, a crash, or a rollback.

        Messages that were under way are lost; those that are still wanted are to be submitted
        again.
        """
        self.state = state

    def check(  # noqa: B027
        self, strategy: Strategy, transforms: Chain, clock: Clock, keep: int | None
    ) -> None:
        """Refuse a run that this kind of server cannot do, before anything is written.

        Args:
            strategy: the run's.
            transforms: of updates.
            clock: the run's.
            keep: of how many rounds the history keeps weights; None: of all.

        Raises:
            ConfigError: the message says what to choose.
        """

    def uncovered(self, scaling: bool) -> str | None:
        """Say what a server that hides updates does not hide; None for one that hides nothing.

        Args:
            scaling: whether sites send sums for a shared scaler.
        """
        return None

    @abstractmethod
    def select(self, round: Round) -> list[str]:
        """Return the sites that are to be given work, in site order."""

    @abstractmethod
    def submit(self, round: Round, sites: Sequence[str]) -> None:
        """Give sites their work, without waiting for any."""

    def next_reply(self, round: Round) -> tuple[str, Message] | None:
        """Return a site and what it answered; None if the round waits for no further reply."""
        return self.services.dispatcher.next_reply()

    def send(
        self,
        round: Round,
        sites: Sequence[str],
        configure: Callable[[Grid], Iterable[Message]],
        buffers: Arrays | None = None,
    ) -> None:
        """Submit messages of a round; the replies come from ``next_reply``.

        Args:
            round: whose they are.
            sites: who gets one.
            configure: writes them to the nodes of a Grid, as a strategy does.
            buffers: sent beside what ``configure`` wrote.
        """
        dispatcher = self.services.dispatcher
        asked = dispatcher.ask(sites, round.note, configure, buffers or {})
        round.bytes_down += asked.bytes_down
        if self.trains:
            round.name(asked.nodes.values())
        dispatcher.submit(asked, round.note, self.in_order)

    def send_model(
        self, round: Round, sites: Sequence[str], model: Base, config: ConfigRecord
    ) -> None:
        """Let sites train a model, as the strategy wants it."""
        parameters, number = to_record(model.arrays), model.version + 1
        calls = self.services.calls
        self.send(
            round, sites,
            lambda grid: calls.configure_train(number, parameters, config, grid),
            model.buffers,
        )  # fmt: skip

    @abstractmethod
    def apply(self, round: Round, site: str, reply: Message) -> None:
        """Take a reply. May submit more: a further stage of the round, or the site's next job."""

    @abstractmethod
    def result(self, round: Round) -> Result:
        """Return what the round came to.

        Raises:
            SiteError: every site failed.
        """

    def evaluated(self, panel: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return which sites of the panel evaluate which model, by the models' names."""
        members, groups = self.state.get(MEMBERS, {}), dict[str, list[str]]()
        for site in panel:
            groups.setdefault(members.get(site, MAIN), []).append(site)
        return groups or {MAIN: panel}


def models_of(history: History, round: int) -> tuple[dict[str, Arrays], dict[str, str]]:
    """Return a committed round's further models by name, and which of them each site has."""
    state: Any = history.strategy_state(round)
    own = state.get(SERVER, {}) if isinstance(state, dict) else {}
    models, members = history.models(round), own.get(MEMBERS, {})
    return models, {site: name for site, name in members.items() if name in models}

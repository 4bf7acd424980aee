"""The server loop: rounds over Flower's public Strategy interface, with a history.

How a round comes about is the ``Server``'s part. The loop does what a run that must not be
lost needs, whichever server it is: evaluation, one atomic commit per round, resume, and a
monitor that can roll back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy

from fedpdm.aggregation.update import Base
from fedpdm.client.state import end_round, undo_round
from fedpdm.data.normalise import Scaler
from fedpdm.engines.hardware import settled
from fedpdm.engines.local_grid import LocalGrid
from fedpdm.errors import SiteError
from fedpdm.history import History, RoundRecord
from fedpdm.history.record import version_name
from fedpdm.server.base import MAIN, SERVER, Result, Round, Server, Services
from fedpdm.server.clock import Clock
from fedpdm.server.dispatch import Dispatcher, LocalRoster, Roster
from fedpdm.server.finite import refuse_non_finite
from fedpdm.server.monitor import MonitorSettings, give_up, refuse_to_learn_nothing
from fedpdm.server.round_metrics import (
    KEPT,
    best_round,
    describe,
    evaluate,
    judged,
    last_counted,
    outliers,
)
from fedpdm.server.selection import seeded_sample, take_over_sampling
from fedpdm.server.stages import Stages
from fedpdm.server.strategy_calls import StrategyCalls
from fedpdm.server.synchronous import Synchronous
from fedpdm.server.valuation import Kept, Valuation, Valuer
from fedpdm.strategies.checkpoint import capture, restore
from fedpdm.tasks import Task
from fedpdm.transforms.base import Chain
from fedpdm.wire.flower import pack_state, unpack_state
from fedpdm.wire.records import Arrays, config_record

Event = dict[str, Any]

TRANSFORMS, CLOCK = ":transforms", ":clock"
"""Where their states lie beside the strategy's; no attribute has such a name."""


class Display(Protocol):
    """Where the loop tells a person how it goes."""

    def round(
        self, round_num: int, loss: float | None, metric: float | None, events: Iterable[Event]
    ) -> None: ...


@dataclass
class RoundLoop:
    """The state of a run on the server.

    Attributes:
        strategy: any Flower Message-API strategy.
        history: where finished rounds go.
        initial: weights of round 0, trainable parameters and buffers.
        trainable: names in ``initial`` that the strategy sees.
        task: names the metric that rounds are judged by.
        rounds: how many rounds the run has.
        seed: the run's seed.
        monitor: when a round is bad, and what to do then.
        evaluate_fraction: share of the sites that evaluate; the same sites every round.
        federated_scaling: whether sites share one scaler, made of their sums.
        round_timeout: seconds to wait for replies, or None.
        display: shows finished rounds.
        on_scaler: called with the federated scaler once it is known.
        scaler: the federated scaler, if it is known already: then sites are not asked for it.
        make_roster: says which sites there are behind a Grid.
        transforms: what updates go through on their way; the sites have the same.
        server: how rounds come about.
        clock: what time it is.
        valuation: says what each site brings to a round; None: not measured.
        stages: how long which stage of the rounds took.
        version: the name of the version that is being made.
        counted: by site, the name of what it remembered when an update of it last counted: the
            version that it worked for.
        names: by site, the same of the last message to it.
    """

    strategy: Strategy
    history: History
    initial: Arrays
    trainable: tuple[str, ...]
    task: Task
    rounds: int
    seed: int
    monitor: MonitorSettings
    display: Display
    evaluate_fraction: float = 1.0
    federated_scaling: bool = True
    round_timeout: float | None = None
    on_scaler: Callable[[Scaler], None] | None = None
    scaler: Scaler | None = None
    make_roster: Callable[[Grid], Roster] = LocalRoster
    transforms: Chain = field(default_factory=Chain)
    server: Server = field(default_factory=Synchronous)
    clock: Clock = field(default_factory=Clock)
    valuation: Valuation | None = None
    stages: Stages = field(init=False, default_factory=Stages)
    version: str = field(init=False, default="")
    counted: dict[str, str] = field(init=False, default_factory=dict)
    names: dict[str, str] = field(init=False, default_factory=dict)
    _answered: dict[str, str] = field(init=False, default_factory=dict)
    _dispatcher: Dispatcher = field(init=False)
    _calls: StrategyCalls = field(init=False)
    _panel: Sequence[str] = field(init=False, default=())
    _finished: list[RoundRecord] = field(init=False, default_factory=list)
    _model: Base = field(init=False)
    _models: Mapping[str, Arrays] = field(init=False, default_factory=dict)

    def run(self, grid: Grid, context: Context) -> None:
        """Run from the last committed round to the end.

        Raises:
            ConfigError: the strategy cannot work with these sites, or its options make a model
                that is not finite.
            SiteError: every site failed in a round.
            TrainingStopped: the monitor rolled back too often in a row.
        """
        self.stages.begin()
        self.server.check(self.strategy, self.transforms, self.clock, None)
        roster = self.make_roster(grid)
        self._dispatcher = Dispatcher(
            grid, roster, self.round_timeout, clock=self.clock,
            shorten=None if self.transforms.down is None else self._shortened,
        )  # fmt: skip
        self._calls = StrategyCalls(self.strategy, self.seed)
        fraction = take_over_sampling(self.strategy, len(roster.sites))
        self.server.services = Services(
            self._calls, self._dispatcher, self.history, self.transforms, fraction, self.seed,
            self.clock, lambda version: self._split(version, self.history.weights(version)),
            self.task,
        )  # fmt: skip
        if self.evaluate_fraction:
            self._panel = seeded_sample(roster.sites, self.evaluate_fraction, self.seed, "evaluate")
        if self.federated_scaling:
            scaler = self.scaler or self._scaler_of_all()
            self._dispatcher.share(scaler)
            if self.on_scaler is not None:
                self.on_scaler(scaler)
        if self.history.head() is None:
            self._commit_initial()
        self._return_to_head()
        self.stages.end("start")
        with settled():
            while self._head.round < self.rounds:
                self._round(self._head.round + 1)
                refuse_to_learn_nothing(self._finished, self.rounds, self.history)

    def _scaler_of_all(self) -> Scaler:
        """Return the scaler made of the sites' sums; who did not send any is an event."""

        def note(kind: str, message: str, site: str | None = None) -> None:
            self.history.note({"kind": kind, "round": 0, "site": site, "message": message})

        return self._dispatcher.moments(self.seed, note).scaler()

    # One round ------------------------------------------------------------------------

    def _round(self, number: int) -> None:
        started = self.clock.date().isoformat(timespec="milliseconds")
        begun, self.version = self.clock.seconds(), version_name(number, started)
        events: list[Event] = []
        round = self._begin(number, events)
        states = self._states()
        before = dict(states)
        kept = Kept()
        if self.valuation is not None:
            round.accept = kept.accept
        result = self._train(round, events, kept)
        end_round(states)
        models = {**result.arrays, **result.buffers, **result.models}
        refuse_non_finite(number, self.strategy, self._state(), models)
        # The server's half knows nothing of those that do not count, and the two must agree.
        accepted = {update.site for update in result.updates}
        worked = {site: self._answered.get(site, self.version) for site in accepted}
        self.counted |= worked
        self._answered = {}
        undo_round(states, before, {*states} - accepted)
        self.stages.end("aggregate")
        validation, down, up = self._evaluate(round, result)
        metrics, sites = describe(
            result.updates, validation, result.arrays, self.task, self._calls.reported
        )
        metrics |= self.clock.metrics()
        if not isinstance(self._dispatcher.grid, LocalGrid):
            for site in accepted:
                sites[site] |= {KEPT: worked[site]} if worked[site] != self.version else {}
        fault = self.monitor.judge(
            judged(number, metrics, self.task),
            [judged(record.round, record.metrics, self.task) for record in self._finished],
            self.task.higher_is_better,
        )
        if fault is not None:
            round.note("warning", f"round {number} looks bad: {fault}")
        if self.valuation is not None and (fault is None or not self.monitor.rollback):
            valuer = Valuer(self.valuation, self.task, self.seed, self._dispatcher, self._panel)
            found = valuer.value(round, kept, validation, self._head.sites)
            metrics, down, up = metrics | found.metrics, down + found.down, up + found.up
            sites = {site: {**said, **found.sites.get(site, {})} for site, said in sites.items()}
        self.stages.end("evaluate")
        record = RoundRecord(
            round=number,
            attempt=round.attempt,
            sampled=tuple(round.sampled),
            metrics=metrics,
            sites=sites,
            bytes_up=result.bytes_up + up,
            bytes_down=round.bytes_down + down,
            seconds=self.clock.seconds() - begun,
            events=tuple(events),
            started=started,
        )
        if fault is not None and self.monitor.rollback:
            self._roll_back(record, result, fault)
            return
        self._model = Base(number, result.arrays, result.buffers)
        self._models = dict(result.models)
        self._commit(record)
        self.stages.end("commit")
        self.display.round(number, metrics["validation_loss"], metrics[self.task.primary], events)

    def _begin(self, number: int, events: list[Event]) -> Round:
        """Return a round that is about to start; what it notes goes into ``events``."""
        attempt = self.history.attempt
        self._calls.begin(attempt)

        def note(kind: str, message: str, site: str | None = None) -> None:
            events.append({"kind": kind, "round": number, "attempt": attempt, "site": site,
                           "message": message})  # fmt: skip

        config = config_record(server_round=number, attempt=attempt)
        return Round(number, attempt, self._model, self._models, config, note,
                     version=self.version, names=self.names)  # fmt: skip

    def _train(self, round: Round, events: list[Event], kept: Kept) -> Result:
        """Let the server take its steps until a new version is there."""
        server = self.server
        round.sampled = server.select(round)
        server.submit(round, round.sampled)
        self.stages.end("send")
        while (heard := server.next_reply(round)) is not None:
            self.stages.end("train")
            if server.trains and not heard[1].has_error():
                self._answered[heard[0]] = self.names.get(heard[0], self.version)
            server.apply(round, *heard)
            self.stages.end("aggregate")
        self.stages.end("train")
        if self.valuation is not None:
            kept.freeze(self.strategy)
        try:
            result = server.result(round)
        except SiteError as error:
            reasons = "; ".join(event["message"] for event in events)
            raise SiteError(f"{error} ({reasons})") from None
        sent, attempt = round.model.arrays, round.attempt
        published = self.transforms.publish(round.number, sent, result.arrays, attempt)
        return replace(result, arrays=published)

    def _shortened(self, site: str, content: RecordDict) -> RecordDict:
        """Return a message to a site: what changed, if the site holds the model before it."""
        assert self.transforms.down is not None
        counted = self.counted.get(site)
        number = None if counted is None else int(counted.partition("-")[0])
        last = self._head.round if "validation" in self._head.sites.get(site, {}) else None
        return self.transforms.down.shortened(content, number, last)

    def _evaluate(
        self, round: Round, result: Result
    ) -> tuple[dict[str, dict[str, float]], int, int]:
        """Return what the sites of the panel measured, and the bytes down and up."""
        measured: dict[str, dict[str, float]] = {}
        down = up = 0
        for name, sites in self.server.evaluated(self._panel).items():
            if not sites:
                continue
            model = Base(round.number, result.arrays, result.buffers)
            if name != MAIN:
                model = self._split(round.number, result.models[name])
            found, sent, heard = evaluate(
                self._dispatcher, self._calls, model, sites, round.config, round.note
            )
            measured, down, up = measured | found, down + sent, up + heard
        return measured, down, up

    def kept_by(self, site: str) -> tuple[str, str]:
        """Return the names of what a site has to start from, and of what it will remember then."""
        base = self._answered.get(site, self.counted.get(site, ""))
        return base, self.names.get(site, self.version)

    def counted_by_best(self) -> dict[str, str]:
        """Return ``counted`` as of the best round so far: the one that is tested at the end."""
        best = best_round(self._finished, self.task) or self._head.round
        return last_counted(record for record in self._finished if record.round <= best)

    @property
    def _head(self) -> RoundRecord:
        """The last committed round."""
        return self._finished[-1]

    # History --------------------------------------------------------------------------

    def _commit_initial(self) -> None:
        self._model, self._models = self._split(0, self.initial), {}
        started = self.clock.date().isoformat(timespec="milliseconds")
        metrics, _ = describe([], {}, self._model.arrays, self.task)
        down, up = self._dispatcher.asked_for_sums
        self._commit(
            RoundRecord(0, self.history.attempt, (), metrics, {}, up, down, 0.0, (), started)
        )

    def _commit(self, record: RoundRecord) -> None:
        self.history.commit(
            record,
            {**self._model.arrays, **self._model.buffers},
            self._state(),
            {site: pack_state(state) for site, state in self._states().items()},
            self._models,
        )
        self._finished.append(record)
        # Its weights are kept, whatever ``history.keep`` says.
        if (best := best_round(self._finished, self.task)) is not None:
            self.history.protect(best)

    def _state(self) -> dict[str, Any]:
        """Return what the strategy, the transforms and the server remember."""
        beside = {
            TRANSFORMS: self.transforms.state, SERVER: self.server.state, CLOCK: self.clock.state
        }  # fmt: skip
        return capture(self.strategy) | {name: state for name, state in beside.items() if state}

    def _split(self, version: int, weights: Arrays) -> Base:
        """Return a model's tensors as what strategies see of them, and buffers."""
        arrays = {name: weights[name] for name in self.trainable}
        return Base(version, arrays, {n: a for n, a in weights.items() if n not in arrays})

    def _states(self) -> dict[str, RecordDict]:
        """Return the sites' states themselves, where an engine on this machine keeps them."""
        return grid.states if isinstance(grid := self._dispatcher.grid, LocalGrid) else {}

    def _return_to_head(self) -> None:
        """Take everything from the last committed round: after a start, a crash, a rollback."""
        self._finished = self.history.rounds()
        self.counted = last_counted(self._finished)
        self.names, self._answered = {}, {}
        self._model = self._split(self._head.round, self.history.weights())
        self._models = self.history.models()
        state = self.history.strategy_state() or {}
        self.transforms.restore(state.pop(TRANSFORMS, {}))
        self._dispatcher.forget()
        self.clock.restore(state.pop(CLOCK, {}))
        self.server.restore(state.pop(SERVER, {}))
        restore(self.strategy, state)
        if isinstance(grid := self._dispatcher.grid, LocalGrid):
            states = self.history.client_states()
            grid.load_states({s: unpack_state(data) for s, data in states.items()})

    def _roll_back(self, record: RoundRecord, result: Result, fault: str) -> None:
        left_out = outliers(result.updates, self._finished)
        if len(left_out) == len(record.sampled):
            left_out = []  # leaving everybody out would leave nothing to learn from
        self.history.rollback(
            self._head.round,
            by="monitor",
            reason=fault,
            exclude=left_out,
            undone=(record, {**result.arrays, **result.buffers}, self._state(), result.models),
        )
        event = self.history.events()[-1]
        self.display.round(record.round, None, None, [*record.events, event])
        if self.history.consecutive_rollbacks() >= self.monitor.max_rollbacks:
            give_up(self.history, self.monitor, record.round, fault)
        self._return_to_head()


def make_server_app(loop: RoundLoop) -> ServerApp:
    """Return the Flower app of the server around a round loop."""
    app = ServerApp()
    app.main()(loop.run)
    return app

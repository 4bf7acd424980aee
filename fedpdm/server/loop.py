"""What the server does: rounds over Flower's public Strategy interface, with a history.

The loop is Flower's own (configure, send, aggregate, evaluate), plus what a run that must
not be lost needs: a seeded sample of sites, refusal of broken updates by name, one atomic
commit per round, resume, and a monitor that can roll back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, runtime_checkable

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.exception import AggregationError
from flwr.serverapp.strategy import Strategy

from fedpdm.aggregation.intake import Intake, Note
from fedpdm.aggregation.sums import Update, adds_up
from fedpdm.client.state import undo_round
from fedpdm.data.normalise import Scaler
from fedpdm.engines.hardware import settled
from fedpdm.errors import ConfigError, SiteError, TrainingStopped
from fedpdm.history import History, RoundRecord
from fedpdm.server.dispatch import Dispatcher
from fedpdm.server.monitor import MonitorSettings, RoundMonitor
from fedpdm.server.roster import LocalRoster, Roster
from fedpdm.server.round_metrics import as_accepted, best_round, describe, judged_loss, outliers
from fedpdm.server.selection import seeded_sample, take_over_sampling
from fedpdm.server.strategy_calls import StrategyCalls
from fedpdm.strategies.base import ServerHalf
from fedpdm.strategies.checkpoint import capture, restore
from fedpdm.strategies.layers import layers
from fedpdm.tasks import Task
from fedpdm.wire.flower import pack_state, unpack_state, wire_bytes
from fedpdm.wire.records import EXAMPLES, Arrays, config_record, from_record, metrics_in, to_record

Event = dict[str, Any]


IDLE_ROUNDS = 3
"""After so many rounds in a row without a usable update the run stops."""


class Display(Protocol):
    """Where the loop tells a person how it goes."""

    def round(
        self, round_num: int, loss: float | None, metric: float | None, events: Iterable[Event]
    ) -> None: ...


@runtime_checkable
class KeepsStates(Protocol):
    """A Grid that holds the sites' ``Context.state`` itself, as engines in one box do."""

    states: dict[str, RecordDict]

    def load_states(self, states: Mapping[str, RecordDict]) -> None: ...


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
    _exchange: Dispatcher = field(init=False)
    _calls: StrategyCalls = field(init=False)
    _fraction: float = field(init=False)
    _panel: list[str] = field(init=False)
    _watch: RoundMonitor = field(init=False)
    _head: RoundRecord = field(init=False)
    _finished: list[RoundRecord] = field(init=False, default_factory=list)
    _arrays: Arrays = field(init=False)
    _buffers: Arrays = field(init=False)

    def run(self, grid: Grid, context: Context) -> None:
        """Run from the last committed round to the end.

        Raises:
            ConfigError: the strategy cannot work with these sites.
            SiteError: every site failed in a round.
            TrainingStopped: the monitor rolled back too often in a row.
        """
        roster = self.make_roster(grid)
        self._exchange = Dispatcher(grid, roster, self.round_timeout)
        self._calls = StrategyCalls(self.strategy, self.seed)
        self._fraction = take_over_sampling(self.strategy, len(roster.sites))
        self._panel = self._choose("evaluate", self.evaluate_fraction)
        if self.federated_scaling:
            self._exchange.scaler = self.scaler or self._scaler_of_all()
            if self.on_scaler is not None:
                self.on_scaler(self._exchange.scaler)
        self._watch = RoundMonitor(self.monitor)
        if self.history.head() is None:
            self._commit_initial()
        self._return_to_head()
        self._start_anew_with_supernodes()
        with settled():
            while self._head.round < self.rounds:
                self._round(self._head.round + 1)
                self._refuse_to_learn_nothing()

    def _start_anew_with_supernodes(self) -> None:
        """Tell a strategy that is resumed with sites whose supernodes remember nothing of it.

        Flower keeps a site's state for one submitted run; a resumed one is another.
        """
        if isinstance(self._exchange.grid, KeepsStates) or not self._head.round:
            return
        for strategy in layers(self.strategy):
            if not isinstance(strategy, ServerHalf) or not strategy.client.groups:
                continue
            strategy.forget_sites()
            message = (
                f"{type(strategy).__name__} goes on from these weights without its corrections: "
                "the sites' supernodes forgot theirs when the last run ended"
            )
            self.history.note({"kind": "warning", "round": self._head.round, "message": message})

    def _scaler_of_all(self) -> Scaler:
        """Return the scaler made of the sites' sums; who did not send any is an event."""

        def note(kind: str, message: str, site: str | None = None) -> None:
            self.history.note({"kind": kind, "round": 0, "site": site, "message": message})

        return self._exchange.moments(self.seed, note).scaler()

    def _refuse_to_learn_nothing(self) -> None:
        """Stop a run that goes through its rounds without one usable update.

        One such round is an event; several in a row are no training.
        """
        last = [record for record in self._finished if record.round > 0][-IDLE_ROUNDS:]
        idle = all("examples" not in site for record in last for site in record.sites.values())
        if not idle or len(last) < min(IDLE_ROUNDS, max(self.rounds, 2)):
            return
        reasons = "; ".join(event["message"] for event in last[-1].events[:2])
        message = f"no usable update in {len(last)} rounds in a row ({reasons})"
        self.history.note({"kind": "stopped", "round": last[-1].round, "message": message})
        raise TrainingStopped(f"{message}; lower training.learning_rate, or look at the sites")

    # One round ------------------------------------------------------------------------

    def _round(self, number: int) -> None:
        started, clock = datetime.now(UTC), time.perf_counter()
        attempt = self.history.attempt
        sampled = self._sample(number, attempt)
        events: list[Event] = []

        def note(kind: str, message: str, site: str | None = None) -> None:
            events.append({"kind": kind, "round": number, "attempt": attempt, "site": site,
                           "message": message})  # fmt: skip

        config = config_record(server_round=number, attempt=attempt)
        parameters = to_record(self._arrays)
        asked = self._exchange.ask(
            sampled, note,
            lambda grid: self._calls.configure_train(number, parameters, config, grid),
            self._buffers,
        )  # fmt: skip
        intake = Intake(self._arrays, self._buffers, note, adds_up(self.strategy))
        states = self._states()
        before = dict(states)
        self._exchange.hear(asked, note, intake.take)
        if intake.answers == 0:
            reasons = "; ".join(event["message"] for event in events)
            raise SiteError(f"round {number}: every site failed ({reasons})")
        # The server's half knows nothing of them, and the two must agree. Supernodes keep their
        # states to themselves; there such a site is ahead by one round.
        undo_round(states, before, {*sampled} - {update.site for update in intake.updates})
        arrays = self._aggregate(number, intake, len(sampled), note)
        buffers = intake.buffers() or self._buffers

        validation, evaluated, heard = self._evaluate(number, arrays, buffers, config, note)
        metrics, sites = describe(
            intake.updates, validation, arrays, self.task, self._calls.reported
        )
        fault = self._watch.judge(
            number,
            judged_loss(metrics),
            metrics[self.task.primary],
            self.task.higher_is_better,
            metrics["parameter_norm"],
        )
        if fault is not None:
            note("warning", f"round {number} looks bad: {fault}")
        record = RoundRecord(
            round=number,
            attempt=attempt,
            sampled=tuple(sampled),
            metrics=metrics,
            sites=sites,
            bytes_up=intake.bytes_up + heard,
            bytes_down=asked.bytes_down + evaluated,
            seconds=time.perf_counter() - clock,
            events=tuple(events),
            started=started.isoformat(timespec="milliseconds"),
        )
        if fault is not None and self.monitor.rollback:
            self._roll_back(record, {**arrays, **buffers}, fault, intake.updates)
            return
        self._arrays, self._buffers = arrays, buffers
        self._commit(record)
        self._watch.accept(as_accepted(record, self.task))
        self.display.round(number, metrics["validation_loss"], metrics[self.task.primary], events)

    def _aggregate(self, number: int, intake: Intake, asked: int, note: Note) -> Arrays:
        """Return the new parameters, of the dtypes of the old ones."""
        new, sums, adding = None, intake.sums(), adds_up(self.strategy)
        if adding is not None and sums is not None:
            new = adding.combine(number, self._arrays, sums)
        elif intake.messages():
            new = self._combine(number, intake.messages(), asked, note)
        if new is None:
            note("warning", f"no new model in round {number}: the last one stays")
            return self._arrays
        return {name: new[name].astype(old.dtype) for name, old in self._arrays.items()}

    def _combine(
        self, number: int, replies: list[Message], asked: int, note: Note
    ) -> Arrays | None:
        """Let the strategy combine replies; it may not be able to if some were refused."""
        try:
            record = self._calls.aggregate_train(number, replies)
        except (AggregationError, ValueError, ArithmeticError) as error:
            name = type(self.strategy).__name__
            if len(replies) == asked:
                raise ConfigError(
                    f"strategy {name} cannot aggregate {len(replies)} updates: {error}"
                ) from error
            note("warning", f"{name} could not aggregate the updates that were left: {error}")
            return None
        return None if record is None else from_record(record)

    def _evaluate(
        self, number: int, arrays: Arrays, buffers: Arrays, config: ConfigRecord, note: Note
    ) -> tuple[dict[str, dict[str, float]], int, int]:
        """Return what the sites of the panel measured, and the bytes down and up."""
        if not self._panel:
            return {}, 0, 0
        parameters = to_record(arrays)
        asked = self._exchange.ask(
            self._panel, note,
            lambda grid: self._calls.configure_evaluate(number, parameters, config, grid),
            buffers,
        )  # fmt: skip
        result: dict[str, dict[str, float]] = {}
        counted: list[Message] = []
        heard = 0

        def listen(site: str, answer: Message) -> None:
            nonlocal heard
            if answer.has_error():
                note("site-failed", f"{site} could not evaluate: {answer.error.reason}", site)
                return
            heard += wire_bytes([answer.content])
            try:
                measured = metrics_in(answer.content)
                weight = measured[EXAMPLES]
            except Exception as error:  # whatever a site sends, the others' round goes on
                reason = f"{type(error).__name__}: {error}"
                note("refused", f"{site}: its evaluation cannot be read ({reason})", site)
                return
            result[site] = measured
            # Strategies may keep state of their own; our means skip what a site cannot know.
            if weight > 0:
                counted.append(answer)

        self._exchange.hear(asked, note, listen)
        if counted:
            self._calls.aggregate_evaluate(number, counted)
        return result, asked.bytes_down, heard

    # History --------------------------------------------------------------------------

    def _commit_initial(self) -> None:
        self._arrays = {name: self.initial[name] for name in self.trainable}
        self._buffers = {n: a for n, a in self.initial.items() if n not in self._arrays}
        started = datetime.now(UTC).isoformat(timespec="milliseconds")
        metrics, _ = describe([], {}, self._arrays, self.task)
        down, up = self._exchange.asked_for_sums
        self._commit(
            RoundRecord(0, self.history.attempt, (), metrics, {}, up, down, 0.0, (), started)
        )

    def _commit(self, record: RoundRecord) -> None:
        self.history.commit(
            record,
            {**self._arrays, **self._buffers},
            capture(self.strategy),
            {site: pack_state(state) for site, state in self._states().items()},
        )
        self._head = record
        self._finished.append(record)
        self._protect_best()

    def _states(self) -> dict[str, RecordDict]:
        """Return the sites' states themselves, where an engine in one box keeps them."""
        return grid.states if isinstance(grid := self._exchange.grid, KeepsStates) else {}

    def _protect_best(self) -> None:
        """Keep the best round's weights, whatever ``history.keep`` says."""
        best = best_round(self._finished, self.task)
        if best is not None:
            self.history.protect(best)

    def _return_to_head(self) -> None:
        """Take everything from the last committed round: after a start, a crash, a rollback."""
        head = self.history.head()
        assert head is not None
        self._head = head
        weights = self.history.weights()
        self._arrays = {name: weights[name] for name in self.trainable}
        self._buffers = {n: a for n, a in weights.items() if n not in self._arrays}
        restore(self.strategy, self.history.strategy_state() or {})
        if isinstance(grid := self._exchange.grid, KeepsStates):
            states = self.history.client_states()
            grid.load_states({s: unpack_state(data) for s, data in states.items()})
        self._finished = self.history.rounds()
        self._watch.rebuild(as_accepted(record, self.task) for record in self._finished)

    def _roll_back(
        self, record: RoundRecord, weights: Arrays, fault: str, updates: list[Update]
    ) -> None:
        left_out = outliers(updates, self._finished)
        if len(left_out) == len(record.sampled):
            left_out = []  # leaving everybody out would leave nothing to learn from
        state = capture(self.strategy)
        self.history.rollback(
            self._head.round,
            by="monitor",
            reason=fault,
            exclude=left_out,
            undone=(record, weights, state),
        )
        event = self.history.events()[-1]
        self.display.round(record.round, None, None, [*record.events, event])
        if self.history.consecutive_rollbacks() >= self.monitor.max_rollbacks:
            reason = (
                f"stopped after {self.monitor.max_rollbacks} rollbacks in a row at round "
                f"{record.round}: {fault}"
            )
            self.history.note({"kind": "stopped", "round": record.round, "message": reason})
            raise TrainingStopped(
                f"{reason}; round {self._head.round} is the last good one. Look at the sites with "
                "python -m fedpdm.history show RUN, lower training.learning_rate, or choose a "
                "robust strategy (strategy=fedmedian)"
            )
        self._return_to_head()

    # Sites ---------------------------------------------------------------------------

    def _choose(self, purpose: str, share: float, *key: int) -> list[str]:
        """Return a seeded share of the sites in their order, at least one; of 0, none."""
        if share == 0:
            return []
        return seeded_sample(list(self._exchange.roster.sites), share, self.seed, purpose, *key)

    def _sample(self, number: int, attempt: int) -> list[str]:
        left_out = self.history.excluded(number)
        sites = [site for site in self._exchange.roster.sites if site not in left_out]
        return seeded_sample(sites, self._fraction, self.seed, "sample", number, attempt)


def make_server_app(loop: RoundLoop) -> ServerApp:
    """Return the Flower app of the server around a round loop."""
    app = ServerApp()
    app.main()(loop.run)
    return app

"""What headquarters does: rounds over Flower's public Strategy interface, with a history.

The loop is Flower's own (configure, send, aggregate, evaluate), plus what a run that must
not be lost needs: a seeded sample of plants, refusal of broken updates by name, one atomic
commit per round, resume, and a monitor that can roll back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, runtime_checkable

import numpy as np
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.exception import AggregationError
from flwr.serverapp.strategy import Strategy

from fedpdm.aggregation import Update, average_buffers, flaw_in
from fedpdm.data.normalise import Moments, Scaler
from fedpdm.engines.flower import pack_state, unpack_state, wire_bytes
from fedpdm.engines.sampled import SampledGrid
from fedpdm.errors import ConfigError, SiteError, TrainingStopped
from fedpdm.history import History, RoundRecord
from fedpdm.messages import (
    ARRAYS,
    BUFFERS,
    EXAMPLES,
    METRICS,
    MOMENTS_QUERY,
    SCALER,
    Arrays,
    arrays_in,
    config_record,
    from_record,
    metrics_in,
    moments_in,
    scaler_record,
    to_record,
)
from fedpdm.models.monitor import MonitorSettings, RoundMonitor
from fedpdm.outcomes import as_accepted, best_round, describe, judged_loss, outliers
from fedpdm.sampling import scaler_plants, seeded_sample, take_over_sampling
from fedpdm.strategies.state import capture, restore
from fedpdm.tasks import Task

Event = dict[str, Any]


IDLE_ROUNDS = 3
"""After so many rounds in a row without a usable update the run stops."""


def reply_bytes(replies: Iterable[Message]) -> int:
    """Return the serialised size of the replies that carry content."""
    return wire_bytes(reply.content for reply in replies if reply.has_content())


class Display(Protocol):
    """Where the loop tells a person how it goes."""

    def round(
        self, round_num: int, loss: float | None, metric: float | None, events: Iterable[Event]
    ) -> None: ...


@runtime_checkable
class KeepsStates(Protocol):
    """A Grid that holds the plants' ``Context.state`` itself, as engines in one box do."""

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
        evaluate_fraction: share of the plants that evaluate; the same plants every round.
        federated_scaling: whether plants share one scaler, made of their sums.
        round_timeout: seconds to wait for replies, or None.
        display: shows finished rounds.
        on_scaler: called with the federated scaler once it is known.
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
    _sites: dict[int, str] = field(init=False)
    _scaler: Scaler | None = field(init=False, default=None)
    _grid: Grid = field(init=False)
    _fraction: float = field(init=False)
    _panel: list[int] = field(init=False)
    _watch: RoundMonitor = field(init=False)
    _head: RoundRecord = field(init=False)
    _asked: tuple[int, int] = field(init=False, default=(0, 0))
    _arrays: Arrays = field(init=False)
    _buffers: Arrays = field(init=False)

    def run(self, grid: Grid, context: Context) -> None:
        """Run from the last committed round to the end.

        Raises:
            ConfigError: the strategy cannot work with these plants.
            SiteError: every plant failed in a round.
            TrainingStopped: the monitor rolled back too often in a row.
        """
        self._grid = grid
        self._sites = dict(getattr(grid, "sites", {})) or {n: str(n) for n in grid.get_node_ids()}
        self._fraction = take_over_sampling(self.strategy, len(self._sites))
        self._panel = self._choose("evaluate", self.evaluate_fraction)
        if self.federated_scaling:
            self._scaler = self._ask_for_moments().scaler()
            if self.on_scaler is not None:
                self.on_scaler(self._scaler)
        self._watch = RoundMonitor(self.monitor)
        if self.history.head() is None:
            self._commit_initial()
        self._return_to_head()
        while self._head.round < self.rounds:
            self._round(self._head.round + 1)
            self._refuse_to_learn_nothing()

    def _refuse_to_learn_nothing(self) -> None:
        """Stop a run that goes through its rounds without one usable update.

        One such round is an event; several in a row are no training.
        """
        last = [r for r in self.history.rounds() if r.round > 0][-IDLE_ROUNDS:]
        idle = all("examples" not in site for record in last for site in record.sites.values())
        if not idle or len(last) < min(IDLE_ROUNDS, max(self.rounds, 2)):
            return
        reasons = "; ".join(event["message"] for event in last[-1].events[:2])
        message = f"no usable update in {len(last)} rounds in a row ({reasons})"
        self.history.note({"kind": "stopped", "round": last[-1].round, "message": message})
        raise TrainingStopped(f"{message}; lower training.learning_rate, or look at the plants")

    # One round ------------------------------------------------------------------------

    def _round(self, number: int) -> None:
        started, clock = datetime.now(UTC), time.perf_counter()
        attempt = self.history.attempt
        nodes = self._sample(number, attempt)
        events: list[Event] = []

        def note(kind: str, message: str, site: str | None = None) -> None:
            events.append({"kind": kind, "round": number, "attempt": attempt, "site": site,
                           "message": message})  # fmt: skip

        config = config_record(server_round=number, attempt=attempt)
        messages = self._prepare(
            self.strategy.configure_train(
                number, to_record(self._arrays), config, SampledGrid(self._grid, nodes)
            )
        )
        replies = self._exchange(messages)
        up = reply_bytes(replies)  # before aggregation: strategies take arrays out of messages
        updates = self._screen(messages, replies, note)
        if not any(not reply.has_error() for reply in replies):
            reasons = "; ".join(event["message"] for event in events)
            raise SiteError(f"round {number}: every plant failed ({reasons})")
        arrays = self._aggregate(number, updates, len(updates) < len(messages), note)
        buffers = average_buffers(updates) or self._buffers

        asked = self._prepare(
            self.strategy.configure_evaluate(
                number, to_record(arrays), config, SampledGrid(self._grid, self._panel)
            ),
            buffers,
        )
        answers = self._exchange(asked)
        validation = self._validation(number, answers, note)

        metrics, sites = describe(updates, validation, arrays, self.task)
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
            sampled=tuple(self._sites[node] for node in nodes),
            metrics=metrics,
            sites=sites,
            bytes_up=up + reply_bytes(answers),
            bytes_down=wire_bytes(m.content for m in [*messages, *asked]),
            seconds=time.perf_counter() - clock,
            events=tuple(events),
            started=started.isoformat(timespec="milliseconds"),
        )
        if fault is not None and self.monitor.rollback:
            self._roll_back(record, {**arrays, **buffers}, fault, updates)
            return
        self._arrays, self._buffers = arrays, buffers
        self._commit(record)
        self._watch.accept(as_accepted(record, self.task))
        self.display.round(number, metrics["validation_loss"], metrics[self.task.primary], events)

    def _prepare(self, messages: Iterable[Message], buffers: Arrays | None = None) -> list[Message]:
        """Add what travels beside the strategy's parameters: buffers and the scaler."""
        extra: dict[str, ArrayRecord] = {}
        if buffers if buffers is not None else self._buffers:
            extra[BUFFERS] = to_record(buffers if buffers is not None else self._buffers)
        if self._scaler is not None:
            extra[SCALER] = scaler_record(self._scaler)
        prepared = list(messages)
        for message in prepared:
            for key, record in extra.items():
                message.content[key] = record
        return prepared

    def _exchange(self, messages: list[Message]) -> list[Message]:
        replies = self._grid.send_and_receive(messages, timeout=self.round_timeout)
        return sorted(replies, key=lambda reply: reply.metadata.src_node_id)

    def _screen(
        self, messages: list[Message], replies: list[Message], note: Callable[..., None]
    ) -> list[Update]:
        """Return the usable updates in site order; note the others by name."""
        answered = {reply.metadata.src_node_id for reply in replies}
        for message in messages:
            if message.metadata.dst_node_id not in answered:
                site = self._sites[message.metadata.dst_node_id]
                note("timeout", f"{site} did not answer (round_timeout={self.round_timeout})", site)
        accepted = []
        for reply in replies:
            site = self._sites[reply.metadata.src_node_id]
            if reply.has_error():
                note("site-failed", f"{site} failed: {reply.error.reason}", site)
                continue
            arrays = arrays_in(reply.content, ARRAYS)
            buffers = arrays_in(reply.content, BUFFERS)
            flaw = flaw_in(arrays, self._arrays) or flaw_in(buffers, self._buffers)
            if flaw is not None:
                note("refused", f"{site}: update refused, {flaw}", site)
                continue
            norm = np.sqrt(
                sum(float(np.sum((arrays[k] - v).astype(np.float64) ** 2))
                    for k, v in self._arrays.items())
            )  # fmt: skip
            metrics = metrics_in(reply.content)
            accepted.append(Update(site, reply, arrays, buffers, metrics, float(norm)))
        return accepted

    def _aggregate(
        self, number: int, updates: list[Update], incomplete: bool, note: Callable[..., None]
    ) -> Arrays:
        """Return the new parameters, of the dtypes of the old ones."""
        for update in updates:
            # Strategies get records of their own: FedMedian and others pop arrays out of them.
            content = update.message.content
            update.message.content = RecordDict(
                {
                    ARRAYS: ArrayRecord(dict(content.array_records[ARRAYS].items())),
                    METRICS: content.metric_records[METRICS],
                }
            )
        try:
            record, _ = self.strategy.aggregate_train(number, [u.message for u in updates])
        except (AggregationError, ValueError) as error:
            name = type(self.strategy).__name__
            if not incomplete:
                raise ConfigError(
                    f"strategy {name} cannot aggregate {len(updates)} updates: {error}"
                ) from error
            note("warning", f"{name} could not aggregate the updates that were left: {error}")
            record = None
        if record is None:
            note("warning", f"no new model in round {number}: the last one stays")
            return self._arrays
        new = from_record(record)
        return {name: new[name].astype(old.dtype) for name, old in self._arrays.items()}

    def _validation(
        self, number: int, answers: list[Message], note: Callable[..., None]
    ) -> dict[str, dict[str, float]]:
        result = {}
        for answer in answers:
            site = self._sites[answer.metadata.src_node_id]
            if answer.has_error():
                note("site-failed", f"{site} could not evaluate: {answer.error.reason}", site)
                continue
            result[site] = metrics_in(answer.content)
        # Strategies may keep state of their own here; our means skip what a plant cannot know.
        counted = [
            answer
            for answer in answers
            if not answer.has_error() and metrics_in(answer.content)[EXAMPLES] > 0
        ]
        if counted:
            self.strategy.aggregate_evaluate(number, counted)
        return result

    # History --------------------------------------------------------------------------

    def _commit_initial(self) -> None:
        self._arrays = {name: self.initial[name] for name in self.trainable}
        self._buffers = {n: a for n, a in self.initial.items() if n not in self._arrays}
        started = datetime.now(UTC).isoformat(timespec="milliseconds")
        metrics, _ = describe([], {}, self._arrays, self.task)
        down, up = self._asked
        self._commit(
            RoundRecord(0, self.history.attempt, (), metrics, {}, up, down, 0.0, (), started)
        )

    def _commit(self, record: RoundRecord) -> None:
        states = self._grid.states if isinstance(self._grid, KeepsStates) else {}
        self.history.commit(
            record,
            {**self._arrays, **self._buffers},
            capture(self.strategy),
            {site: pack_state(state) for site, state in states.items()},
        )
        self._head = record
        self._protect_best()

    def _protect_best(self) -> None:
        """Keep the best round's weights, whatever ``history.keep`` says."""
        best = best_round(self.history.rounds(), self.task)
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
        if isinstance(self._grid, KeepsStates):
            states = self.history.client_states()
            self._grid.load_states({s: unpack_state(data) for s, data in states.items()})
        self._watch.rebuild(as_accepted(r, self.task) for r in self.history.rounds())

    def _roll_back(
        self, record: RoundRecord, weights: Arrays, fault: str, updates: list[Update]
    ) -> None:
        left_out = outliers(updates, self.history.rounds())
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
                f"{reason}; round {self._head.round} is the last good one. Look at the plants with "
                "python -m fedpdm.history show RUN, lower training.learning_rate, or choose a "
                "robust strategy (strategy=fedmedian)"
            )
        self._return_to_head()

    # Plants ---------------------------------------------------------------------------

    def _choose(self, purpose: str, share: float, *key: int) -> list[int]:
        """Return a seeded share of the plants, at least one, in site order."""
        return seeded_sample(list(self._sites), share, self.seed, purpose, *key)

    def _sample(self, number: int, attempt: int) -> list[int]:
        left_out = self.history.excluded(number)
        nodes = [node for node, site in self._sites.items() if site not in left_out]
        return seeded_sample(nodes, self._fraction, self.seed, "sample", number, attempt)

    def _ask_for_moments(self) -> Moments:
        """One Flower query round: plants answer with sums, never with rows."""
        nodes = list(self._sites)
        chosen = [nodes[position] for position in scaler_plants(len(nodes), self.seed)]
        messages = [Message(RecordDict(), node, MOMENTS_QUERY) for node in chosen]
        replies = self._exchange(messages)
        self._asked = (wire_bytes(m.content for m in messages), reply_bytes(replies))
        total: Moments | None = None
        for reply in replies:
            if reply.has_error():
                raise SiteError(
                    f"{self._sites[reply.metadata.src_node_id]} could not sum up its training "
                    f"rows: {reply.error.reason}"
                )
            part = moments_in(reply.content)
            total = part if total is None else total + part
        if total is None:
            raise SiteError("no plant answered the query for its sums; is any connected?")
        return total


def make_server_app(loop: RoundLoop) -> ServerApp:
    """Return the Flower app of headquarters around a round loop."""
    app = ServerApp()
    app.main()(loop.run)
    return app

"""What each site's update brings to a round, on validation windows: Shapley and leave-one-out.

Retraining for every coalition of sites is dear. Song, Tong and Wei 2019 (Profit Allocation for
Federated Learning), Wang et al. 2020 (A Principled Approach to Data Valuation for Federated
Learning, section 3) and GTG-Shapley (Liu et al. 2022) value updates instead: in round t the
model of a coalition S is what the strategy makes of the updates of S alone, from the model
that all of them started from, and

    v_t(S) = score of that model on the validation windows of all sites,  v_t(none) = v(model t-1)

so nothing is trained. A site's value in the run is the sum over rounds up to the chosen one. A site
that is not in a round gets 0 for it. As v_t(none) = v_{t-1}(all), Shapley values add up to the
score of the chosen model minus that of the untrained one. Where less is better (an error, a loss)
the score's sign is turned, so that positive always helps.

The sites evaluate the models of coalitions; the bytes are counted. A coalition of one is that
site's own model, so others would see it: this is for simulations. Evaluation changes neither the
strategy nor any site, so the models of a run are the same bits with and without it.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp.exception import AggregationError
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvgM, FedYogi, Strategy

from fedpdm.aggregation.sums import Accumulation, adds_up
from fedpdm.aggregation.update import Base, Contribution, Update
from fedpdm.errors import ConfigError
from fedpdm.evaluation.shapley import Game, Values, leave_one_out, shapley
from fedpdm.seeding import numpy_generator
from fedpdm.server.base import Round, Server
from fedpdm.server.dispatch import Dispatcher
from fedpdm.server.round_metrics import CONTRIBUTION, deciding, evaluate, over_sites
from fedpdm.server.strategy_calls import StrategyCalls
from fedpdm.server.synchronous import Synchronous
from fedpdm.tasks import Task
from fedpdm.transforms.base import Chain
from fedpdm.wire.records import EXAMPLES, METRICS, from_record

Validation = Mapping[str, Mapping[str, Any]]
VALUE, ERROR = "contribution", "contribution_error"
"""Keys of a site in a round's record: its value, and the standard error of that."""


MEANS = (FedAdagrad, FedAdam, FedAvgM, FedYogi)
"""Flower's strategies that make a step from the mean, of however many updates."""


class Valuation(ABC):
    """How sites are valued: what ``contribution`` of a config names."""

    name: ClassVar[str]

    @abstractmethod
    def of(self, game: Game, generator: np.random.Generator) -> Values:
        """Return what each player of a round brings.

        Args:
            game: the sites whose updates count, and what coalitions of them are worth.
            generator: for this round and attempt.
        """


class Shapley(Valuation):
    """Shapley values: exact, or from random orders where the sites are many.

    Args:
        permutations: orders of the sites that are drawn in a round.
        tolerance: an order ends when it is so close to the score of all.
    """

    name = "shapley"

    def __init__(self, permutations: int = 20, tolerance: float = 0.001) -> None:
        if not 2 <= permutations <= 100_000:
            raise ConfigError(f"contribution.permutations={permutations} must be at least 2")
        if tolerance < 0:
            raise ConfigError(f"contribution.tolerance={tolerance} must not be negative")
        self.permutations, self.tolerance = permutations, tolerance

    def of(self, game: Game, generator: np.random.Generator) -> Values:
        return shapley(game, self.permutations, self.tolerance, generator)


class LeaveOneOut(Valuation):
    """What the score of a round loses without a site's update."""

    name = "leave_one_out"

    def of(self, game: Game, generator: np.random.Generator) -> Values:
        return leave_one_out(game)


def check_valuation(strategy: Strategy, server: Server, transforms: Chain, personal: bool) -> None:
    """Refuse a run whose updates cannot be valued one by one.

    Args:
        strategy: the run's.
        server: the run's.
        transforms: of updates.
        personal: whether sites keep a part of the model, or a model of their own.

    Raises:
        ConfigError: says why, and what to choose.
    """
    means = adds_up(strategy) is not None or isinstance(strategy, MEANS)
    reasons = (
        (type(server) is not Synchronous,
         "values updates of one model that all sites started from: use server=synchronous"),
        (personal,
         "values one shared model, and sites of this run keep a model or tensors of their own: "
         "leave personal models out"),
        (not means,
         f"makes models of some of a round's updates, and {type(strategy).__name__} is made to see "
         "all of them side by side: use a strategy that takes means (strategy=fedavg)"),
        (transforms.hides_values,
         "reads single updates, and this run's transforms hide them: leave those out"),
        (transforms.down is not None,
         "sends models that no site has, and this run compresses what is sent down by what sites "
         "have: set direction=up"),
    )  # fmt: skip
    for so, why in reasons:
        if so:
            raise ConfigError(f"contribution {why}, or contribution=none")


@dataclass
class Kept:
    """A round's accepted updates, and the strategy as it was before it combined them.

    Attributes:
        updates: with the metrics that came with each, in site order.
        strategy: a copy, made by ``freeze``.
    """

    updates: list[tuple[Update, Message]] = field(default_factory=list)
    strategy: Strategy | None = None

    def accept(self, update: Update, reply: Message) -> None:
        """Keep an update; its reply is copied, because strategies take arrays out of it."""
        message = copy.copy(reply)
        message.content = RecordDict({METRICS: reply.content[METRICS]})
        self.updates.append((update, message))

    def freeze(self, strategy: Strategy) -> None:
        """Remember the strategy as it is now."""
        self.strategy = copy.deepcopy(strategy)

    @property
    def sites(self) -> list[str]:
        return [update.site for update, _ in self.updates]

    def model(self, number: int, coalition: Sequence[int], sent: Base, seed: int) -> Base:
        """Return what the strategy makes of some updates; the model that was sent, of none.

        Args:
            number: of the round.
            coalition: places in ``updates``.
            sent: the model that all of them started from.
            seed: of the run.

        Raises:
            ConfigError: the strategy cannot combine so few.
        """
        strategy = copy.deepcopy(self.strategy)
        assert strategy is not None
        adding = adds_up(strategy)
        sums = Accumulation(sent, adding)
        for place in coalition:
            update, reply = self.updates[place]
            sums.add(update, copy.copy(reply))
        totals, new = sums.totals(), None
        chosen = [self.updates[place][0] for place in coalition]
        told = [Contribution(each.site, each.metrics, each.norm) for each in chosen]
        try:
            if adding is not None and (summed := sums.sums(totals, told)) is not None:
                new = adding.combine(number, sent.arrays, summed)
            elif sums.messages:
                calls = StrategyCalls(strategy, seed)
                record = calls.aggregate_train(number, sums.messages)
                new = None if record is None else from_record(record)
        except (AggregationError, ValueError, ArithmeticError) as error:
            raise ConfigError(
                f"contribution: strategy {type(strategy).__name__} cannot combine "
                f"{len(coalition)} of {len(self.updates)} updates ({error}); use contribution=none"
            ) from error
        if new is None:
            return Base(number, sent.arrays, sent.buffers)
        arrays = {name: new[name].astype(old.dtype) for name, old in sent.arrays.items()}
        return Base(number, arrays, sums.buffers(totals) or sent.buffers)


@dataclass
class Valued:
    """What came of valuing a round.

    Attributes:
        sites: by site, what goes into its record.
        metrics: of the round.
        up: bytes from the sites, for evaluating coalitions.
        down: bytes to the sites.
    """

    sites: dict[str, dict[str, float]] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    up: int = 0
    down: int = 0


@dataclass
class Valuer:
    """Values rounds.

    Args:
        valuation: how.
        task: names the score.
        seed: of the run.
        dispatcher: carries the models of coalitions to the sites that evaluate.
        panel: those sites.
    """

    valuation: Valuation
    task: Task
    seed: int
    dispatcher: Dispatcher
    panel: Sequence[str]

    def value(self, round: Round, kept: Kept, after: Validation, head: Mapping[str, Any]) -> Valued:
        """Return what each accepted update of a round brings.

        Args:
            round: whose updates they are.
            kept: the updates.
            after: what sites measured of the round's model.
            head: the sites of the last committed round's record, with what they measured of it.
        """
        found = Valued()
        if not kept.updates:
            return found
        before = {site: said["validation"] for site, said in head.items() if "validation" in said}
        metric = self._metric(after)
        score, sites = utility(after, metric, self.task), set(after)

        def worth(coalition: tuple[int, ...]) -> float:
            model = kept.model(round.number, coalition, round.model, self.seed)
            return utility(self._measured(round, model, kept, sites, found), metric, self.task)

        game = Game(len(kept.updates), worth)
        game.known[game.all] = score
        if set(before) == sites:
            game.known[()] = utility(before, metric, self.task)
        key = ("contribution", round.number, round.attempt)
        try:
            values = self.valuation.of(game, numpy_generator(self.seed, *key))
            start = game(())
        except _Unmeasured as error:
            round.note("warning", f"round {round.number} could not be valued: {error}")
            return Valued(up=found.up, down=found.down)
        if not np.isfinite([start, score, *values.values]).all():
            round.note(
                "warning", f"round {round.number} could not be valued: {metric} is no number"
            )
            return Valued(up=found.up, down=found.down)
        for site, value, spread in zip(kept.sites, values.values, values.errors, strict=True):
            found.sites[site] = {VALUE: float(value), ERROR: float(spread)}
        found.metrics = {
            f"{CONTRIBUTION}start": _sign(metric, self.task) * start,
            f"{CONTRIBUTION}end": _sign(metric, self.task) * score,
            f"{CONTRIBUTION}models": len(game.known) - 1 - (set(before) == sites),
            f"{CONTRIBUTION}bytes_up": found.up,
            f"{CONTRIBUTION}bytes_down": found.down,
        }
        return found

    def _metric(self, validation: Validation) -> str:
        """Return the name of the score: the task's, where labels decide and it can be computed."""
        primary = self.task.primary
        mean = {primary: _over_sites(validation, primary)}
        return primary if deciding(mean, self.task) is not None else "loss"

    def _measured(
        self, round: Round, model: Base, kept: Kept, sites: set[str], found: Valued
    ) -> Validation:
        """Let the sites evaluate a model; the strategy's copy writes the messages."""
        calls = StrategyCalls(copy.deepcopy(kept.strategy), self.seed)  # type: ignore[arg-type]
        measured, down, up = evaluate(
            self.dispatcher, calls, model, self.panel, round.config, _silent
        )
        found.down, found.up = found.down + down, found.up + up
        if set(measured) != sites:
            lost = sorted(set(measured) ^ sites)
            raise _Unmeasured(f"{lost[0]} did not evaluate every model")
        return measured


class _Unmeasured(Exception):
    """Some site did not evaluate: scores of different windows cannot be compared."""


def _silent(kind: str, message: str, site: str | None = None) -> None:
    """Note nothing: one sentence about a round is enough."""


def utility(validation: Validation, metric: str, task: Task) -> float:
    """Return the score of a model from what sites measured; more is better.

    Args:
        validation: by site, as the sites answer, or as the history keeps it.
        metric: the task's primary one, or ``loss``.
        task: says which direction is better.
    """
    value = _over_sites(validation, metric)
    return math.nan if value is None else _sign(metric, task) * value


def _sign(metric: str, task: Task) -> float:
    return 1.0 if metric == task.primary and task.higher_is_better else -1.0


def _over_sites(validation: Validation, metric: str) -> float | None:
    pairs = []
    for measured in validation.values():
        value = measured.get(metric)
        pairs.append((math.nan if value is None else float(value), float(measured[EXAMPLES])))
    return over_sites(metric, pairs)

"""Costs of alarms as a maintenance crew counts: missed failures, false alarms, inspections.

A failure is missed if no sustained alarm came before it in time, however many windows it has;
an episode of alarms is paid once (``fedpdm.evaluation.alarms``). A row without time is an episode
of its own, and a positive one a failure. N windows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.rows import Bools, Floats, Ints, Split
from fedpdm.evaluation.alarms import Watch, Watched, episodes, failures, period, warnings
from fedpdm.evaluation.censoring import Censoring, joined
from fedpdm.evaluation.protocol import Costs, EvaluationProtocol
from fedpdm.evaluation.scoring import Predictions
from fedpdm.federation import Site
from fedpdm.tasks import Risk

LEVELS = 400
"""Most thresholds that are tried; where more scores occur, their shares of windows in alarm lie
evenly on a logarithmic scale."""
NEVER = float(np.nextafter(1.0, np.inf))
"""Threshold of no alarm at all: no risk reaches it, on no data."""
FOLDS = 20
"""Parts of the lives (or rows), each of which tries the level that the others would choose."""
ROWS = 1000
"""Over how many rows costs are given where there is no time."""
_NEAR = 1e-9
"""Costs this close to each other, as a share, are equal."""
_ALONE = Watch(horizon=1.0, cooldown=0.0, sustained=1)


@dataclass(frozen=True)
class Priced:
    """Windows whose alarms can be priced.

    Attributes:
        watched: N windows in the order of life and time.
        order: (N,) which of the windows that were given each of them is.
        watch: how alarms are counted.
        prices: (3, N) of a missed failure, a false episode and an inspection, each times the
            weight of the window.
        periods: machine-months, thousands of cycles or of rows that these windows are.
    """

    watched: Watched
    order: Ints
    watch: Watch
    prices: Floats
    periods: float

    def cost(self, alarm: Bools) -> tuple[float, int]:
        """Return what alarms cost in all, and the number of their episodes: see ``by_fold``."""
        costs, count = self.by_fold(alarm)
        return float(costs.sum()), count

    def by_fold(self, alarm: Bools) -> tuple[Floats, int]:
        """Return (FOLDS,) what alarms cost in each part of the lives, and the number of episodes.

        An episode weighs as much as its first window. A failure weighs as much as the first
        window that is near enough; one warned of in time saves the weight of its warning.

        Args:
            alarm: (N,) in the order in which the windows were given.
        """
        raised = alarm[self.order]
        missed, false_alarm, inspection = self.prices
        first, false = episodes(self.watched, raised, self.watch)
        warned = warnings(self.watched, raised, self.watch)
        fold = (np.cumsum(self.watched.begins) - 1) % FOLDS

        def sums(price: Floats, at: Ints) -> Floats:
            found = np.bincount(fold[at], weights=price[at], minlength=FOLDS)
            return np.asarray(found, dtype=np.float64)

        total = sums(missed, failures(self.watched, self.watch)) - sums(missed, warned)
        return total + sums(false_alarm, first[false]) + sums(inspection, first), len(first)


def priced(
    lives: Sequence[Censoring],
    watch: Watch,
    costs: Sequence[Costs],
    weights: Sequence[Floats],
    span: float,
) -> Priced:
    """Return the windows of several sites, to be priced together.

    Args:
        lives: by site, (N,) each.
        watch: how alarms are counted.
        costs: by site.
        weights: by site, (N,) how much each window counts.
        span: time of a period; 0 where rows stand alone, and a period is 1,000 of them.
    """
    watched, order = Watched.of(joined(list(lives)))
    prices = np.concatenate([
        np.array([[own.missed], [own.false_alarm], [own.inspection]]) * weight
        for own, weight in zip(costs, weights, strict=True)
    ], axis=1)  # fmt: skip
    share = float(np.concatenate(weights).mean()) if len(order) else 0.0
    whole = watched.exposure / span if span else len(order) / ROWS
    return Priced(watched, order, watch, prices[:, order], whole * share)


def rows_alone(target: NDArray[np.generic]) -> Censoring:
    """Return rows that nothing follows: each (N,) positive one is a failure at once."""
    number, zero = np.arange(len(target)), np.zeros(len(target))
    return Censoring(number, number, zero, zero, np.where(target.astype(bool), 0.0, np.nan))


def candidates(scores: Floats) -> Floats:
    """Return the thresholds to try: from always an alarm (0) to never one (``NEVER``)."""
    levels = np.unique(scores)
    if len(levels) > LEVELS:
        shares = np.geomspace(1.0, 1 / len(scores), LEVELS)
        levels = np.unique(np.quantile(scores, 1 - shares, method="higher"))
    return np.concatenate([[0.0], levels[1:], [NEVER]])


def least_cost(windows: Priced, scores: Floats) -> float:
    """Return the threshold of the least cost; of equal costs the one of the fewest episodes.

    A level that just catches every failure of few owes part of that to chance. So the lives are
    cut into parts, and each part tries the level that the others would choose: only where that
    costs no more than never and always an alarm is the level taken, else the cheaper of these.

    Args:
        windows: at least one.
        scores: (N,) from 0 to 1, in the order in which the windows were given.
    """
    levels = candidates(scores)
    found = [windows.by_fold(scores >= level) for level in levels]
    cost = np.array([costs for costs, _ in found])  # (L, FOLDS)
    count = np.array([number for _, number in found])
    total = cost.sum(axis=1)
    tried = sum(cost[_cheapest(total - part, count), k] for k, part in enumerate(cost.T))
    always, never = total[0], total[-1]
    if tried <= min(always, never) * (1 + _NEAR) + _NEAR:
        return float(levels[_cheapest(total, count)])
    return float(levels[0 if always < never else -1])


def _cheapest(total: Floats, count: Ints) -> int:
    """Return the position of the least (L,) cost: of equal ones the fewest episodes, then last."""
    least = np.flatnonzero(total <= total.min() + _NEAR * max(1.0, abs(total.max())))
    return int(least[count[least] == count[least].min()][-1])


@dataclass(frozen=True)
class Accounts:
    """What is needed to price the alarms of any predictor.

    Attributes:
        sites: the sites.
        risks: of the task, the nearest first.
        protocol: costs, and how alarms are counted.
        lives: of the sites' windows, by site and split; None where nothing follows an alarm, as
            labels are shuffled.
        weights: how much each validation window counts, by site.
        time_unit: of the data.
    """

    sites: Sequence[Site]
    risks: Sequence[Risk]
    protocol: EvaluationProtocol
    lives: Mapping[str, Mapping[Split, Censoring]] | None
    weights: Mapping[str, Floats]
    time_unit: str

    def follow(self, risk: Risk, split: Split) -> bool:
        """Return whether episodes can be counted: windows of a machine follow each other."""
        if self.lives is None or risk.horizon is None:
            return False
        lives = [self.lives[site.name][split].life for site in self.sites]
        return any(len(own) > len(np.unique(own)) for own in lives)

    def priced(self, sites: Sequence[Site], split: Split, risk: Risk) -> Priced:
        """Return the windows of some of the sites; only those of validation are weighed."""
        costs = [self.protocol.policy.costs_of(site.name) for site in sites]
        weights = [np.ones(len(site.windows[split])) for site in sites]
        if split == Split.VALIDATION:
            weights = [self.weights[site.name] for site in sites]
        if self.lives is None or risk.horizon is None or not self.follow(risk, split):
            alone = [rows_alone(risk.of(site.windows[split].y)) for site in sites]
            return priced(alone, _ALONE, costs, weights, 0.0)
        lives = [self.lives[site.name][split] for site in sites]
        span, _ = period(self.time_unit)
        return priced(lives, self.protocol.watch(risk.horizon), costs, weights, span)

    def level(
        self, predictions: Predictions, risk: Risk, sites: Sequence[Site] | None = None
    ) -> float | None:
        """Return the threshold of the least cost on the validation windows of sites, or of all.

        None where the windows do not have both classes.
        """
        chosen = [site for site in sites or self.sites if len(site.validation)]
        if not chosen:
            return None
        target = np.concatenate([risk.of(site.validation.y) for site in chosen])
        if not 0 < target.astype(np.int64).sum() < len(target):
            return None
        scores = [risk.of(predictions[site.name][Split.VALIDATION]) for site in chosen]
        return least_cost(self.priced(chosen, Split.VALIDATION, risk), np.concatenate(scores))

    def alarms_of(
        self, predictions: Predictions, risk: Risk, split: Split, own: bool
    ) -> dict[str, Bools]:
        """Return by site the alarms of a predictor at the threshold that it would choose itself.

        Args:
            predictions: of validation windows and of ``split``.
            risk: on which alarms are raised.
            split: whose alarms.
            own: whether each site chooses for itself; without failures it never raises one.
        """
        sites = [site for site in self.sites if site.name in predictions]
        if not all(Split.VALIDATION in predictions[site.name] for site in sites):
            return {}  # a run folder of an older version, or a baseline of one's own
        common = None if own else self.level(predictions, risk, sites)
        alarms = {}
        for site in sites:
            level = self.level(predictions, risk, [site]) if own else common
            scores = risk.of(predictions[site.name][split])
            alarms[site.name] = scores >= (np.inf if level is None else level)
        return alarms


def cost_table(
    accounts: Accounts,
    risk: Risk,
    predictions: Predictions,
    level_of: Callable[[str], float],
    others: Mapping[str, Predictions],
    alone: Collection[str] = (),
) -> dict[str, Any]:
    """Return what alarms cost per machine-month, or per 1,000 cycles or rows (docs/summary.md).

    Args:
        accounts: of the sites.
        risk: on which alarms are raised.
        predictions: of the shared model.
        level_of: its threshold at a site.
        others: predictions of baselines, by name.
        alone: names of those that are each site's own models, with a threshold of its own.
    """
    own = accounts.protocol.policy.scope == "plant"
    raised = {
        name: accounts.alarms_of(found, risk, Split.TEST, own or name in alone)
        for name, found in others.items()
    }
    result: dict[str, Any] = {
        "risk": risk.key,
        "counted": "episodes" if accounts.follow(risk, Split.TEST) else "rows",
        "period": f"{ROWS:,} rows",
    }
    if accounts.follow(risk, Split.TEST):
        result["period"] = period(accounts.time_unit)[1]
    for split in (Split.VALIDATION, Split.TEST):
        bills, periods = {}, {}
        for site in accounts.sites:
            scores = risk.of(predictions[site.name][split])
            alarms = {
                "level": scores >= level_of(site.name),
                "never": np.zeros(len(scores), dtype=bool),
                "always": np.ones(len(scores), dtype=bool),
            }
            if split == Split.TEST:
                alarms |= {n: found[site.name] for n, found in raised.items() if site.name in found}
            windows = accounts.priced([site], split, risk)
            bills[site.name] = {name: windows.cost(alarm)[0] for name, alarm in alarms.items()}
            periods[site.name] = windows.periods
        whole = _together(bills)
        if split == Split.VALIDATION:
            result["validation"] = _rates(whole, sum(periods.values()))
        else:
            result["periods"] = sum(periods.values())
            result["global"] = _rates(whole, sum(periods.values()))
            result["per_site"] = {name: _rates(bills[name], periods[name]) for name in bills}
    return result


def _together(bills: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the sums over sites of what every site knows."""
    names = next(iter(bills.values()), {})
    return {
        name: sum(bill[name] for bill in bills.values())
        for name in names
        if all(name in bill for bill in bills.values())
    }


def _rates(bill: Mapping[str, float], periods: float) -> dict[str, float | None]:
    return {name: amount / periods if periods > 0 else None for name, amount in bill.items()}

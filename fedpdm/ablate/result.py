"""What groups of sensors are worth over seeds: falls of the score, intervals, ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedpdm.ablate.groups import Groups
from fedpdm.ablate.scores import WHOLE, Ablated
from fedpdm.comparison.runs import FinishedRun
from fedpdm.comparison.scores import Spread, mean_of, number_of, spread_of
from fedpdm.comparison.statistics import Effect, effect, ranks
from fedpdm.evaluation.wording import Metric, primary_metric

FEWEST_SEEDS = 5
"""With fewer there is no interval."""


@dataclass(frozen=True)
class Fall:
    """How far the score falls where a group of sensors says nothing; positive is worse.

    Attributes:
        group: its name.
        how: its readings were replaced.
        place: a site, or ``WHOLE`` for all test windows together.
        scores: of the ablated windows, by seed.
        falls: by seed, in the metric's own unit.
        effect: over seeds; its interval is None with fewer than ``FEWEST_SEEDS``.
        ranks: by seed; 1 is the group whose loss hurts most, equal falls share a rank.
        rank: by the mean fall.
        groups: how many are ranked.
    """

    group: str
    how: str
    place: str
    scores: Mapping[int, float]
    falls: Mapping[int, float]
    effect: Effect
    ranks: Mapping[int, float]
    rank: float
    groups: int

    @property
    def first(self) -> int:
        """In how many seeds it falls most of all groups, with no other beside it."""
        return sum(rank == 1 for rank in self.ranks.values())

    @property
    def last(self) -> int:
        """In how many seeds it falls least of all groups, with no other beside it."""
        return sum(rank == self.groups for rank in self.ranks.values())


@dataclass(frozen=True)
class Ablation:
    """The ablation of one setting over its seeds.

    Attributes:
        metric: the task's primary one.
        groups: sensors by group.
        hows: ways to replace; groups are ranked by the first.
        runs: of each seed.
        intact: scores with all sensors, by place and seed.
        baselines: mean scores of the runs' baselines on all test windows, the best first.
        falls: of each place, how and group, those that hurt most first.
    """

    metric: Metric
    groups: Groups
    hows: Sequence[str]
    runs: Mapping[int, Ablated]
    intact: Mapping[str, Mapping[int, float]]
    baselines: Mapping[str, float]
    falls: Sequence[Fall]

    @property
    def places(self) -> list[str]:
        return list(self.intact)

    def at(self, place: str, how: str) -> list[Fall]:
        """Return the groups' falls at a place, those that hurt most first."""
        return [fall for fall in self.falls if (fall.place, fall.how) == (place, how)]

    def spread(self, place: str = WHOLE) -> Spread:
        """Return the score with all sensors over seeds."""
        return spread_of(list(self.intact[place].values()))


def ablation_of(
    ablated: Sequence[Ablated], groups: Groups, hows: Sequence[str], runs: Sequence[FinishedRun]
) -> Ablation:
    """Gather the scores of runs that differ in their seed alone.

    Args:
        ablated: a run of each seed.
        groups: sensors by group.
        hows: ways to replace.
        runs: the same runs as they are compared, for metric and baselines.
    """
    by_seed = {one.seed: one for one in sorted(ablated, key=lambda one: one.seed)}
    metric = primary_metric(runs[0].summary)
    intact = {
        place: {
            seed: value
            for seed, one in by_seed.items()
            if (value := one.intact.get(place)) is not None
        }
        for place in dict.fromkeys(place for one in by_seed.values() for place in one.intact)
    }
    intact = {place: own for place, own in intact.items() if own}
    falls = [
        fall
        for place in intact
        for how in hows
        for fall in _ranked(place, how, by_seed, [*groups], metric.sign)
    ]
    return Ablation(metric, groups, hows, by_seed, intact, _baselines(runs, metric), falls)


def _ranked(
    place: str, how: str, by_seed: Mapping[int, Ablated], groups: Sequence[str], sign: float
) -> list[Fall]:
    """Return the falls at a place, ranked; seeds in which one of them is unknown are left out."""
    table: dict[int, list[float]] = {}
    scores: dict[int, list[float]] = {}
    for seed, one in by_seed.items():
        whole = one.intact.get(place)
        parts = [one.without[group, how].get(place) for group in groups]
        known = [part for part in parts if part is not None]
        if whole is not None and len(known) == len(groups):
            scores[seed] = known
            table[seed] = [sign * (whole - part) for part in known]
    if not table:
        return []
    falls = np.array(list(table.values()))
    own = dict(zip(table, ranks(falls), strict=True))
    overall = ranks(falls.mean(axis=0, keepdims=True))[0]
    found = []
    for k, group in enumerate(groups):
        size = effect(falls[:, k])
        if size.pairs < FEWEST_SEEDS:
            size = replace(size, low=None, high=None)
        found.append(
            Fall(
                group, how, place,
                {seed: row[k] for seed, row in scores.items()},
                {seed: row[k] for seed, row in table.items()},
                size,
                {seed: float(row[k]) for seed, row in own.items()},
                float(overall[k]),
                len(groups),
            )
        )  # fmt: skip
    return sorted(found, key=lambda fall: fall.rank)


def _baselines(runs: Sequence[FinishedRun], metric: Metric) -> dict[str, float]:
    names = dict.fromkeys(name for run in runs for name in run.test.get("baselines") or {})
    found = {}
    for name in names:
        values = [number_of(run.baseline(name).get("global"), metric.name) for run in runs]
        known = [value for value in values if value is not None]
        if len(known) == len(runs) and (mean := mean_of(known)) is not None:
            found[name] = mean
    return dict(sorted(found.items(), key=lambda each: -metric.sign * each[1]))

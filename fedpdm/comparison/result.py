"""The results of a comparison: per setting, per pair and per site. Numbers only, no layout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, count
from typing import Any

import numpy as np

from fedpdm.comparison.remarks import remarks_of
from fedpdm.comparison.scores import VIEWS, Standing, clock_of, mean_of, standing_of
from fedpdm.comparison.settings import (
    REFERENCE,
    Setting,
    common_parts,
    families,
    obstacle,
    references_of,
)
from fedpdm.comparison.statistics import (
    LEVEL,
    Effect,
    Floats,
    Ranking,
    effect,
    holm,
    paired_test,
    ranking,
    ranks,
    smallest_p,
)
from fedpdm.errors import ConfigError
from fedpdm.evaluation.wording import Metric, listing, metric, primary_metric


@dataclass(frozen=True)
class Pair:
    """Two settings over the seeds that both have; positive differences are better.

    Attributes:
        first: name of the setting that is judged.
        second: name of the one it is judged against.
        effect: of first − second, or second − first for errors.
        p: of the paired test.
        corrected: the same after Holm's correction over its kind of pairs.
        better: seeds in which the first is better.
        worse: seeds in which it is worse.
    """

    first: str
    second: str
    effect: Effect
    p: float
    better: int
    worse: int
    corrected: float = 1.0

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or ``open``: chance explains the difference as well."""
        if self.corrected > LEVEL:
            return "open"
        return "better" if self.effect.mean > 0 else "worse"


@dataclass(frozen=True)
class SiteChange:
    """What a setting changes for one site against its reference; positive is better."""

    site: str
    setting: str
    score: float
    against: float | None
    """Mean difference to the reference over common seeds; None for the reference itself."""
    alone: float | None
    """Mean difference to the best model alone; None without such a baseline."""
    seeds: int


@dataclass(frozen=True)
class Family:
    """Settings that can be compared: the same task, metric, sites and test windows."""

    name: str
    metric: Metric
    view: str
    gain_table: tuple[Standing, ...]
    references: Mapping[str, str]
    """The reference of each setting that has one, by name."""
    reference: str
    """What the references have in common: one setting's name, or the part that twins have."""
    against: tuple[Pair, ...]
    pairs: tuple[Pair, ...]
    sites: tuple[SiteChange, ...]
    ranking: Ranking
    remarks: tuple[str, ...] = ()
    """On settings without a reference of their own."""

    def changes(self, setting: str) -> list[SiteChange]:
        """Return what a setting changes against its reference, site by site."""
        return [c for c in self.sites if c.setting == setting and c.against is not None]

    @property
    def best(self) -> Standing:
        """The setting with the best mean score."""
        means = [self.metric.sign * np.mean(list(s.by_seed.values())) for s in self.gain_table]
        return self.gain_table[int(np.argmax(means))]

    def get(self, name: str) -> Standing:
        """Return a setting by its name."""
        return next(s for s in self.gain_table if s.name == name)


@dataclass(frozen=True)
class Comparison:
    """All families of a comparison, and what could not be compared.

    Attributes:
        families: each with two settings or more.
        overall: names and ranking over all families whose settings are the same, if several.
        remarks: what a reader must know of the runs.
        left_out: runs and settings that take no part, and why.
    """

    families: tuple[Family, ...]
    overall: tuple[tuple[str, ...], Ranking] | None
    remarks: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def against(self) -> list[Pair]:
        return [pair for family in self.families for pair in family.against]

    @property
    def pairs(self) -> list[Pair]:
        return [pair for family in self.families for pair in family.pairs]


def compare(
    settings: Sequence[Setting],
    *,
    against: str | None = None,
    view: str = "global",
    metric_name: str | None = None,
    remarks: Sequence[str] = (),
    left_out: Sequence[str] = (),
) -> Comparison:
    """Compare settings over their seeds.

    Args:
        settings: two or more.
        against: the reference: a setting's name or a part of it ("FedAvg"); with a part,
            each setting is judged against its twin that has this part and is else the
            same (``references_of``). None: FedAvg if there, else the first setting.
        view: one of ``VIEWS``, the score that is tested and ranked.
        metric_name: of summary.json; None for the metric that chose the rounds.
        remarks: what reading the runs had to say.
        left_out: likewise.

    Raises:
        ConfigError: nothing can be compared, or there is no such reference or metric.
    """
    if view not in VIEWS:
        raise ConfigError(f"--on {view} is unknown; choose {', '.join(VIEWS)}")
    grouped = families(settings)
    kept = [group for group in grouped if len(group) > 1]
    first = kept[0][0]
    alone = [
        f"{own.name} stands alone: it differs from {first.name} in {obstacle(own, first)}"
        for own, *others in grouped
        if not others
    ]
    found = [_family(group, view, metric_name, against, several=len(kept) > 1) for group in kept]
    if against is not None and not any(family.references for family in found):
        names = listing([s.name for family in found for s in family.gain_table], most=12)
        raise ConfigError(f"--against {against}: there is no such setting; there are {names}")
    found = _corrected(found)
    told = (*remarks, *remarks_of(found, settings))
    return Comparison(tuple(found), _overall(found), told, (*left_out, *alone))


def _family(
    group: Sequence[Setting], view: str, name: str | None, against: str | None, several: bool
) -> Family:
    chosen = primary_metric(group[0].any.summary)
    if name not in (None, chosen.name):
        chosen = metric(name)
    shared = common_parts(group)
    clock = clock_of(group)
    short = [replace(s, parts={k: v for k, v in s.parts.items() if k not in shared}) for s in group]
    every = [standing_of(setting, view, chosen, clock) for setting in short]
    usable = tuple(s for s in every if s.by_seed)
    if not usable:
        raise ConfigError(
            f"--metric {chosen.name}: no run has it; there are "
            f"{listing(sorted(group[0].any.test.get('global') or {}), most=12)}"
        )
    references, told = references_of([s.setting for s in usable], against)
    named = {s.name: s for s in usable}
    judged = [(named[first], named[second]) for first, second in references.items()]
    pairs = [(second, first) for first, second in combinations(usable, 2)]
    names = list(dict.fromkeys(references.values()))
    return Family(
        name=" ".join(shared.values()) if several else "",
        metric=chosen,
        view=view,
        gain_table=usable,
        references=references,
        reference=names[0] if len(names) == 1 else (against or REFERENCE),
        against=_pairs(judged, chosen),
        pairs=_pairs(pairs, chosen),
        sites=tuple(_sites(named, references, chosen)),
        ranking=ranking(_scores(usable, _common_seeds(usable)), chosen.higher_is_better),
        remarks=tuple(told),
    )


def _pairs(chosen: Iterable[tuple[Standing, Standing]], metric: Metric) -> tuple[Pair, ...]:
    """Return the paired comparisons over common seeds; a pair without any is left out."""
    result = []
    for first, second in chosen:
        if seeds := _common_seeds([first, second]):
            mine, its = _scores([first, second], seeds).T
            d = metric.sign * (mine - its)
            better, worse = int(np.sum(d > 0)), int(np.sum(d < 0))
            result.append(
                Pair(first.name, second.name, effect(d), float(paired_test(d)), better, worse)
            )
    return tuple(result)


def _common_seeds(standings: Sequence[Standing]) -> list[int]:
    return sorted(set.intersection(*(set(s.by_seed) for s in standings)))


def _scores(standings: Sequence[Standing], seeds: Sequence[int]) -> Floats:
    """Return (seeds, settings) scores."""
    table = [[s.by_seed[seed] for s in standings] for seed in seeds]
    return np.array(table).reshape(len(seeds), len(standings))


def _corrected(found: Sequence[Family]) -> list[Family]:
    """Correct all comparisons with a reference together, and all pairs together."""
    against = iter(holm([p.p for family in found for p in family.against]))
    pairs = iter(holm([p.p for family in found for p in family.pairs]))

    def take(each: Sequence[Pair], values: Any) -> tuple[Pair, ...]:
        return tuple(replace(pair, corrected=next(values)) for pair in each)

    return [
        replace(family, against=take(family.against, against), pairs=take(family.pairs, pairs))
        for family in found
    ]


def pairs_needed(comparisons: int) -> int:
    """Return how many seeds the smallest of so many corrected p-values needs to reach .05."""
    return next(n for n in count(1) if smallest_p(n) * max(comparisons, 1) <= LEVEL or n > 20)


def _sites(
    named: Mapping[str, Standing], references: Mapping[str, str], chosen: Metric
) -> Iterator[SiteChange]:
    for site in dict.fromkeys(site for s in named.values() for site in s.per_site):
        for name, standing in named.items():
            mine = standing.per_site.get(site, {})
            if (score := mean_of(mine.values())) is None:
                continue
            reference = named.get(references.get(name, ""))
            against, alone = (
                mean_of([chosen.sign * (mine[s] - its[s]) for s in sorted(set(mine) & set(its))])
                for its in (
                    reference.per_site.get(site, {}) if reference else {},
                    standing.alone.get(site, {}),
                )
            )
            yield SiteChange(site, name, score, against, alone, len(mine))


def _overall(found: Sequence[Family]) -> tuple[tuple[str, ...], Ranking] | None:
    """Rank over all families where all hold the same settings; each seed is one block.

    Data sets of one seed are not independent: they come from the same draws. So their ranks
    are averaged, and the settings ranked by that, in each seed that all data sets share.
    """
    names = tuple(s.name for s in found[0].gain_table)
    if len(found) < 2 or any({s.name for s in f.gain_table} != set(names) for f in found):
        return None
    seeds = _common_seeds([s for f in found for s in f.gain_table])
    each = [
        ranks(_scores([f.get(name) for name in names], seeds), f.metric.higher_is_better)
        for f in found
    ]
    return (names, ranking(np.mean(each, axis=0), higher_is_better=False))

"""What a comparison found: per setting, per pair and per site. Numbers only, no layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from fedpdm.comparison.comparison import (
    LEVEL,
    Effect,
    Ranking,
    effect,
    holm,
    ranking,
    ranks,
    sign_flip,
    smallest_p,
)
from fedpdm.comparison.references import REFERENCE, references_of
from fedpdm.comparison.remarks import remarks_of
from fedpdm.comparison.scores import VIEWS, Standing, clock_of, mean_of, standing_of
from fedpdm.comparison.settings import Setting, common_parts, families, obstacle
from fedpdm.errors import ConfigError
from fedpdm.evaluation.wording import Metric, listing, metric, primary_metric


@dataclass(frozen=True)
class Pair:
    """Two settings over the seeds that both have; positive differences are better.

    Attributes:
        first: name of the setting that is judged.
        second: name of the one it is judged against.
        effect: of first − second, or second − first for errors.
        p: of the sign-flip test.
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
    """Mean difference to working alone; None where nobody worked alone."""
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
        sign = 1.0 if self.metric.higher_is_better else -1.0

        def worth(standing: Standing) -> float:  # 0 is a score: "or" would make it none
            mean = mean_of(standing.by_seed.values())
            return -np.inf if mean is None else sign * mean

        return max(self.gain_table, key=worth)

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
    out = list(left_out)
    kept = []
    grouped = families(settings)
    first = next(group for group in grouped if len(group) > 1)
    for group in grouped:
        if len(group) > 1:
            kept.append(group)
        else:
            out.append(f"{group[0].name} stands alone: it differs from {first[0].name} in "
                       f"{obstacle(group[0], first[0])}")  # fmt: skip
    found = [_family(group, view, metric_name, against, several=len(kept) > 1) for group in kept]
    if against is not None and not any(family.references for family in found):
        names = listing([s.name for family in found for s in family.gain_table], most=12)
        raise ConfigError(f"--against {against}: there is no such setting; there are {names}")
    corrected = _corrected(found)
    return Comparison(
        tuple(corrected),
        _overall(corrected),
        (*remarks, *remarks_of(corrected, settings)),
        tuple(out),
    )


def _family(
    group: Sequence[Setting], view: str, name: str | None, against: str | None, several: bool
) -> Family:
    chosen = primary_metric(group[0].any.summary)
    if name not in (None, chosen.name):
        chosen = metric(name)
    shared = common_parts(group)
    clock = clock_of(group)
    short = [replace(s, parts={k: v for k, v in s.parts.items() if k not in shared}) for s in group]
    gain_table = tuple(standing_of(setting, view, chosen, clock) for setting in short)
    if all(not s.by_seed for s in gain_table):
        raise ConfigError(
            f"--metric {chosen.name}: no run has it; there are "
            f"{listing(sorted(group[0].any.summary['test'].get('global') or {}), most=12)}"
        )
    usable = tuple(s for s in gain_table if s.by_seed)
    references, told = references_of(usable, against)
    pairs = [_pair(a, b, chosen) for b, a in combinations(usable, 2)]
    judged = [_pair(s, _by_name(usable, references[s.name]), chosen)
              for s in usable if s.name in references]  # fmt: skip
    common = sorted(set.intersection(*(set(s.by_seed) for s in usable)))
    table = np.array([[s.by_seed[seed] for s in usable] for seed in common]).reshape(
        -1, len(usable)
    )
    label = " ".join(shared.values()) if several else ""
    return Family(
        label,
        chosen,
        view,
        usable,
        references,
        _common_name(references, against),
        tuple(pair for pair in judged if pair is not None),
        tuple(pair for pair in pairs if pair is not None),
        tuple(_sites(usable, references, chosen)),
        ranking(table.reshape(-1, len(usable)), chosen.higher_is_better),
        tuple(told),
    )


def _common_name(references: Mapping[str, str], against: str | None) -> str:
    names = list(dict.fromkeys(references.values()))
    return names[0] if len(names) == 1 else (against or REFERENCE)


def _pair(first: Standing, second: Standing, chosen: Metric) -> Pair | None:
    """Return the paired comparison over common seeds; None without any."""
    seeds = sorted(set(first.by_seed) & set(second.by_seed))
    if not seeds:
        return None
    sign = 1.0 if chosen.higher_is_better else -1.0
    d = sign * np.array([first.by_seed[seed] - second.by_seed[seed] for seed in seeds])
    better, worse = int(np.sum(d > 0)), int(np.sum(d < 0))
    return Pair(first.name, second.name, effect(d), float(sign_flip(d)), better, worse)


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
    pairs = 1
    while smallest_p(pairs) * max(comparisons, 1) > LEVEL:
        pairs += 1
        if pairs > 20:
            break
    return pairs


def _sites(
    gain_table: Sequence[Standing], references: Mapping[str, str], chosen: Metric
) -> list[SiteChange]:
    sign = 1.0 if chosen.higher_is_better else -1.0
    changes = []
    for site in dict.fromkeys(site for s in gain_table for site in s.per_site):
        for standing in gain_table:
            mine = standing.per_site.get(site, {})
            if (score := mean_of(mine.values())) is None:
                continue
            reference = references.get(standing.name)
            other = _by_name(gain_table, reference).per_site.get(site, {}) if reference else {}
            changes.append(SiteChange(
                site, standing.name, score,
                _difference(mine, other, sign),
                _difference(mine, standing.alone.get(site, {}), sign),
                len(mine),
            ))  # fmt: skip
    return changes


def _difference(a: Mapping[int, float], b: Mapping[int, float], sign: float) -> float | None:
    return mean_of([sign * (a[seed] - b[seed]) for seed in sorted(set(a) & set(b))])


def _overall(found: Sequence[Family]) -> tuple[tuple[str, ...], Ranking] | None:
    """Rank over all families where all hold the same settings; each seed is one block.

    Data sets of one seed are not independent: they come from the same draws. So their ranks
    are averaged, and the settings ranked by that, in each seed that all data sets share.
    """
    names = tuple(s.name for s in found[0].gain_table)
    same = [f for f in found if {s.name for s in f.gain_table} == set(names)]
    if len(same) < 2 or len(same) < len(found):
        return None
    seeds = sorted(set.intersection(*(set(s.by_seed) for f in same for s in f.gain_table)))
    shape = (len(seeds), len(names))
    tables = [
        np.array([[f.get(name).by_seed[seed] for name in names] for seed in seeds]).reshape(shape)
        for f in same
    ]
    each = [ranks(t, f.metric.higher_is_better) for t, f in zip(tables, same, strict=True)]
    return (names, ranking(np.mean(each, axis=0), higher_is_better=False))


def _by_name(gain_table: Sequence[Standing], name: str) -> Standing:
    return next(s for s in gain_table if s.name == name)

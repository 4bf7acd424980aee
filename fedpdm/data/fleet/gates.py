"""Quality gates that generated data must pass before a model trains on it.

Each compares a number with a bound that was chosen before any data was looked at:

    rows              every step that a machine ran and was linked has its row       = 1
    readings          share of readings that arrived, of sensors that are there      >= 0.75
    failures          failures at the site                                          >= 5
    event diversity   different ways of failing that were seen                       >= 2
    scenario recall   failures of a scenario that leave a trace in the sensors       >= 0.8
                      (fails where that many are too few for it, at 5 %)
    link failures     rows that came through a failed data link                      = 0
    single feature    best ROC-AUC of one raw column, or of what is missing          <= 0.9
    reproducible      the same seed gives the bytes that were written                = 1
    prevalence        deviation from the wanted share, relative                      <= 0.25

A failure leaves a trace if one of its machine's last rows stands out, along the signature of
what failed, from all rows of 95 % of equally long stretches of healthy machines of its kind.
What load and hall temperature explain is taken off first. The truth is used to know where to
look and for what: the gate asks whether there is something to find, not whether it is easy.

A gate that could not be tried is *skipped* and says why: that is not *passed*.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binom, rankdata

from fedpdm.data.fleet.assets import LACKS
from fedpdm.data.fleet.life import FAILURE
from fedpdm.data.fleet.physics import TABLE
from fedpdm.data.fleet.record import Record
from fedpdm.data.fleet.settings import SCENARIOS, SiteProfile
from fedpdm.data.rows import Bools, Floats, Rows, machine_slices, within_horizon

READINGS, FAILURES, DIVERSITY = 0.75, 5, 2
AREA, WANTED = 0.9, 0.25
RECALL = 0.8
HEALTHY, AT_THE_END, FALSE_TRACES = 0.3, 4, 0.05
"""Wear of a healthy machine; rows before a failure; share of healthy stretches with a trace."""
FEWEST_STRETCHES = 50
FEWEST = 10  # rows of each class, below which an area under the curve says nothing


@dataclass(frozen=True)
class Gate:
    """One verdict.

    Attributes:
        gate: its name.
        profile: the site whose data it is about, or all.
        status: passed, failed or skipped.
        value: what was measured; None if nothing could be.
        threshold: the bound.
        note: what was looked at; of a failed gate, the way out.
        settings: beginnings of the keys that can make it fail.
    """

    gate: str
    profile: str
    status: str
    value: float | None
    threshold: float
    note: str
    settings: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The verdict for a person."""
        value = "nothing" if self.value is None else f"{self.value:.4g}"
        return (
            f"gate '{self.gate}' {self.status} at {self.profile}: {value}, "
            f"bound {self.threshold:g}; {self.note}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what the summary says about it."""
        return {key: value for key, value in asdict(self).items() if key != "settings"}


def verdict(
    gate: str, profile: str, passed: bool, value: float, threshold: float, note: str, way_out: str,
    *settings: str,
) -> Gate:  # fmt: skip
    """Return a gate that was tried; ``way_out`` is told if it failed."""
    status = "passed" if passed else "failed"
    return Gate(gate, profile, status, value, threshold, note if passed else way_out, settings)


def skipped(gate: str, profile: str, threshold: float, why: str) -> Gate:
    """Return a gate that could not be tried."""
    return Gate(gate, profile, "skipped", None, threshold, why)


def completeness(site: str, made: Record) -> list[Gate]:
    """Return whether all rows are there, and enough of their readings."""
    ran = sum(life.steps for _, _, life in made.lives) - sum(link.rows for link in made.links)
    share = len(made.time) / max(ran, 1)
    sound = share == 1.0 and not bool(np.isinf(made.values).any())
    there = ~LACKS[made.latent.kind]
    present = float((~np.isnan(made.values) & there).sum() / max(there.sum(), 1))
    return [
        verdict(
            "rows", site, sound, share, 1.0, f"{ran:,} steps of running, linked machines",
            "rows are missing, doubled or infinite: this is a defect of the generator, report it",
        ),
        verdict(
            "readings", site, present >= READINGS, present, READINGS,
            "share of readings that arrived",
            "too many are lost: lower data.missing, data.outages or data.dropout, or the weight "
            f"of communication in data.scenarios or sites.{site}.scenarios",
            "data.missing", "data.outages", "data.dropout", "data.scenarios", "sites.",
        ),
    ]  # fmt: skip


def events(site: str, profile: SiteProfile, made: Record) -> list[Gate]:
    """Return whether enough failed, in enough different ways."""
    modes = [life.mode for _, _, life in made.lives if life.end == FAILURE]
    possible = int(np.count_nonzero(np.add(profile.modes, profile.modes_later)))
    least, seen = min(DIVERSITY, possible), len(set(modes))
    longer = f"raise data.days (--days) or sites.{site}.machines, or lower sites.{site}.life_days"
    knobs = ("data.days", "data.prevalence", "data.heterogeneity", "data.step_hours", "sites.")
    return [
        verdict("failures", site, len(modes) >= FAILURES, len(modes), FAILURES,
                "failures at the site", f"too few failed: {longer}", *knobs),
        verdict("event diversity", site, seen >= least, seen, least,
                f"ways of failing seen, {possible} are possible",
                f"too few ways of failing: {longer}, or weigh sites.{site}.modes more evenly",
                *knobs),
    ]  # fmt: skip


def scenario_recall(site: str, profile: SiteProfile, made: Record) -> list[Gate]:
    """Return for every scenario the site asks for whether its failures can be measured.

    The gate fails where so few leave a trace that a recall of ``RECALL`` would give as few
    with a chance under 5 %: three failures of which one is missed are no proof.
    """
    failed = [(name, life) for name, _, life in made.lives if life.end == FAILURE]
    told, gates, weights = Traces(made), [], profile.scenarios[:-1]
    for number, (scenario, weight) in enumerate(zip(SCENARIOS, weights, strict=False)):
        name = f"scenario recall: {scenario}"
        if weight == 0:
            continue
        own = [(machine, life) for machine, life in failed if life.scenario == number]
        expected = len(failed) * weight / sum(weights)
        if not own and expected < 3:
            gates.append(skipped(name, site, RECALL, f"only {expected:.1f} failures to expect"))
            continue
        if not told.sound:
            gates.append(skipped(name, site, RECALL, "no stretch of healthy machines to compare"))
            continue
        seen = [told.stands_out(machine, life.time, life.mode) for machine, life in own]
        tried, found = sum(one is not None for one in seen), sum(one is True for one in seen)
        if own and not tried:
            gates.append(skipped(name, site, RECALL, "no healthy machine of the kind to compare"))
            continue
        recall = found / tried if tried else 0.0
        gates.append(
            verdict(
                name, site, not surely_below(found, tried, RECALL), recall, RECALL,
                f"{found} of {tried} failures leave a trace",
                f"{found} of {tried} failures by '{scenario}' leave a trace in the sensors: "
                "so few may be bad luck, try another --seed first; else lower "
                f"sites.{site}.noise, data.missing or data.step_hours, or raise data.days (--days)",
                "sites.", "data.",
            )
        )  # fmt: skip
    return gates


def surely_below(found: int, tried: int, share: float) -> bool:
    """Return whether so few of ``tried`` happen with a chance under 5 % if ``share`` is true."""
    return tried == 0 or (found < share * tried and bool(binom.cdf(found, tried, share) < 0.05))


class Traces:
    """How far stretches of rows stand out along the signature of each mode."""

    def __init__(self, made: Record) -> None:
        self._made = made
        self._where = machine_slices(made.machine)
        sound = made.latent.wear.max(axis=1) < HEALTHY
        values = made.values - _usual_response(made)
        self._deviation = np.zeros_like(values)
        stretches: dict[int, list[Floats]] = {}
        for rows in self._where.values():
            usual = values[rows][sound[rows]]
            if len(usual) < AT_THE_END:
                continue
            there = ~np.isnan(usual).all(axis=0)
            centre = np.zeros(usual.shape[1])
            centre[there] = np.nanmedian(usual[:, there], axis=0)
            # What is missing says nothing: no deviation.
            self._deviation[rows] = np.nan_to_num(values[rows] - centre)
            mine = self._deviation[rows][sound[rows]]
            whole = len(mine) // AT_THE_END * AT_THE_END
            parts = mine[:whole].reshape(-1, AT_THE_END, mine.shape[1])
            stretches.setdefault(int(made.latent.kind[rows.start]), []).append(parts)
        # Kinds of machine differ in noise and in sensors: each is measured against its own.
        usual_of = {kind: np.concatenate(parts) for kind, parts in stretches.items()}
        self._told = {
            kind: _detector(usual)
            for kind, usual in usual_of.items()
            if len(usual) >= FEWEST_STRETCHES
        }
        self.sound = bool(self._told)

    def stands_out(self, machine: str, failed: float, mode: int) -> bool | None:
        """Return whether one of the last rows before a failure shows it; None: cannot tell."""
        if machine not in self._where:
            return None
        rows = self._where[machine]
        end = rows.start + int(np.searchsorted(self._made.time[rows], failed, side="right"))
        kind = int(self._made.latent.kind[rows.start])
        if end == rows.start or kind not in self._told:
            return None
        weights, bound = self._told[kind]
        scores = self._deviation[max(rows.start, end - AT_THE_END) : end] @ weights[:, mode]
        return bool((scores > bound[mode]).any())


def _detector(usual: Floats) -> tuple[Floats, Floats]:
    """Return (F, K) matched filters and (K,) bounds from (N, T, F) healthy stretches."""
    spread = TABLE["spread"]
    signature = TABLE["wear"] * spread[:, None]
    noise = np.cov(usual.reshape(-1, len(spread)).T) + np.diag(1e-6 * spread**2)
    # A sensor that these machines lack never varies: it must not carry the whole filter.
    signature[np.diag(noise) < 1e-4 * spread**2] = 0.0
    weights = np.linalg.solve(noise, signature)
    scores = (usual @ weights).max(axis=1)
    return weights, np.quantile(scores, 1 - FALSE_TRACES, axis=0)


def _usual_response(made: Record) -> Floats:
    """Return (R, F) what load and hall temperature explain of the readings."""
    ambient = made.around.ambient[np.searchsorted(made.around.time, made.time)]
    pushed = np.outer(made.latent.load, TABLE["load"] / 0.1) + np.outer(ambient, TABLE["heat"] / 10)
    return np.asarray(pushed * TABLE["spread"])


def single_feature(site: str, rows: Rows, horizon: float) -> Gate:
    """Return whether no single column tells, by a threshold, which rows precede a failure.

    Tried are every raw sensor, whether it is missing, how many are missing, and the day, in
    both directions.
    """
    name = "single feature"
    positive, known = within_horizon(rows, horizon)
    label = positive[known]
    if min(label.sum(), (~label).sum()) < FEWEST:
        return skipped(name, site, AREA, f"fewer than {FEWEST} rows of a class")
    missing = np.isnan(rows.values)
    areas = {
        feature: area(label, values[known])
        for feature, values in zip(rows.features, rows.values.T, strict=True)
    }
    shares = missing[known][label].mean(axis=0), missing[known][~label].mean(axis=0)
    for feature, failing, sound in zip(rows.features, *shares, strict=True):
        areas[f"missing {feature}"] = float(0.5 + abs(failing - sound) / 2)
    areas["number of missing readings"] = area(label, missing.sum(axis=1)[known].astype(float))
    areas["day"] = area(label, rows.time[known])
    best = max(areas, key=lambda column: areas[column])
    return verdict(
        name, site, areas[best] <= AREA, areas[best], AREA, f"best is {best}",
        f"{best} alone nearly gives the label away: raise sites.{site}.noise, or lower the weight "
        f"of depletion in data.scenarios or sites.{site}.scenarios",
        "sites.", "data.scenarios", "data.heterogeneity",
    )  # fmt: skip


def area(label: Bools, values: Floats) -> float:
    """Return the ROC-AUC of a column, in the better direction; 0.5 where it is undefined."""
    seen = ~np.isnan(values)
    label, values = label[seen], values[seen]
    positives = int(label.sum())
    negatives = len(label) - positives
    if min(positives, negatives) == 0:
        return 0.5
    rank = rankdata(values)  # ties share the mean rank
    found = (rank[label].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    return float(max(found, 1 - found))


def link_failures(site: str, profile: SiteProfile, made: Record) -> list[Gate]:
    """Return whether failures of the data link are there, and let nothing through."""
    if profile.scenarios[-1] == 0:
        return []
    name, where, through = "link failures", machine_slices(made.machine), 0
    expected = len(made.lives) * profile.scenarios[-1] / sum(profile.scenarios[:-1])
    if not made.links and expected < 3:
        return [skipped(name, site, 0.0, f"only {expected:.1f} failures of the link to expect")]
    for link in made.links:
        time = made.time[where.get(link.machine, slice(0))]
        through += int(((time >= link.begin) & (time < link.end)).sum())
    return [
        verdict(name, site, bool(made.links) and through == 0, through, 0.0,
                f"{len(made.links)} failures of the link, "
                f"{sum(link.rows for link in made.links):,} rows lost",
                "the data link never failed, or rows came through: raise data.days (--days)",
                "sites.", "data.")
    ]  # fmt: skip


def wanted_prevalence(wanted: float | None, skewed: bool, found: float | None) -> Gate:
    """Return whether the fleet has the share of rows before a failure that was asked for."""
    name, profile = "prevalence", "all sites"
    if wanted is None:
        return skipped(name, profile, WANTED, "no prevalence was asked for")
    if skewed:
        return skipped(name, profile, WANTED, "label_skew spreads it over sites on purpose")
    if found is None:
        return skipped(name, profile, WANTED, "of no row is it known whether it precedes a failure")
    off = abs(found / wanted - 1)
    return verdict(
        name, profile, off <= WANTED, off, WANTED, f"{found:.4f} of the rows",
        f"{found:.4f} of the rows precede a failure, not {wanted:g}: a fleet of this size is too "
        "small for it; raise sites.NAME.machines, replicas or data.days (--days)",
        "data.", "sites.",
    )  # fmt: skip


def reproducible(site: str, written: str, again: str) -> Gate:
    """Return whether what was read back is what the seed gives when asked again."""
    return verdict(
        "reproducible", site, written == again, float(written == again), 1.0,
        f"sha256 {written[:12]}…",
        "the files do not hold what the seed gives: this is a defect of the generator, report it",
    )  # fmt: skip

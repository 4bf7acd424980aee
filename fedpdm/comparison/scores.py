"""The scores of one setting: over its seeds, per site, and for what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpdm.comparison.runs import FinishedRun
from fedpdm.comparison.settings import Setting
from fedpdm.evaluation.wording import Metric, gain_against

VIEWS = {
    "global": "all test data together",
    "mean": "mean of sites",
    "worst": "worst site",
}
"""Ways to make one number of a run's test scores; the first is compared unless asked."""


@dataclass(frozen=True)
class Spread:
    """A number over seeds: mean, and standard deviation (n − 1; None for one seed)."""

    mean: float | None
    deviation: float | None


@dataclass(frozen=True)
class Standing:
    """One setting among those it is compared with.

    Attributes:
        setting: what was run.
        scores: each of ``VIEWS`` over the seeds.
        by_seed: the compared view's score, by seed.
        megabytes: exchanged in a run, both ways, mean over seeds.
        seconds: a run took without its baselines, mean over seeds.
        above_guess: the compared score above what guessing reaches; None if unknown.
        per_site: each site's score, by site and seed.
        alone: each site's score by the best model that it has by itself, likewise.
        curve: (megabytes, validation metric) per round, mean over the seeds.
    """

    setting: Setting
    scores: Mapping[str, Spread]
    by_seed: Mapping[int, float]
    megabytes: float | None
    seconds: float | None
    above_guess: float | None
    per_site: Mapping[str, Mapping[int, float]]
    alone: Mapping[str, Mapping[int, float]]
    curve: tuple[tuple[float, float], ...]

    @property
    def name(self) -> str:
        """What sets the setting apart from those it is compared with."""
        return self.setting.name

    @property
    def per_megabyte(self) -> float | None:
        """Score above guessing per megabyte exchanged."""
        return _ratio(self.above_guess, self.megabytes)

    @property
    def per_second(self) -> float | None:
        """Score above guessing per second."""
        return _ratio(self.above_guess, self.seconds)


PROCESSOR = "processor_seconds"


def clock_of(settings: Sequence[Setting]) -> str:
    """Return the time that all runs have: ``processor_seconds``, or ``seconds`` on the wall."""
    runs = [run for setting in settings for run in setting.runs.values()]
    return PROCESSOR if all(run.summary.get(PROCESSOR) for run in runs) else "seconds"


def standing_of(setting: Setting, view: str, chosen: Metric, clock: str) -> Standing:
    """Return a setting's scores in a metric.

    Args:
        setting: what was run.
        view: the score that is compared.
        chosen: the metric.
        clock: what ``clock_of`` says of all settings.
    """
    runs = setting.runs
    scores = {
        name: _known({seed: score_of(run, chosen, name) for seed, run in runs.items()})
        for name in VIEWS
    }
    by_seed = scores[view]
    guesses = _known({seed: guess_of(run, chosen, view) for seed, run in runs.items()})
    guess = mean_of(guesses.values()) if len(guesses) == len(runs) else None
    score = mean_of(by_seed.values())
    sites = list(dict.fromkeys(site for run in runs.values() for site in run.per_site))
    shared = {seed: run.per_site for seed, run in runs.items()}
    alone = {
        seed: run.baseline(gain_against(run.summary)).get("per_site") or {}
        for seed, run in runs.items()
    }
    curves = [run.curve for run in runs.values()] if chosen.name == setting.any.metric else []
    return Standing(
        setting,
        {name: spread_of(list(values.values())) for name, values in scores.items()},
        by_seed,
        mean_of(_known({seed: _megabytes(run) for seed, run in runs.items()}).values()),
        mean_of(_known({seed: _seconds(run, clock) for seed, run in runs.items()}).values()),
        None if guess is None or score is None else chosen.sign * (score - guess),
        _by_site(sites, shared, chosen),
        _by_site(sites, alone, chosen),
        _mean_curve(curves),
    )


def _by_site(
    sites: Sequence[str], runs: Mapping[int, Mapping[str, Any]], chosen: Metric
) -> dict[str, dict[int, float]]:
    return {
        site: _known({seed: number_of(run.get(site), chosen.name) for seed, run in runs.items()})
        for site in sites
    }


def score_of(run: FinishedRun, chosen: Metric, view: str) -> float | None:
    """Return a run's test score; None where it could not be computed.

    Where nobody may pool test rows (a deployment) the mean of sites stands for the whole.
    """
    if view == "worst":
        return number_of(run.per_site.get(worst_site(run, chosen) or ""), chosen.name)
    pooled = view == "global" and run.test.get("global") is not None
    return number_of(run.test.get("global" if pooled else "mean_site"), chosen.name)


def worst_site(run: FinishedRun, chosen: Metric) -> str | None:
    """Return the site that the run serves worst; None where no site has a score."""
    scores = {site: number_of(part, chosen.name) for site, part in run.per_site.items()}
    known = {site: chosen.sign * value for site, value in scores.items() if value is not None}
    return min(known, key=known.__getitem__) if known else None


def guess_of(run: FinishedRun, chosen: Metric, view: str) -> float | None:
    """Return what a constant answer scores: prevalence, one half, or the run's own baseline.

    For the worst site it is what guessing scores on that same site.
    """
    test, trivial = run.test, run.baseline("trivial")
    part = "global" if view == "global" else "mean_site"
    if view == "worst":
        part = worst_site(run, chosen) or ""
        test, trivial = run.per_site, trivial.get("per_site") or {}
    found = number_of(trivial.get(part), chosen.name)
    if found is not None:
        return found
    if chosen.name.startswith("average_precision"):
        suffix = chosen.name.removeprefix("average_precision")
        return number_of(test.get(part), "prevalence" + suffix)
    return 0.5 if chosen.name.startswith("roc_auc") else None


def spread_of(values: Sequence[float]) -> Spread:
    """Return mean and standard deviation of values."""
    return Spread(mean_of(values), float(np.std(values, ddof=1)) if len(values) > 1 else None)


def _mean_curve(
    curves: Sequence[tuple[tuple[float, float], ...]],
) -> tuple[tuple[float, float], ...]:
    known = [curve for curve in curves if curve]
    if not known:
        return ()
    length = min(len(curve) for curve in known)
    table = np.array([curve[:length] for curve in known]).mean(axis=0)
    return tuple((float(x), float(y)) for x, y in table)


def _megabytes(run: FinishedRun) -> float | None:
    sent = run.summary.get("bytes") or {}
    values = [v for k in ("up", "down") if (v := number_of(sent, k)) is not None]
    return sum(values) / 1e6 if values else None


def _seconds(run: FinishedRun, clock: str) -> float | None:
    spent = run.summary.get(clock) or {}
    if spent.get("training") is None:
        return number_of(spent, "total")
    return sum(float(spent.get(part) or 0.0) for part in ("setup", "training", "evaluation"))


def _known(values: Mapping[int, float | None]) -> dict[int, float]:
    return {seed: value for seed, value in values.items() if value is not None}


def number_of(part: Any, name: str) -> float | None:
    """Return a finite number of a part of summary.json, or None."""
    value = part.get(name) if isinstance(part, Mapping) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if np.isfinite(value) else None


def mean_of(values: Iterable[float]) -> float | None:
    """Return the mean; None of nothing."""
    known = list(values)
    return float(np.mean(known)) if known else None


def _ratio(value: float | None, cost: float | None) -> float | None:
    return None if value is None or not cost else value / cost

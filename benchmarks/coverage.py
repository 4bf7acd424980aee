"""How often do the intervals of a run hold the truth? Trials with machines that are made up.

    python -m benchmarks.coverage            cells that are missing, then the table
    python -m benchmarks.coverage --show     the table of what there is

The estimand is the metric over all windows of a population of machines (40,000 of them), for a
predictor that is already trained; the sample are the machines of one test part. Nominal level:
95 %. ``percentiles`` beside it are the plain percentiles of the same draws (of 1,000 trials).

The paired test of ``fedpdm.compare`` is asked how often it calls equal settings different, where
differences between seeds are skewed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from sklearn.metrics import average_precision_score

from fedpdm.comparison.statistics import paired_test
from fedpdm.data.rows import Floats, Split
from fedpdm.data.windows import Windows
from fedpdm.evaluation import confidence
from fedpdm.evaluation.bootstrap import Drawn
from fedpdm.evaluation.confidence import certainty
from fedpdm.federation import Site
from fedpdm.storage import write_json
from fedpdm.tasks import Failure, RemainingLife, Task

RESULTS = Path(__file__).parent / "results" / "coverage.json"
TRIALS, RESAMPLES, WINDOWS, POPULATION = 4000, 1000, 24, 40_000
MACHINES, SITES = (8, 16, 40), (1, 4)
KINDS: dict[str, tuple[float, float, float]] = {
    "half fail": (0.5, 1.5, 0.5),
    "all fail, hard": (1.0, 1.2, 0.6),
    "a third fails, easy": (0.3, 2.5, 0.3),
}
"""Share of the machines that fail, gap of the risk before a failure, spread between machines."""
SKEWED: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "normal": lambda random, shape: random.normal(size=shape),
    "exponential": lambda random, shape: random.exponential(size=shape) - 1,
    "log-normal": lambda random, shape: np.exp(0.5 * random.normal(size=shape)) - np.exp(0.125),
    "Student, 3": lambda random, shape: random.standard_t(3, size=shape),
}
PAIRS = (6, 10, 20)


def failures(random: np.random.Generator, machines: int, kind: str) -> tuple[Any, Floats, Floats]:
    """Return (M, W) truth and risks of two predictors, one of them a little worse."""
    share, gap, spread = KINDS[kind]
    length = np.where(random.random(machines) < share, random.integers(3, 9, machines), 0)
    back = np.arange(WINDOWS)[::-1]
    truth = back < length[:, None]
    ramp = np.clip(1 - back / np.maximum(length[:, None], 1), 0, 1)
    own = gap * np.exp(random.normal(0, 0.4, (machines, 1)))
    signal = np.where(truth, own * (0.4 + 0.6 * ramp), 0)
    first = random.normal(0, spread, (machines, 1)) + signal
    first = first + random.normal(0, 0.7, truth.shape)
    other = gap * np.where(truth, 0.3 * np.exp(random.normal(0, 0.4, (machines, 1))), 0)
    second = 0.7 * first + other + random.normal(0, max(spread, 0.5) / 2, (machines, 1))
    return truth, first, second + random.normal(0, 0.5, truth.shape)


def lives(random: np.random.Generator, machines: int, _: str) -> tuple[Any, Floats, Floats]:
    """Return (M, W) lives of 40 to 99 and what two predictors say; errors are a machine's own."""
    left = random.integers(40, 100, (machines, 1)) * np.ones((1, WINDOWS))
    own = random.gamma(2.0, 4.0, (machines, 1))
    both = random.normal(0, 1, (machines, 1))
    said = [left + own * (both + random.normal(0, 0.6, (machines, 1)))
            + random.normal(0, s, left.shape) for s in (3.0, 5.0)]  # fmt: skip
    return left, said[0], said[1]


def truth_of(task: Task, made: tuple[Any, Floats, Floats]) -> tuple[float, float]:
    """Return the metric of a population, and the gain of the first predictor."""
    target, *both = made
    if task.risks:
        values = [float(average_precision_score(target.ravel(), s.ravel())) for s in both]
        return values[0], values[0] - values[1]
    errors = [float(np.sqrt(np.mean((s - target) ** 2))) for s in both]
    return errors[0], errors[1] - errors[0]


def sites_of(target: Any, sites: int) -> Iterator[tuple[Site, Any]]:
    """Yield sites, and which machines are theirs."""
    for number in range(sites):
        own = np.arange(len(target)) % sites == number
        y = target[own].ravel()
        names = np.repeat([f"m{place}" for place in np.flatnonzero(own)], WINDOWS)
        none, time = np.zeros(len(y), dtype=bool), np.arange(len(y), dtype=np.float64)
        y = y.astype(np.int64) if y.dtype == bool else y.astype(np.float32)
        truth = y.astype(np.float64)
        x = np.zeros((len(y), 1), dtype=np.float32)
        yield Site(f"s{number}", {Split.TEST: Windows(x, y, truth, names, time, none, none)}), own


def cell(make: Any, kind: str, task: Task, machines: int, sites: int) -> dict[str, Any]:
    """Return how often intervals hold the truth, by number, and how many there are."""
    value, gain = truth_of(task, make(np.random.default_rng(7), POPULATION, kind))
    random = np.random.default_rng([machines, sites, len(kind)])
    held = {"value": 0, "gain": 0, "percentiles": 0}
    there = dict(held)
    widths: list[float] = []
    for trial in range(TRIALS):
        target, first, second = make(random, machines, kind)
        parts = list(sites_of(target, sites))
        ours, theirs = (
            {site.name: {Split.TEST: said[own].ravel()} for site, own in parts}
            for said in (first, second)
        )
        found = certainty(ours, {"other": theirs}, [site for site, _ in parts], task,
                          resamples=RESAMPLES, seed=trial)  # fmt: skip
        assert found is not None
        for name, entry, true in (
            ("value", found["global"], value),
            ("gain", found["gain"]["other"]["global"], gain),
        ):
            if entry["low"] is not None:
                there[name] += 1
                held[name] += entry["low"] <= true <= entry["high"]
                if name == "value":
                    widths.append(entry["high"] - entry["low"])
        if trial < 1000:
            with mock.patch.object(confidence, "bootstrap_t", percentiles):
                again = certainty(ours, {}, [site for site, _ in parts], task,
                                  resamples=RESAMPLES, seed=trial)  # fmt: skip
            assert again is not None
            if (entry := again["global"])["low"] is not None:
                there["percentiles"] += 1
                held["percentiles"] += entry["low"] <= value <= entry["high"]
    return {
        "truth": {"value": value, "gain": gain},
        "coverage": {name: held[name] / there[name] for name in held if there[name]},
        "intervals": there,
        "median_width": float(np.median(widths)) if widths else None,
        "trials": TRIALS,
    }


def percentiles(value: float, drawn: Drawn, *_: Any) -> tuple[float, float]:
    """Return the central 95 % of resamples."""
    low, high = np.nanquantile(drawn.values[1:], [0.025, 0.975])
    return float(low), float(high)


def cells() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the name of each cell and what measures it."""
    for machines in reversed(MACHINES):
        for sites in SITES:
            for kind in KINDS:
                name = f"average precision, {kind}, {machines} machines, {sites} sites"
                yield name, lambda k=kind, m=machines, s=sites: cell(failures, k, Failure(8), m, s)
            name = f"rmse, lives, {machines} machines, {sites} sites"
            task = RemainingLife(1000.0)
            yield name, lambda m=machines, s=sites, t=task: cell(lives, "lives", t, m, s)
    for law, draw in SKEWED.items():
        for pairs in PAIRS:
            yield f"paired test, {law}, {pairs} pairs", lambda d=draw, n=pairs: false_claims(d, n)


def false_claims(draw: Any, pairs: int) -> dict[str, Any]:
    """Return how often the paired test calls a difference of mean 0 real."""
    drawn = draw(np.random.default_rng(pairs), (TRIALS, pairs))
    parts = np.array_split(drawn, 80)  # of 20 pairs every flip of 50 trials takes 0.2 GB
    p_values = np.concatenate([paired_test(part) for part in parts])
    return {"false_claims": float(np.mean(p_values <= 0.05)), "trials": TRIALS}


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    for name, entry in found.items():
        if "coverage" in entry:
            covered = "  ".join(f"{k} {v:.3f}" for k, v in entry["coverage"].items())
            print(f"{name:58}  {covered}  of {entry['intervals']['value']}/{entry['trials']}")
        else:
            print(f"{name:58}  called different {entry['false_claims']:.3f}")


def main() -> None:
    """Measure what is missing, and show the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, measure in cells():
        if name not in found and not given.show:
            found[name] = measure()
            write_json(RESULTS, found)
            show({name: found[name]})
    if given.show:
        show(found)


if __name__ == "__main__":
    main()

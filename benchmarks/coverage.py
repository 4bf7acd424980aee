"""How often do the intervals of a run hold the truth? Trials with machines that are made up.

    python -m benchmarks.coverage            cells that are missing, then the tables
    python -m benchmarks.coverage --show     the tables of what there is, docs/decisions/042 too

The estimand is the metric over all windows of a population of machines (40,000 of them), for a
predictor that is already trained; the sample are the machines of one test part. All sites draw
from the same population, so that it is the truth of their mean too. Nominal level: 95 %.
``percentiles`` beside it are the plain percentiles of the same draws (of 1,000 trials).

A *twin* is as good as the first predictor by construction: how often is its gain called sure?

The paired test of ``fedpdm.compare`` is asked how often it calls equal settings different, where
differences between seeds are skewed.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from sklearn.metrics import average_precision_score

from benchmarks.coverage_tables import rewrite, show
from fedpdm.comparison.statistics import paired_test
from fedpdm.data.rows import Floats, Split
from fedpdm.data.windows import Windows
from fedpdm.evaluation import confidence
from fedpdm.evaluation.bootstrap import Drawn
from fedpdm.evaluation.confidence import certainty
from fedpdm.federation import Site
from fedpdm.promote.intervals import leaving_out
from fedpdm.storage import write_json
from fedpdm.tasks import Failure, RemainingLife, Task

RESULTS = Path(__file__).parent / "results" / "coverage.json"
PAGE = Path(__file__).parents[1] / "docs" / "decisions" / "042-intervals-that-cover.md"
TRIALS, RESAMPLES, WINDOWS, POPULATION = 4000, 1000, 24, 40_000
PERCENTILES = 1000
"""Trials in which percentiles are taken too."""
SIZES = ((16, 1), (16, 4), (8, 1), (8, 4), (40, 1), (40, 4), (40, 10))
"""Machines, and sites that they are at."""
RISKS: dict[str, tuple[float, float, float]] = {
    "half fail": (0.5, 1.5, 0.5),
    "all fail, hard": (1.0, 1.2, 0.6),
    "a third fails, easy": (0.3, 2.5, 0.3),
}
"""Share of the machines that fail, gap of the risk before a failure, spread between machines."""
LIVES: dict[str, tuple[Callable[[np.random.Generator, int], Floats], float]] = {
    "errors as of engines": (lambda random, n: np.full((n, 1), 10.0), 8.0),
    "errors of machines' own": (lambda random, n: np.full((n, 1), 10.0), 3.0),
    "heavy tails": (lambda random, n: random.gamma(2.0, 4.0, (n, 1)), 3.0),
}
"""Scale of a machine's own error, spread of the errors of its windows around that."""
CLASSES = ("every class", "a machine has one class", "half fail, in two ways")
SKEWED: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "normal": lambda random, shape: random.normal(size=shape),
    "exponential": lambda random, shape: random.exponential(size=shape) - 1,
    "log-normal": lambda random, shape: np.exp(0.5 * random.normal(size=shape)) - np.exp(0.125),
    "Student, 3": lambda random, shape: random.standard_t(3, size=shape),
}
PAIRS = (6, 10, 20)
Made = tuple[Any, Floats, Floats, Floats]
"""(M, W) truth, and what a predictor, its twin and another that is worse or better say."""


def failures(random: np.random.Generator, machines: int, kind: str) -> Made:
    """Return truth and risks of machines, of which some fail at the end."""
    share, gap, spread = RISKS[kind]
    length = np.where(random.random(machines) < share, random.integers(3, 9, machines), 0)
    back = np.arange(WINDOWS)[::-1]
    truth = back < length[:, None]
    ramp = np.clip(1 - back / np.maximum(length[:, None], 1), 0, 1)

    def said() -> Floats:
        own = gap * np.exp(random.normal(0, 0.4, (machines, 1)))
        level = random.normal(0, spread, (machines, 1))
        signal = np.where(truth, own * (0.4 + 0.6 * ramp), 0)
        return np.asarray(level + signal + random.normal(0, 0.7, truth.shape))

    first, twin = said(), said()
    other = gap * np.where(truth, 0.3 * np.exp(random.normal(0, 0.4, (machines, 1))), 0)
    second = 0.7 * first + other + random.normal(0, max(spread, 0.5) / 2, (machines, 1))
    return truth, first, twin, second + random.normal(0, 0.5, truth.shape)


def lives(random: np.random.Generator, machines: int, kind: str) -> Made:
    """Return lives of 40 to 99 and what is said of them; errors are a machine's own."""
    scale, noise = LIVES[kind]
    left = random.integers(40, 100, (machines, 1)) * np.ones((1, WINDOWS))
    own = scale(random, machines)
    both = random.normal(0, 1, (machines, 1))
    first, twin, second = (
        left + own * (both + random.normal(0, 0.6, (machines, 1)))
        + random.normal(0, spread, left.shape)
        for spread in (noise, noise, noise + 2)
    )  # fmt: skip
    return left, first, twin, second


def truth_of(task: Task, made: Made) -> dict[str, float]:
    """Return the metric of a population and the gain of the first predictor over another.

    Of lives also how unlike machines are: the squared coefficient of variation of their mean
    squared errors.
    """
    target, first, _, second = made
    if task.risks:
        values = [
            float(average_precision_score(target.ravel(), s.ravel())) for s in (first, second)
        ]
        return {"value": values[0], "gain": values[0] - values[1]}
    squares = [((s - target) ** 2).mean(axis=1) for s in (first, second)]
    errors = [float(np.sqrt(each.mean())) for each in squares]
    return {"value": errors[0], "gain": errors[1] - errors[0], "unlike": unlike(squares[0])}


def unlike(squares: Floats) -> float:
    """Return the squared coefficient of variation of machines' mean squared errors."""
    return float(squares.var() / squares.mean() ** 2)


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
    """Return how often intervals hold the truth and twins are called better or worse."""
    true = truth_of(task, make(np.random.default_rng(7), POPULATION, kind))
    random = np.random.default_rng([machines, sites, *kind.encode()])
    held, there, sure, judged = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    widths: dict[str, list[float]] = defaultdict(list)
    parts_of = {"": "global"} if sites == 1 else {"": "global", ", mean of sites": "mean_site"}
    for trial in range(TRIALS):
        target, *predicted = make(random, machines, kind)
        parts = list(sites_of(target, sites))
        ours, twin, other = (
            {site.name: {Split.TEST: said[own].ravel()} for site, own in parts}
            for said in predicted
        )
        tested = [site for site, _ in parts]
        found = certainty(ours, {"other": other, "twin": twin}, tested, task,
                          resamples=RESAMPLES, seed=trial)  # fmt: skip
        assert found is not None
        seen = {f"value{n}": (found[part], true["value"]) for n, part in parts_of.items()}
        gain = found["gain"]["other"]
        seen |= {f"gain{n}": (gain[part], true["gain"]) for n, part in parts_of.items()}
        if trial < PERCENTILES:
            with mock.patch.object(confidence, "bootstrap_t", percentiles):
                again = certainty(ours, {}, tested, task, resamples=RESAMPLES, seed=trial)
            assert again is not None
            seen["percentiles"] = again["global"], true["value"]
        for name, (entry, wanted) in seen.items():
            if entry["low"] is not None:
                there[name] += 1
                held[name] += entry["low"] <= wanted <= entry["high"]
                widths[name].append(entry["high"] - entry["low"])
        same = found["gain"]["twin"]
        asked = {part: [same[part]] for part in parts_of.values()}
        for part, entries in (asked | {"any site": [*same["per_site"].values()]}).items():
            if known := [entry["sure"] for entry in entries if entry["sure"] is not None]:
                judged[part] += 1
                sure[part] += any(known)
    return {
        "truth": true,
        "trials": TRIALS,
        "intervals": dict(there),
        "coverage": {name: held[name] / count for name, count in there.items()},
        "median_width": {name: float(np.median(each)) for name, each in widths.items()},
        "twins": {part: {"judged": n, "sure": sure[part]} for part, n in judged.items()},
    }


def percentiles(value: float, drawn: Drawn, *_: Any) -> tuple[float, float]:
    """Return the central 95 % of resamples."""
    low, high = np.nanquantile(drawn.values[1:], [0.025, 0.975])
    return float(low), float(high)


def engines(folder: Path) -> dict[str, Any]:
    """Return how unlike the engines of C-MAPSS are to boosted trees, one third held out.

    Of each part twice: with sensors and settings alone, and with the cycle.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    found = {}
    for part in ("FD001", "FD002", "FD003", "FD004"):
        rows = np.loadtxt(folder / f"train_{part}.txt")
        engine, cycle = rows[:, 0].astype(int), rows[:, 1]
        last = np.zeros(engine.max() + 1)
        np.maximum.at(last, engine, cycle)
        left = np.minimum(125, last[engine] - cycle)
        test = engine % 3 == 0
        for name, first in (("sensors", 2), ("sensors and cycle", 1)):
            model = HistGradientBoostingRegressor(random_state=0)
            model.fit(rows[~test, first:], left[~test])
            error = (model.predict(rows[test, first:]) - left[test]) ** 2
            count = np.bincount(engine[test])
            squares = np.bincount(engine[test], weights=error)[count > 0] / count[count > 0]
            found[f"{part}, {name}"] = unlike(squares)
    return {"unlike": found}


def classes(random: np.random.Generator, machines: int, kind: str) -> tuple[Any, Any]:
    """Return (M, W) classes of three and answers; machines are told apart unequally well."""
    target = random.choice(3, (machines, WINDOWS), p=(0.5, 0.3, 0.2))
    if kind == "a machine has one class":
        target[:] = target[:, :1]
    elif kind == "half fail, in two ways":
        back, length = np.arange(WINDOWS)[::-1], random.integers(3, 9, (machines, 1))
        fails = (random.random((machines, 1)) < 0.5) & (back < length)
        target = np.where(fails, random.integers(1, 3, (machines, 1)), 0)
    clear = 1.2 * np.exp(random.normal(0, 0.5, (machines, 1, 1)))
    level = random.normal(0, 0.8, (machines, 1, 3))
    said = clear * np.eye(3)[target] + level + random.normal(0, 0.8, (*target.shape, 3))
    return target, said.argmax(axis=2)


def macro_f1(target: Any, answer: Any) -> float:
    """Return the mean F1 of the classes that occur, of three."""
    both = np.bincount(3 * target + answer, minlength=9).reshape(3, 3)
    there, said = both.sum(axis=1), both.sum(axis=0)
    return float(np.mean((2 * both.diagonal() / np.maximum(there + said, 1))[there > 0]))


def left_out(kind: str, machines: int, sites: int) -> dict[str, Any]:
    """Return how often the jackknife's interval holds the gain in macro F1 over class 0."""
    random = np.random.default_rng([machines, sites, *kind.encode()])

    def gain(target: Any, answer: Any) -> float:
        return macro_f1(target, answer) - macro_f1(target, np.zeros_like(target))

    made = classes(np.random.default_rng(7), POPULATION, kind)
    true, held = gain(*(each.ravel() for each in made)), 0
    number = np.repeat(np.arange(machines), WINDOWS)
    order = np.argsort(number % sites, kind="stable")
    groups = np.split(number[order], np.flatnonzero(np.diff(number[order] % sites)) + 1)
    widths = []
    for _ in range(TRIALS):
        target, answer = (e.ravel()[order] for e in classes(random, machines, kind))
        found = leaving_out(lambda k, t=target, a=answer: gain(t[k], a[k]), groups)
        held += found["low"] <= true <= found["high"]
        widths.append(found["high"] - found["low"])
    return {
        "truth": {"gain": true}, "trials": TRIALS, "intervals": {"gain": TRIALS}, "twins": {},
        "coverage": {"gain": held / TRIALS}, "median_width": {"gain": float(np.median(widths))},
    }  # fmt: skip


def false_claims(draw: Any, pairs: int) -> dict[str, Any]:
    """Return how often the paired test calls a difference of mean 0 real."""
    drawn = draw(np.random.default_rng(pairs), (TRIALS, pairs))
    parts = np.array_split(drawn, 80)  # of 20 pairs every flip of 50 trials takes 0.2 GB
    p_values = np.concatenate([paired_test(part) for part in parts])
    return {"false_claims": float(np.mean(p_values <= 0.05)), "trials": TRIALS}


def cells() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the name of each cell and what measures it."""
    for machines, sites in SIZES:
        for kind in CLASSES:
            yield (
                f"macro F1 over a constant, jackknife | {kind} | {machines} | {sites}",
                lambda a=(kind, machines, sites): left_out(*a),
            )
    for law, draw in SKEWED.items():
        for pairs in PAIRS:
            yield f"paired test, {law}, {pairs} pairs", lambda d=draw, n=pairs: false_claims(d, n)
    folder = Path(os.environ.get("FEDPDM_DATA", "data")) / "cmapss"
    if folder.is_dir():
        yield "engines of C-MAPSS", lambda: engines(folder)
    kinds: Mapping[str, tuple[Any, Task, tuple[str, ...]]] = {
        "average precision": (failures, Failure(8), tuple(RISKS)),
        "rmse of lives": (lives, RemainingLife(1000.0), tuple(LIVES)),
    }
    for machines, sites in SIZES:
        for metric, (make, task, laws) in kinds.items():
            for kind in laws:
                yield (
                    f"{metric} | {kind} | {machines} | {sites}",
                    lambda a=(make, kind, task, machines, sites): cell(*a),
                )


def main() -> None:
    """Measure what is missing, and show the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, measure in cells():
        if name not in found and not given.show:
            found[name] = measure()
            write_json(RESULTS, found)
            rewrite(PAGE, found)
            print(show({name: found[name]}), flush=True)
    if given.show:
        rewrite(PAGE, found)
        print(show(found))


if __name__ == "__main__":
    main()

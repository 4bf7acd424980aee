"""What each gate asks, in the order of the decision: data first, the exported file last."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedpdm.data.rows import Floats, Split
from fedpdm.evaluation.drift import kolmogorov_smirnov, population_stability_index
from fedpdm.evaluation.scoring import score
from fedpdm.evaluation.wording import counted, gain_against, listing
from fedpdm.promote.evidence import Evidence
from fedpdm.promote.export import latency, parity
from fedpdm.promote.gates import Candidate, Found, gate
from fedpdm.promote.intervals import gain_over_constant
from fedpdm.tasks.metrics import expected_calibration_error

MOST_ROWS = 200_000
"""Rows of a split that drift is measured on."""


@gate(
    "data",
    "The run's files, its data and its test score are what they say they are.",
    "do not use any number of this run: find out what changed, and run it again",
    acceptable=False,
)
def data(candidate: Candidate) -> Found:
    """Files, data and test score are the run's."""
    evidence, bound = candidate.evidence, candidate.thresholds.reproduced
    said = evidence.summary["test"]["global"].get(evidence.task.primary)
    again = evidence.value()
    apart = None if said is None or again is None else abs(said - again)
    same_data = evidence.data_sha256 == evidence.manifest["data"]["sha256"]
    passed = same_data and apart is not None and apart <= bound
    flaws = [] if same_data else ["the data has changed since the run"]
    if apart is None:
        flaws.append(f"there is no test score to compare ({evidence.task.primary})")
    elif apart > bound:
        flaws.append(f"the weights score {again:.4f} on the test windows, the run says {said:.4f}")
    others = ", ".join(f"{name} {change}" for name, change in evidence.versions.items())
    sound = (
        f"{evidence.files} sealed files are sound, the data is the same, and the test score comes "
        f"out again ({again:.4f})" if passed else "; ".join(flaws)
    )  # fmt: skip
    return Found(
        passed,
        f"{sound}; other versions now: {others}" if others else sound,
        f"same data hash, sealed files, test score within {bound:g}",
        {"sealed_files": evidence.files, "data_sha256": evidence.data_sha256,
         "score": said, "score_again": again, "versions": dict(evidence.versions)},
    )  # fmt: skip


@gate(
    "splits",
    "No test window had a part in training, or in the choice of round, threshold or calibration.",
    "mend the split and run again: the test score is too good to be true",
    acceptable=False,
)
def splits(candidate: Candidate) -> Found:
    """Guards find no leak, and all that is chosen comes out again from validation windows."""
    evidence, flaws = candidate.evidence, []
    card, test = evidence.card, evidence.test
    if evidence.leak is not None:
        flaws.append(evidence.leak)
    if evidence.chosen != card["best_round"]:
        flaws.append(
            f"validation chooses round {evidence.chosen}, the run took {card['best_round']}"
        )
    chosen: dict[str, Any] = {"threshold": test.threshold, **test.card}
    for name, value in chosen.items():
        if not _alike(card.get(name) or None, value or None):
            flaws.append(
                f"the {name} that validation windows give is {_short(value)}, the run's is "
                f"{_short(card.get(name))}: it was not chosen on them"
            )
    return Found(
        not flaws,
        "; ".join(flaws)
        or "the guards find no leak; round, threshold and calibration come out again from "
        "validation windows alone",
        "leak guards pass; what was chosen is what validation windows choose",
        {"round": evidence.chosen, "threshold": test.threshold},
    )


@gate(
    "trivial",
    "The model knows more than the average of its training data.",
    "do not use it: a constant answer is as good; look at labels, features and training",
    acceptable=False,
)
def trivial(candidate: Candidate) -> Found:
    """The interval of the gain over the best constant lies above 0."""
    metric = candidate.evidence.task.primary
    criterion = f"95 % interval of the gain in {metric} over a constant lies above 0"
    gain = gain_over_constant(candidate.evidence, candidate.thresholds.resamples)
    if gain.get("low") is None:
        return Found(None, f"no interval: {gain.get('reason') or 'nothing to compare'}", criterion)
    said = (
        f"gain {gain['value']:+.3f}, 95 % interval {gain['low']:+.3f} to {gain['high']:+.3f}, of "
        f"{counted(gain['machines'], 'machine')}"
    )
    return Found(gain["low"] > 0, said, criterion, gain)


@gate(
    "quality",
    "The model answers as well as its use asks for.",
    "do not use it for this; more data, better labels or another model may help",
)
def quality(candidate: Candidate) -> Found | None:
    """Every metric that is asked of the task has at least its least value."""
    evidence = candidate.evidence
    asked = candidate.thresholds.quality.get(evidence.task.name, {})
    if not asked:
        return None
    criterion = ", ".join(f"{name} at least {least:g}" for name, least in asked.items())
    said = score(evidence.test.predictions, evidence.sites, evidence.task, Split.TEST)["global"]
    absent = [name for name in asked if said.get(name) is None]
    if absent:
        return Found(None, f"{listing(absent)} cannot be computed", criterion)
    below = [name for name, least in asked.items() if said[name] < least]
    numbers = {name: said[name] for name in asked}
    words = ", ".join(f"{name} {value:.3f}" for name, value in numbers.items())
    return Found(not below, words, criterion, numbers)


def _control(candidate: Candidate, name: str, words: str) -> Found:
    """Return whether the model is at least as good as a control on pooled data."""
    evidence, margin = candidate.evidence, candidate.thresholds.control_margin
    task = evidence.task
    criterion = (
        f"{task.primary} no worse than that of {words} on pooled data, margin {margin:g}; point "
        "values are compared, without an interval"
    )
    other = evidence.summary["test"].get("baselines", {}).get(name)
    if not other:
        left = evidence.summary.get("baselines_left_out", {}).get(name)
        return Found(None, left or f"the run was made without {words}", criterion)
    theirs, ours = other["global"][task.primary], evidence.value(list(other["per_site"]))
    if theirs is None or ours is None:
        return Found(None, f"{task.primary} cannot be computed on these windows", criterion)
    lead = _lead(ours, theirs, task.higher_is_better)
    return Found(
        lead >= -margin,
        f"{task.primary} {ours:.3f}, {words} {theirs:.3f}",
        criterion,
        {"model": ours, name: theirs, "lead": lead},
    )


@gate(
    "minirocket",
    "The network is worth more than random convolutions and a ridge.",
    "look at labels and splits first, then use MiniRocket, or say why not",
)
def minirocket(candidate: Candidate) -> Found:
    """No worse than MiniRocket."""
    return _control(candidate, "minirocket", "MiniRocket")


@gate(
    "trees",
    "The network is worth more than boosted trees.",
    "use the trees, or say why their rows cannot be pooled",
)
def trees(candidate: Candidate) -> Found:
    """No worse than boosted trees."""
    return _control(candidate, "hgb", "boosted trees")


@gate(
    "calibration",
    "Risks mean what they say; intervals of lives hold as often as promised.",
    "run again with evaluate.calibration=isotonic, or use the ranking only",
)
def calibration(candidate: Candidate) -> Found:
    """The calibration error of risks, or the coverage of intervals, is within bounds."""
    evidence, bounds = candidate.evidence, candidate.thresholds
    test: Any = evidence.test.parts["test"]
    if evidence.task.risks:
        bound = bounds.calibration_error
        criterion = f"expected calibration error at most {bound:g} for every risk"
        errors = {key: each["ece"] for key, each in test["calibration"]["after"].items()}
        known = {key: error for key, error in errors.items() if error is not None}
        if not known:
            return Found(None, "no test window", criterion)
        worst = max(known, key=known.__getitem__)
        said = f"{known[worst]:.3f}" + (f" (of {worst})" if len(known) > 1 else "")
        return Found(known[worst] <= bound, f"calibration error {said}", criterion, errors)
    if (error := _error_of_classes(evidence)) is not None:
        bound = bounds.calibration_error
        criterion = f"expected calibration error of the likeliest class at most {bound:g}"
        return Found(error <= bound, f"calibration error {error:.3f}", criterion, {"ece": error})
    intervals = test.get("intervals")
    if not intervals:
        return Found(None, "the scores are neither risks nor lives", "risks or lives")
    least = intervals["level"] - bounds.coverage_shortfall
    criterion = f"intervals cover at least {least:.0%} (promised: {intervals['level']:.0%})"
    if intervals["factor"] is None or intervals["coverage"] is None:
        return Found(None, intervals["reason"] or "no test window", criterion)
    numbers = {key: intervals[key] for key in ("level", "coverage", "width")}
    said = f"intervals cover {intervals['coverage']:.0%}"
    return Found(intervals["coverage"] >= least, said, criterion, numbers)


@gate(
    "sites",
    "No site is harmed: each does at least as well as with the best model of its own.",
    "leave that site its own model, or keep its layers at home (travels=body)",
)
def sites(candidate: Candidate) -> Found:
    """No site lies further behind its own model than the margin."""
    evidence, margin = candidate.evidence, candidate.thresholds.site_margin
    task = evidence.task
    criterion = f"no site more than {margin:g} behind the best model that it has by itself"
    against = gain_against(evidence.summary)
    alone = evidence.summary["test"].get("baselines", {}).get(against)
    if not alone:
        return Found(None, "the run was made without models of single sites", criterion)
    leads, unknown = {}, []
    for name in (site.name for site in evidence.sites):
        ours, theirs = evidence.value([name]), alone["per_site"].get(name)
        if ours is None:
            continue  # its test windows cannot judge any model
        if theirs is None or theirs[task.primary] is None:
            unknown.append(name)
        else:
            leads[name] = _lead(ours, theirs[task.primary], task.higher_is_better)
    harmed = [name for name, lead in leads.items() if lead < -margin]
    if not harmed and (unknown or not leads):
        said = f"{listing(unknown, most=5)} without a model of its own (baselines.max_plants)"
        return Found(None, said if unknown else f"no {task.primary} to compare", criterion, leads)
    worst = min(leads, key=leads.__getitem__)
    said = f"harmed: {listing(harmed, most=5)}; " if harmed else ""
    said += f"worst is {worst} with {leads[worst]:+.3f}, of {counted(len(leads), 'site')}"
    return Found(not harmed, said, criterion, leads)


@gate(
    "stability",
    "Another seed gives as good a model.",
    "train longer or with less noise; do not choose the luckiest seed",
)
def stability(candidate: Candidate) -> Found:
    """The test score varies little over seeds."""
    bound, scores = candidate.thresholds.seed_spread, candidate.seeds
    criterion = f"standard deviation over seeds at most {bound:g} (of errors: of their mean)"
    if len(scores) < 2:
        return Found(None, "no run of another seed was named (--seeds RUN,RUN)", criterion)
    values = np.array(list(scores.values()))
    spread = float(np.std(values, ddof=1))
    if not candidate.evidence.task.higher_is_better:
        spread /= max(float(np.mean(np.abs(values))), 1e-12)
    said = f"{spread:.3f} over {len(values)} seeds ({values.min():.3f} to {values.max():.3f})"
    return Found(spread <= bound, said, criterion, {"spread": spread, "scores": dict(scores)})


@gate(
    "augmentation",
    "Only training windows were resampled or changed.",
    "move resampling and augmentation behind the split",
    acceptable=False,
)
def augmentation(candidate: Candidate) -> Found:
    """No validation, test or held-out window was made up."""
    evidence = candidate.evidence
    training = evidence.manifest["config"].get("training", {})
    augment = {k: v for k, v in (training.get("augment") or {}).items() if v is not None}
    training = {"resample": training.get("resample"), "augment": augment}
    used = [key for key, value in training.items() if value]
    criterion = "no window outside training is made up"
    if not used:
        return Found(None, "the run used none", criterion)
    others = (Split.VALIDATION, Split.TEST, Split.HELDOUT)
    made = {
        site.name: sum(
            int(part.made.sum())
            for split in others
            if (part := site.windows[split]).made is not None
        )
        for site in evidence.sites
    }
    total = sum(made.values())
    said = f"training.{used[0]}={training[used[0]]}: {total} made-up windows outside training"
    return Found(total == 0, said, criterion, made)


@gate(
    "drift",
    "The features look in the test part as they did in training.",
    "watch the named features, and train again on newer rows",
)
def drift(candidate: Candidate) -> Found:
    """The population stability index of every feature, training to test, is small."""
    evidence, bound = candidate.evidence, candidate.thresholds.drift
    federation = evidence.experiment.federation
    criterion = f"population stability index of every feature at most {bound:g}"
    before, after = (_readings(candidate, split) for split in (Split.TRAIN, Split.TEST))
    numbers: dict[str, Any] = {}
    for place, name in enumerate(federation.source.features):
        index = population_stability_index(before[:, place], after[:, place])
        if index is not None:
            numbers[name] = {
                "psi": index, "ks": kolmogorov_smirnov(before[:, place], after[:, place])
            }  # fmt: skip
    if not numbers:
        return Found(None, "no readings to compare", criterion)
    worst = max(numbers, key=lambda name: numbers[name]["psi"])
    over = sum(each["psi"] > bound for each in numbers.values())
    said = f"largest {numbers[worst]['psi']:.3f} ({worst}, KS {numbers[worst]['ks']:.3f})"
    said += f"; {over} of {counted(len(numbers), 'feature')} above the bound" if over else ""
    return Found(not over, said, criterion, numbers)


@gate("latency", "One window is scored in time.", "choose a smaller model or a shorter window")
def one_window(candidate: Candidate) -> Found:
    """The median time of one window on one thread is short."""
    evidence = candidate.evidence
    model = evidence.summary["model"]
    bound, windows = candidate.thresholds.milliseconds_of(model), evidence.windows(1)
    criterion = f"median of one window on one thread below {bound:g} ms"
    if candidate.exported is None:
        return Found(None, candidate.no_file or "there is no file", criterion)
    if not len(windows):
        return Found(None, "no validation window", criterion)
    taken = latency(candidate.exported, windows[0])
    return Found(taken < bound, f"{taken:.3f} ms", criterion, {"milliseconds": taken})


@gate(
    "parity",
    "The exported file gives the scores of the trained model.",
    "do not use the file: export again, or predict with fedpdm.predict",
    acceptable=False,
)
def same_scores(candidate: Candidate) -> Found:
    """File and model agree on the run's validation windows."""
    evidence, bound = candidate.evidence, candidate.thresholds.parity
    criterion = f"scores of file and model at most {bound:g} apart on the validation windows"
    if candidate.exported is None:
        return Found(None, candidate.no_file or "there is no file", criterion)
    windows = evidence.windows()
    if not len(windows):
        return Found(None, "no validation window", criterion)
    apart = parity(candidate.exported, evidence.predictor.model.module, evidence.task, windows)
    said = f"at most {apart:.1e} apart on {counted(len(windows), 'window')}"
    return Found(apart <= bound, said, criterion, {"difference": apart, "windows": len(windows)})


def _error_of_classes(evidence: Evidence) -> float | None:
    """Return the calibration error of the likeliest class's probability; None without classes."""
    task, sites = evidence.task, [site for site in evidence.sites if len(site.test)]
    if not (task.per_class and task.columns and sites):
        return None
    scores = np.concatenate([evidence.test.predictions[site.name][Split.TEST] for site in sites])
    right = scores.argmax(axis=1) == np.concatenate([site.test.y for site in sites])
    return expected_calibration_error(right, scores.max(axis=1))


def _lead(ours: float, theirs: float, higher_is_better: bool) -> float:
    """Return how far we lead: a difference, or of errors a share of theirs."""
    return ours - theirs if higher_is_better else (theirs - ours) / max(abs(theirs), 1e-12)


def _readings(candidate: Candidate, split: Split) -> Floats:
    """Return (R, F) readings of a split at all sites, thinned out evenly if there are many."""
    evidence, federation = candidate.evidence, candidate.evidence.experiment.federation
    rows = [federation.rows(site.name) for site in evidence.sites]
    whole = np.concatenate([own.values[own.split == split] for own in rows])
    return np.asarray(whole[:: -(-len(whole) // MOST_ROWS)] if len(whole) else whole)


def _alike(said: Any, again: Any) -> bool:
    """Return whether two plain values agree but for the last digits of their numbers."""
    if isinstance(said, dict) and isinstance(again, dict):
        return said.keys() == again.keys() and all(_alike(said[key], again[key]) for key in said)
    if isinstance(said, list) and isinstance(again, list | tuple):
        return len(said) == len(again) and all(map(_alike, said, again))
    if isinstance(said, int | float) and isinstance(again, int | float):
        return bool(np.isclose(said, again, rtol=1e-4, atol=1e-6))
    return bool(said == again) or (said is None and again == float("inf"))


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"

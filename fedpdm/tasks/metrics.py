"""Metrics as plain functions of arrays, named as in scikit-learn where it has them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.rows import Floats

Metrics = dict[str, float | None]


def classification(target: NDArray[np.generic], scores: Floats) -> Metrics:
    """Return the metrics of (N,) failure probabilities against (N,) 0/1 targets.

    ``average_precision`` and ``roc_auc`` are None unless both classes occur.

    Raises:
        ValueError: a probability is no number.
    """
    truth = target.astype(np.int64)
    positives = int(truth.sum())
    precision, area = None, None
    if 0 < positives < len(truth):
        hits, alarms = _levels(truth, scores)
        precision, area = _average_precision(hits, alarms), _roc_auc(hits, alarms - hits)
    return {
        "average_precision": precision,
        "roc_auc": area,
        "brier": float(np.mean((scores - truth) ** 2)) if len(truth) else None,
        "ece": expected_calibration_error(truth, scores),
        "prevalence": positives / len(truth) if len(truth) else None,
        "n": float(len(truth)),
        "positives": float(positives),
    }


def _levels(truth: NDArray[np.int64], scores: Floats) -> tuple[Floats, Floats]:
    """Return (L,) failures in alarm and windows in alarm at each alarm level, the highest first.

    With the two functions below these are scikit-learn's formulas and, to the last bit, its
    numbers, in a thirtieth of the time: a run asks for hundreds, before it could be imported.
    """
    if not np.isfinite(scores).all():
        raise ValueError("scores contain NaN or infinity")
    order = np.argsort(-scores, kind="stable")
    ends = np.r_[np.flatnonzero(np.diff(scores[order])), len(scores) - 1]
    return np.cumsum(truth[order])[ends].astype(np.float64), ends + 1.0


def _average_precision(hits: Floats, alarms: Floats) -> float:
    """Return the sum over alarm levels of precision times the recall gained there."""
    precision, recall = (hits / alarms)[::-1], np.r_[(hits / hits[-1])[::-1], 0.0]
    return float(max(0.0, -np.sum(np.diff(recall) * precision)))


def _roc_auc(hits: Floats, false_alarms: Floats) -> float:
    """Return the area under the curve of hit rates over rates of false alarms."""
    corner = np.ones(len(hits), dtype=bool)  # points between two corners change rounding only
    corner[1:-1] = (np.diff(false_alarms, 2) != 0) | (np.diff(hits, 2) != 0)
    along, up = (np.r_[0.0, n[corner]] / n[-1] for n in (false_alarms, hits))
    return float(np.sum(np.diff(along) * (up[1:] + up[:-1]) / 2.0))


def of_classes(target: NDArray[np.generic], scores: Floats) -> Metrics:
    """Return the metrics of (N, C) probabilities of classes against (N,) class numbers.

    ``accuracy``, ``macro_precision``, ``macro_recall`` and ``macro_f1`` are of the likeliest
    class; a macro mean counts every class alike that occurs, and a class that is never answered
    has precision 0. ``log_loss`` is of the probabilities, in nats.
    """
    from sklearn.metrics import precision_recall_fscore_support

    names = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "log_loss")
    if len(target) == 0:
        return dict.fromkeys(names) | {"n": 0.0}
    truth, answer = target.astype(np.int64), scores.argmax(axis=1)
    macro = precision_recall_fscore_support(
        truth, answer, labels=np.unique(truth), average="macro", zero_division=0.0
    )
    said = np.maximum(scores[np.arange(len(truth)), truth], np.finfo(np.float64).tiny)
    values = (np.mean(truth == answer), *macro[:3], -np.mean(np.log(said)))
    found: Metrics = {name: float(value) for name, value in zip(names, values, strict=True)}
    return found | {"n": float(len(truth))}


def at_threshold(target: NDArray[np.generic], scores: Floats, threshold: float) -> Metrics:
    """Return what alarms at ``scores >= threshold`` are worth, and the four counts.

    ``f1``, ``mcc``, ``precision``, ``recall``, ``false_alarm_rate`` (share of the healthy
    windows in alarm); counts of windows: ``hits``, ``false_alarms``, ``missed``, ``quiet``.
    """
    truth, alarm = target.astype(bool), scores >= threshold
    hits, alarms, failures = int((truth & alarm).sum()), int(alarm.sum()), int(truth.sum())
    healthy = len(truth) - failures
    both = 0 < failures < len(truth)
    return {
        "threshold": float(threshold),
        "f1": 2 * hits / (alarms + failures) if both else None,
        "precision": hits / alarms if alarms else None,
        "recall": hits / failures if failures else None,
        "mcc": _matthews(len(truth), hits, alarms, failures) if both else None,
        "false_alarm_rate": (alarms - hits) / healthy if healthy else None,
        "hits": float(hits),
        "false_alarms": float(alarms - hits),
        "missed": float(failures - hits),
        "quiet": float(healthy - alarms + hits),
    }


def _matthews(windows: int, hits: int, alarms: int, failures: int) -> float:
    """Return Matthews' correlation of alarms and failures; 0 where all or none are in alarm."""
    right = windows - alarms - failures + 2 * hits
    quiet, healthy = windows - alarms, windows - failures
    spread = (windows**2 - quiet**2 - alarms**2) * (windows**2 - healthy**2 - failures**2)
    together = right * windows - healthy * quiet - failures * alarms
    return float(together / np.sqrt(float(spread))) if spread else 0.0


def expected_calibration_error(
    target: NDArray[np.generic], scores: Floats, bins: int = 10
) -> float | None:
    """Return the expected calibration error over equal-width bins (Guo et al. 2017).

    A constant score of 0.5 where 30 % fail gives 0.20.
    """
    index = np.minimum((scores * bins).astype(np.int64), bins - 1)
    return _calibration_error(target, scores, index, bins)


def _calibration_error(
    target: NDArray[np.generic], scores: Floats, index: NDArray[np.int64], bins: int
) -> float | None:
    """Return the mean distance of scores and targets over bins, by (N,) numbers of the bins."""
    said, came = (
        np.bincount(index, weights=values, minlength=bins)
        for values in (scores, target.astype(np.float64))
    )
    return float(np.abs(said - came).sum() / len(target)) if len(target) else None


def equal_mass_bins(scores: Floats, bins: int = 10) -> NDArray[np.int64]:
    """Return (N,) numbers of up to ``bins`` bins of about equal size; equal scores share one."""
    if len(scores) == 0:
        return np.zeros(0, dtype=np.int64)
    edges = np.unique(np.quantile(scores, np.arange(1, bins) / bins, method="higher"))
    found = np.searchsorted(edges, scores, side="right")
    return np.asarray(np.unique(found, return_inverse=True)[1], dtype=np.int64)


def equal_mass_calibration_error(
    target: NDArray[np.generic], scores: Floats, bins: int = 10
) -> float | None:
    """Return the calibration error over bins of about equal size (Nixon et al. 2019).

    Where failures are rare, equal widths put nearly all windows into one bin; equal sizes
    look where the scores are.
    """
    index = equal_mass_bins(scores, bins)
    return _calibration_error(target, scores, index, int(index.max(initial=-1)) + 1)


def reliability(
    target: NDArray[np.generic], scores: Floats, bins: int = 10
) -> list[dict[str, float]]:
    """Return the reliability curve: per bin of about equal size what was said and what came.

    Keys ``low``, ``high`` (scores), ``n`` (windows), ``score`` (mean), ``share`` (of failures).
    """
    index = equal_mass_bins(scores, bins)
    result = []
    for number in range(int(index.max(initial=-1)) + 1):
        said = scores[index == number]
        result.append({
            "low": float(said.min()), "high": float(said.max()), "n": float(len(said)),
            "score": float(said.mean()),
            "share": float(target[index == number].astype(np.float64).mean()),
        })  # fmt: skip
    return result


def detailed(target: NDArray[np.generic], scores: Floats) -> Metrics:
    """Return what a final test adds to ``classification``: ``lift`` and ``ece_mass``.

    The lift is the average precision as a multiple of the prevalence, which is what a
    constant score reaches.
    """
    values = classification(target, scores)
    precision, prevalence = values["average_precision"], values["prevalence"]
    return {
        "lift": precision / prevalence if precision is not None and prevalence else None,
        "ece_mass": equal_mass_calibration_error(target, scores),
    }


def capped(truth: Floats, cap: float) -> Floats:
    """Return (N,) remaining lives, at most ``cap``; NaN is a life whose end was not seen."""
    return np.asarray(np.minimum(np.where(np.isnan(truth), cap, truth), cap))


def remaining_life(truth: Floats, predicted: Floats, cap: float) -> Metrics:
    """Return ``rmse`` (truth capped), ``rmse_uncapped``, ``mae`` and ``nasa_score``.

    A truth of NaN is a life whose end was not seen, watched for at least ``cap``: it counts
    as ``cap``, and not in ``rmse_uncapped``.
    """
    if len(truth) == 0:
        return dict.fromkeys(("rmse", "rmse_uncapped", "mae", "nasa_score"), None) | {"n": 0.0}
    seen = ~np.isnan(truth)
    known = capped(truth, cap)
    beyond = (predicted - truth)[seen]
    return {
        "rmse": float(np.sqrt(np.mean((predicted - known) ** 2))),
        "rmse_uncapped": float(np.sqrt(np.mean(beyond**2))) if seen.any() else None,
        "mae": float(np.mean(np.abs(predicted - known))),
        "nasa_score": nasa_score(known, predicted),
        "n": float(len(truth)),
    }


def detailed_life(truth: Floats, predicted: Floats, cap: float) -> Metrics:
    """Return what a final test adds to ``remaining_life``.

    ``nasa_score_mean`` per window (a sum cannot be compared over data sets), and against the
    uncapped truth ``mae_uncapped`` and ``nasa_score_uncapped``.
    """
    seen = ~np.isnan(truth)
    told = truth[seen], predicted[seen]
    score = nasa_score(capped(truth, cap), predicted)
    return {
        "nasa_score_mean": score / len(truth) if len(truth) else None,
        "mae_uncapped": float(np.mean(np.abs(told[1] - told[0]))) if seen.any() else None,
        "nasa_score_uncapped": nasa_score(*told) if seen.any() else None,
    }


def nasa_score(truth: Floats, predicted: Floats) -> float:
    """Return the PHM'08 score, a sum over machines (Saxena et al. 2008, eq. in section 4).

    d = predicted - true; exp(-d/13) - 1 if d < 0, else exp(d/10) - 1: late is worse.
    """
    late = predicted - truth
    return float(np.sum(np.where(late < 0, np.expm1(-late / 13.0), np.expm1(late / 10.0))))

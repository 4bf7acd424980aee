"""Metrics as plain functions of arrays. Names are scikit-learn's where it has one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.rows import Floats

Metrics = dict[str, float | None]


def classification(target: NDArray[np.generic], scores: Floats) -> Metrics:
    """Return the metrics of (N,) failure probabilities against (N,) 0/1 targets.

    ``average_precision`` and ``roc_auc`` are None unless both classes occur.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    truth = target.astype(np.int64)
    positives = int(truth.sum())
    both = 0 < positives < len(truth)
    return {
        "average_precision": float(average_precision_score(truth, scores)) if both else None,
        "roc_auc": float(roc_auc_score(truth, scores)) if both else None,
        "brier": float(np.mean((scores - truth) ** 2)) if len(truth) else None,
        "ece": expected_calibration_error(truth, scores),
        "prevalence": positives / len(truth) if len(truth) else None,
        "n": float(len(truth)),
        "positives": float(positives),
    }


def at_threshold(target: NDArray[np.generic], scores: Floats, threshold: float) -> Metrics:
    """Return ``f1``, ``mcc``, ``precision`` and ``recall`` of alarms at ``scores >= threshold``."""
    from sklearn.metrics import matthews_corrcoef

    truth, alarm = target.astype(bool), scores >= threshold
    hits, alarms, failures = int((truth & alarm).sum()), int(alarm.sum()), int(truth.sum())
    both = 0 < failures < len(truth)
    return {
        "threshold": float(threshold),
        "f1": 2 * hits / (alarms + failures) if both else None,
        "precision": hits / alarms if alarms else None,
        "recall": hits / failures if failures else None,
        "mcc": float(matthews_corrcoef(truth, alarm)) if both else None,
    }


def best_f1_threshold(target: NDArray[np.generic], scores: Floats) -> float | None:
    """Return the threshold of the greatest F1; None unless both classes occur.

    To be called with validation data only.
    """
    from sklearn.metrics import precision_recall_curve

    truth = target.astype(np.int64)
    if not 0 < truth.sum() < len(truth):
        return None
    precision, recall, thresholds = precision_recall_curve(truth, scores)
    total = np.maximum(precision + recall, 1e-12)
    return float(thresholds[np.argmax((2 * precision * recall / total)[:-1])])


def expected_calibration_error(
    target: NDArray[np.generic], scores: Floats, bins: int = 10
) -> float | None:
    """Return the expected calibration error over equal-width bins (Guo et al. 2017).

    A constant score of 0.5 where 30 % fail gives 0.20.
    """
    if len(target) == 0:
        return None
    index = np.minimum((scores * bins).astype(np.int64), bins - 1)
    count = np.bincount(index, minlength=bins)
    gap = np.abs(
        np.bincount(index, weights=scores, minlength=bins)
        - np.bincount(index, weights=target.astype(np.float64), minlength=bins)
    )
    return float(gap.sum() / count.sum())


def remaining_life(truth: Floats, predicted: Floats, cap: float) -> Metrics:
    """Return ``rmse`` (truth capped), ``rmse_uncapped``, ``mae`` and ``nasa_score``.

    A truth of NaN is a life whose end was not seen, watched for at least ``cap``: it counts
    as ``cap``, and not in ``rmse_uncapped``.
    """
    if len(truth) == 0:
        return dict.fromkeys(("rmse", "rmse_uncapped", "mae", "nasa_score"), None) | {"n": 0.0}
    seen = ~np.isnan(truth)
    capped = np.minimum(np.where(seen, truth, cap), cap)
    return {
        "rmse": float(np.sqrt(np.mean((predicted - capped) ** 2))),
        "rmse_uncapped": float(np.sqrt(np.mean((predicted - truth)[seen] ** 2)))
        if seen.any()
        else None,
        "mae": float(np.mean(np.abs(predicted - capped))),
        "nasa_score": nasa_score(capped, predicted),
        "n": float(len(truth)),
    }


def nasa_score(truth: Floats, predicted: Floats) -> float:
    """Return the PHM'08 score, a sum over machines (Saxena et al. 2008, eq. in section 4).

    d = predicted - true; exp(-d/13) - 1 if d < 0, else exp(d/10) - 1: late is worse.
    """
    late = predicted - truth
    return float(np.sum(np.where(late < 0, np.expm1(-late / 13.0), np.expm1(late / 10.0))))

"""A check for leaks: shuffled labels must score like labels that are shuffled again.

Average precision of chance is the prevalence only on average over much data; of few windows
it lies above it, the more the fewer failures there are. So a run with shuffled labels is
compared with its own test labels, shuffled again many times for the same scores: an exact
permutation test, also over pooled windows, as labels stay in their sites. Of ``rotated``
labels it is exact up to copies where no machine is in training and test both. Where machines
are cut in time, their turned labels hang together across the cut, and the test is nearly exact:
of 60 made-up fleets without a leak 1 to 3 scored above, where 0.3 were meant to. So look at
another seed before believing a value just outside.

Which leaks each way of shuffling shows, and which none does: ``fedpdm.data.leakage.label_shuffle``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.leakage.label_shuffle import LabelShuffle
from fedpdm.data.rows import Floats, Split
from fedpdm.evaluation.scoring import Predictions
from fedpdm.federation import Site
from fedpdm.tasks import Task

DRAWS = 1000
LEVEL = 0.99


def check(
    predictions: Predictions, sites: Sequence[Site], task: Task, shuffle: LabelShuffle
) -> dict[str, Any]:
    """Return the score with shuffled labels beside its distribution over other shuffles.

    Returns:
        ``global``, ``mean_site`` and ``per_site``, each with ``value`` (average precision, the
        mean over horizons), ``prevalence``, ``low`` and ``high`` (central 99 % of other
        shuffles), ``p`` (share of shuffles that score at least as high) and ``within``.
    """
    result: dict[str, Any] = {"kind": shuffle.kind, "draws": DRAWS, "level": LEVEL}
    if not task.risks or task.primary != "average_precision":
        return result | {"reason": f"{task.primary} has no prevalence to fall to"}
    labels = {site.name: _labels(site, shuffle) for site in sites if len(site.test)}
    scores = {name: predictions[name][Split.TEST] for name in labels}
    values = {name: _score(task, labels[name], scores[name]) for name in labels}
    shares = {name: float(np.mean(own[0])) for name, own in labels.items()}
    known = [v for v in values.values() if not np.isnan(v[0])]
    every = np.concatenate(list(labels.values()), axis=1) if labels else np.zeros((1, 0))
    together = np.concatenate(list(scores.values())) if labels else np.zeros(0)
    return result | {
        "global": _judged(_score(task, every, together), float(np.mean(every[0])))
        if labels
        else None,
        "mean_site": _judged(
            np.mean(known, axis=0),
            float(np.mean([shares[n] for n, v in values.items() if not np.isnan(v[0])])),
        )
        if known
        else None,
        "per_site": {name: _judged(values[name], shares[name]) for name in values},
    }


def average_precisions(labels: NDArray[np.generic], scores: Floats) -> Floats:
    """Return (B,) average precision of (N,) scores for (B, N) 0/1 labels; NaN without both."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # ties share a level
    hits = np.cumsum(labels[:, order].astype(np.float64), axis=1)[:, ends]
    gained = np.diff(hits, axis=1, prepend=0.0)
    total = hits[:, -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (gained * hits / (ends + 1)).sum(axis=1) / total[:, 0]
    mixed = (total[:, 0] > 0) & (total[:, 0] < len(scores))
    return np.asarray(np.where(mixed, found, np.nan))


def _score(task: Task, labels: NDArray[np.generic], scores: Floats) -> Floats:
    """Return (1 + B,) of the run's own labels, and of others."""
    parts = []
    for risk in task.risks:
        own = labels if risk.column is None else labels[:, :, risk.column]
        parts.append(average_precisions(own, np.asarray(risk.of(scores), dtype=np.float64)))
    return np.asarray(np.mean(parts, axis=0))


def _labels(site: Site, shuffle: LabelShuffle) -> NDArray[np.generic]:
    """Return (1 + B, N) or (1 + B, N, H) labels: the run's own, and others."""
    others = shuffle.again(site.test, site.name, DRAWS)
    return np.asarray(site.test.y[np.vstack([np.arange(len(site.test)), others])])


def _judged(values: Floats, prevalence: float) -> dict[str, Any]:
    value, others = float(values[0]), values[1:]
    if np.isnan(value):
        return {"value": None, "prevalence": prevalence, "low": None, "high": None, "p": None,
                "within": None}  # fmt: skip
    low, high = np.quantile(others, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {
        "value": value,
        "prevalence": prevalence,
        "low": float(low),
        "high": float(high),
        "p": float((1 + np.sum(others >= value)) / (1 + len(others))),
        "within": bool(low <= value <= high),
    }

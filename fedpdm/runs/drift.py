"""What a run was trained on, as few numbers, and how far new rows lie from it.

A run keeps quantiles of each sensor's readings and of its model's scores, per site: enough for
drift (``fedpdm.evaluation.drift``), bounded, and no row (docs/decisions/040). Only the distances
are shown: readings of one machine follow each other, so a p-value would call any two samples
different. Shapes: R rows, F features, S scores, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedpdm.data.rows import Floats, Split
from fedpdm.errors import HistoryError
from fedpdm.evaluation.drift import kolmogorov_smirnov, population_stability_index
from fedpdm.evaluation.scoring import Predictions, predict
from fedpdm.federation import Federation, Site
from fedpdm.history.sealed import read_sealed
from fedpdm.storage import Arrays, parse_tensors

if TYPE_CHECKING:
    from fedpdm.runs.experiment import Experiment

NAME = "drift.safetensors"
POINTS = 1001
"""Quantiles that are kept: the largest error of a distance is a thousandth."""
MOST_SITES = 50
MUCH = 0.25
"""A stability index above it is called drift, as in gate ``drift`` (Siddiqi 2006)."""


def quantiles(values: Floats) -> Floats:
    """Return (Q, F) quantiles of (R, F) values, without NaN; a column without any is all NaN."""
    result = np.full((POINTS, values.shape[1]), np.nan)
    for place, column in enumerate(values.T):
        known = column[~np.isnan(column)]
        if len(known):
            result[:, place] = np.quantile(known, np.linspace(0, 1, POINTS))
    return result


def readings(federation: Federation, site: str) -> Floats:
    """Return (R, F) training readings of a site's sensors, in raw units."""
    rows = federation.rows(site)
    count = len(federation.features.sensors(rows.features))
    return rows.values[rows.split == Split.TRAIN, :count]


def reference(federation: Federation, sites: Sequence[Site], scores: Predictions) -> Arrays:
    """Return ``readings/SITE`` of training rows and ``scores/SITE`` of validation windows.

    Args:
        federation: the sites' data.
        sites: the evaluated sites; the first ``MOST_SITES`` are kept.
        scores: of the chosen model.
    """
    result: Arrays = {}
    for site in sites[:MOST_SITES]:
        result[f"readings/{site.name}"] = quantiles(readings(federation, site.name))
        if len(found := scores[site.name][Split.VALIDATION]):
            result[f"scores/{site.name}"] = quantiles(found.reshape(len(found), -1))
    return result


def stored_reference(folder: Path, features: int) -> Arrays:
    """Return the reference of the run in ``folder``.

    Raises:
        HistoryError: it has none, or a damaged one.
    """
    path = folder / NAME
    if not path.exists():
        raise HistoryError(
            f"{folder} keeps no readings to measure drift from: it is not finished, deployed, or "
            "of an older version; train again with init"
        )
    arrays = parse_tensors(read_sealed(folder, NAME), path)
    for name, array in arrays.items():
        wide = features if name.startswith("readings/") else None
        if array.ndim != 2 or len(array) != POINTS or wide not in (None, array.shape[1]):
            raise HistoryError(f"{path} is damaged: {name} has shape {array.shape}")
    return arrays


def before(stored: Mapping[str, Floats], kind: str, site: str | None) -> Floats | None:
    """Return the ``readings`` or ``scores`` of a site in a reference, or of all it has."""
    own = stored.get(f"{kind}/{site}")
    every = [array for name, array in stored.items() if name.startswith(f"{kind}/")]
    return own if own is not None else np.concatenate(every) if every else None


def distances(old: Floats, new: Floats, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return ``psi`` and ``ks`` of each column that both have, the most drifted first.

    Args:
        old: (Q, F).
        new: (R, F).
        names: of the columns.
    """
    found = {}
    for place, name in enumerate(names):
        psi = population_stability_index(old[:, place], new[:, place])
        ks = kolmogorov_smirnov(old[:, place], new[:, place])
        if psi is not None and ks is not None:
            found[name] = {"psi": psi, "ks": ks}
    return dict(sorted(found.items(), key=lambda item: -item[1]["psi"]))


def drift_since(experiment: Experiment, sites: Sequence[Site]) -> dict[str, Any] | None:
    """Return how far the training rows lie from those of the run that ``init`` names.

    Scores are those of that run's model, where all of it was taken over with its scaler.

    Args:
        experiment: what is run.
        sites: the evaluated sites.
    """
    start, task = experiment.start, experiment.task
    if start is None or not start.reference:
        return None
    scores: Predictions = {}
    if start.record["scope"] == "whole" and start.scaler is not None:
        module = experiment.build_model().module.to(experiment.device)
        scores = predict(module, sites[:MOST_SITES], task, experiment.device)
    per_site, federation = {}, experiment.federation
    sensors = federation.features.sensors(federation.source.features)
    for site in sites[:MOST_SITES]:
        new = readings(federation, site.name)
        old = before(start.reference, "readings", site.name)
        assert old is not None
        own = {"readings": distances(old, new, sensors)}
        old = before(start.reference, "scores", site.name)
        if old is not None and site.name in scores:
            found = scores[site.name][Split.VALIDATION]
            new = found.reshape(len(found), -1) if len(found) else np.zeros((0, 0))
            if new.shape[1] == old.shape[1] == len(task.score_columns):
                own["scores"] = distances(old, new, task.score_columns)
        per_site[site.name] = own
    return {"since": start.record["run"], "much": MUCH, "per_site": per_site}

"""The test of a round's weights: once, on windows that chose nothing.

A simulation tries them on all sites at once, a deployed site on itself alone; the order
is the same: scores, calibration and thresholds from validation data, then the numbers of
test and held-out windows (docs/summary.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fedpdm.data.rows import Split
from fedpdm.evaluation import calibration
from fedpdm.evaluation import shuffled_labels as shuffled
from fedpdm.evaluation import test_details as findings
from fedpdm.evaluation.censoring import censoring_of, presence
from fedpdm.evaluation.scoring import Predictions, predict_site, score, without_padding
from fedpdm.evaluation.settings import Protocol
from fedpdm.evaluation.site_thresholds import (
    SiteThresholds,
    add_alarms,
    choose_thresholds,
    described,
)
from fedpdm.federation import Federation, Site

SPLITS = (Split.VALIDATION, Split.TEST, Split.HELDOUT)


@dataclass(frozen=True)
class FinalTest:
    """What was found.

    Attributes:
        sites: the sites that were tested.
        predictions: calibrated scores on their windows.
        threshold: of the nearest risk, for all sites; None without one.
        parts: ``validation``, ``test`` and ``heldout`` as ``score`` makes them, and what else
            is said of the test; ``heldout`` is None where no site holds machines out.
        card: what ``predict`` needs of it.
    """

    sites: tuple[Site, ...]
    predictions: Predictions
    threshold: float | None
    parts: Mapping[str, dict[str, Any] | None]
    card: Mapping[str, Any]


def run_final_test(
    model_of: Callable[[str], nn.Module],
    sites: Sequence[Site],
    federation: Federation,
    device: torch.device,
    protocol: Protocol,
) -> FinalTest:
    """Test weights on sites.

    Thresholds and calibration are chosen on the sites' pooled validation windows: on a
    site's own, if it is asked alone. Where test machines are cut before they fail and
    validation machines are not, validation windows are weighed by how likely they would
    still be seen (``censoring.presence``).

    Args:
        model_of: the model that predicts for a site, by its name; used before the next is asked
            for.
        sites: the sites.
        federation: where their rows are.
        device: where the models are.
        protocol: what is to be said.
    """
    task, source = federation.task, federation.source
    raw = {s.name: predict_site(model_of(s.name), s, task, device, SPLITS) for s in sites}
    censoring = {
        site.name: dict(
            zip(SPLITS, censoring_of(federation.rows(site.name), *_windows(site)), strict=True)
        )
        for site in sites
    }
    weights = None
    if source.test_truncated:
        weights = {name: presence(own[Split.VALIDATION]) for name, own in censoring.items()}
    scale = None
    if task.risks and any(len(site.validation) for site in sites):
        scale = calibration.fit(
            protocol.calibration,
            np.concatenate([site.validation.y for site in sites]),
            np.concatenate([raw[site.name][Split.VALIDATION] for site in sites]),
            None if weights is None else np.concatenate([weights[site.name] for site in sites]),
        )
    predictions = raw if scale is None else _calibrated(raw, scale)
    levels = choose_thresholds(protocol.policy, predictions, sites, task, weights)
    parts: dict[str, dict[str, Any] | None] = {}
    for split in SPLITS:
        result = score(predictions, sites, task, split)
        add_alarms(result, predictions, sites, split, task, levels)
        parts[split.name.lower()] = result
    test, heldout = parts["test"], parts["heldout"]
    assert test is not None and heldout is not None
    if (full := without_padding(predictions, sites, task)) is not None:
        test["full_windows"] = full
    test["thresholds"] = described(protocol.policy, levels, predictions, sites, task, weights)
    test["spread"] = findings.spread(test["per_site"], task)
    test["calibration"] = findings.calibrated(raw, predictions, sites, task, scale, protocol)
    test["reliability"] = findings.reliability(predictions, sites, task)
    for split, result in ((Split.TEST, test), (Split.HELDOUT, heldout)):
        if federation.shuffle is not None:
            result["alarms"] = {"reason": "labels are shuffled: nothing follows an alarm"}
            continue
        result["alarms"] = findings.alarms(
            predictions, sites, censoring, split, task, levels, protocol, source.time_unit
        )
    test["shuffled"] = None
    if federation.shuffle is not None:
        test["shuffled"] = shuffled.check(predictions, sites, task, federation.shuffle)
    test["intervals"] = None
    interval = None
    if task.life_cap is not None:
        interval, test["intervals"] = findings.intervals(
            predictions, sites, task.life_cap, protocol.interval, source.shares_machines
        )
    if not any(len(site.heldout) for site in sites):
        parts["heldout"] = None
    nearest = task.risks[0].key if task.risks else None
    card = {
        "thresholds": {} if nearest is None else _own(levels, nearest),
        "calibration": None if scale is None else scale.described(),
        "interval": interval,
    }
    common = None if nearest is None else levels.common.get(nearest)
    return FinalTest(tuple(sites), predictions, common, parts, card)


def _windows(site: Site) -> list[Any]:
    return [site.windows[split] for split in SPLITS]


def _calibrated(raw: Predictions, scale: calibration.Calibration) -> Predictions:
    return {
        name: {split: scale(scores) for split, scores in own.items()} for name, own in raw.items()
    }


def _own(levels: SiteThresholds, key: str) -> dict[str, float]:
    """Return the sites' own thresholds of a risk."""
    return {n: float(v) for n, own in levels.own.items() if (v := own.get(key)) is not None}

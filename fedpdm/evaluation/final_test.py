"""The final test of a round's weights: once, on windows that chose nothing.

A simulation tries them on all sites at once, a deployed site on itself alone; the order
is the same: scores, calibration and thresholds from validation data, then the numbers of
test and held-out windows (docs/summary.md).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fedpdm.data.rows import Floats, Split
from fedpdm.evaluation import calibration
from fedpdm.evaluation import summary_sections as sections
from fedpdm.evaluation.censoring import censoring_of, presence
from fedpdm.evaluation.costs import Accounts, cost_table
from fedpdm.evaluation.protocol import EvaluationProtocol
from fedpdm.evaluation.scoring import (
    SPLITS,
    Predictions,
    predict_site,
    score,
    without_padding,
)
from fedpdm.evaluation.thresholds import (
    SiteThresholds,
    add_alarms,
    choose_thresholds,
    described,
)
from fedpdm.federation import Federation, Site


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
        levels: the thresholds of all risks and sites.
        accounts: what prices alarms; None unless thresholds were chosen for cost.
    """

    sites: tuple[Site, ...]
    predictions: Predictions
    threshold: float | None
    parts: Mapping[str, dict[str, Any] | None]
    card: Mapping[str, Any]
    levels: SiteThresholds
    accounts: Accounts | None = None


def run_final_test(
    model_of: Callable[[str], nn.Module],
    sites: Sequence[Site],
    federation: Federation,
    device: torch.device,
    protocol: EvaluationProtocol,
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
    censoring = {}
    for site in sites:
        found = censoring_of(federation.rows(site.name), *(site.windows[split] for split in SPLITS))
        censoring[site.name] = dict(zip(SPLITS, found, strict=True))
    # Without a cut every window counts alike.
    weigh = presence if source.test_truncated else lambda own: np.ones(len(own))
    weights = {name: weigh(own[Split.VALIDATION]) for name, own in censoring.items()}
    scale = _fitted(protocol, raw, sites, weights) if task.risks else None
    predictions = raw if scale is None else _calibrated(raw, scale)
    accounts = None
    if protocol.policy.aim == "cost" and task.risks:
        # Labels that were shuffled follow no machine.
        lives = censoring if federation.shuffle is None else None
        accounts = Accounts(sites, task.risks, protocol, lives, weights, source.time_unit)
    levels = choose_thresholds(protocol.policy, predictions, sites, task, weights, accounts)
    parts: dict[Split, dict[str, Any]] = {
        split: score(predictions, sites, task, split) for split in SPLITS
    }
    for split, result in parts.items():
        add_alarms(result, predictions, sites, split, task, levels)
    test = parts[Split.TEST]
    if (full := without_padding(predictions, sites, task)) is not None:
        test["full_windows"] = full
    told = (predictions, sites, task)
    test["thresholds"] = described(protocol.policy, levels, *told, weights, source.test_truncated)
    test["spread"] = sections.spread(test["per_site"], task)
    test["calibration"] = sections.calibrated(raw, *told, scale, protocol)
    test["reliability"] = sections.reliability(*told)
    shuffle = federation.shuffle
    for split in (Split.TEST, Split.HELDOUT):
        parts[split]["alarms"] = {"reason": "labels are shuffled: nothing follows an alarm"}
        if shuffle is None:
            parts[split]["alarms"] = sections.alarms(
                *told, censoring, split, levels, protocol, source.time_unit
            )
    test["shuffled"] = None if shuffle is None else sections.shuffled(*told, shuffle)
    interval, test["intervals"] = sections.intervals(
        *told, protocol.interval, source.shares_machines
    )
    nearest = task.risks[0].key if task.risks else ""
    own = {site: level for site, of in levels.own.items() if (level := of.get(nearest)) is not None}
    card = {
        "thresholds": own,
        "threshold_by_risk": dict(levels.common),
        "calibration": None if scale is None else scale.described(),
        "interval": interval,
    }
    named: dict[str, Any] = {split.name.lower(): result for split, result in parts.items()}
    if not any(len(site.heldout) for site in sites):
        named["heldout"] = None
    return FinalTest(
        tuple(sites), predictions, levels.common.get(nearest), named, card, levels, accounts
    )


def _fitted(
    protocol: EvaluationProtocol,
    raw: Predictions,
    sites: Sequence[Site],
    weights: Mapping[str, Floats],
) -> calibration.Calibration | None:
    """Return the calibration of the pooled validation windows; None where there are none."""
    if not any(len(site.validation) for site in sites):
        return None
    return calibration.fit(
        protocol.calibration,
        np.concatenate([site.validation.y for site in sites]),
        np.concatenate([raw[site.name][Split.VALIDATION] for site in sites]),
        np.concatenate([weights[site.name] for site in sites]),
    )


def alarm_costs(
    trial: FinalTest, baselines: Mapping[str, Predictions], own: Collection[str] = ()
) -> dict[str, Any] | None:
    """Return what alarms of the nearest risk cost; None if thresholds were not chosen for it.

    Args:
        trial: the test of the shared model.
        baselines: predictions to set beside it, by name.
        own: names of those that are each site's own models, with a threshold of its own.
    """
    if trial.accounts is None or trial.threshold is None:
        return None
    risk = trial.accounts.risks[0]
    return cost_table(
        trial.accounts, risk, trial.predictions, lambda site: trial.levels.at(site, risk),
        baselines, own,
    )  # fmt: skip


def _calibrated(raw: Predictions, scale: calibration.Calibration) -> Predictions:
    return {
        name: {split: scale(scores) for split, scores in own.items()} for name, own in raw.items()
    }

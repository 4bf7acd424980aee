"""From scores on untouched windows to the numbers of ``summary.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from fedpdm.data.rows import Floats, Ints, Split
from fedpdm.data.windows import Windows
from fedpdm.federation import Site
from fedpdm.tasks import Metrics, Task
from fedpdm.training.objective import outputs

Predictions = dict[str, dict[Split, Floats]]
"""Scores by site and split, in the order of the site's windows."""

ALARM_COUNTS = ("threshold", "hits", "false_alarms", "missed", "quiet")
COUNTS = ("n", "positives", *ALARM_COUNTS)

SPLITS = (Split.VALIDATION, Split.TEST, Split.HELDOUT)
"""What a finished model predicts: thresholds come from the first, results from the others."""


def predict(
    module: nn.Module,
    sites: Sequence[Site],
    task: Task,
    device: torch.device,
    splits: Sequence[Split] = SPLITS,
) -> Predictions:
    """Return a model's scores on the sites' windows."""
    return {site.name: predict_site(module, site, task, device, splits) for site in sites}


def predict_site(
    module: nn.Module, site: Site, task: Task, device: torch.device, splits: Sequence[Split]
) -> dict[Split, Floats]:
    """Return a model's scores on one site's windows, by split."""
    result = {}
    for split in splits:
        x = torch.from_numpy(site.windows[split].x).to(device)
        output = outputs(module, x) if len(x) else torch.zeros((0, task.outputs))
        result[split] = task.scores(output)
    return result


def score(
    predictions: Predictions, sites: Sequence[Site], task: Task, split: Split
) -> dict[str, Any]:
    """Return ``global`` (over the pooled windows), ``mean_site`` and ``per_site`` metrics.

    A site where a metric cannot be computed has None there and is left out of the mean.
    """
    parts = [(site.windows[split], predictions[site.name][split]) for site in sites]
    per_site = {site.name: _measure([part], task) for site, part in zip(sites, parts, strict=True)}
    return {
        "global": _measure(parts, task),
        "mean_site": mean_metrics(list(per_site.values())),
        "per_site": per_site,
    }


def machine_numbers(sites: Sequence[Site], split: Split, shared: bool) -> dict[str, Ints]:
    """Return by site (N,) the number of each window's machine, counted over all sites.

    Args:
        sites: the sites.
        split: which windows.
        shared: whether sites see the same machines, so that a name means one machine;
            else each site's machines are its own, whatever they are called.
    """
    names = [site.windows[split].machine for site in sites]
    lengths = [len(own) for own in names]
    every, number = np.unique(np.concatenate(names), return_inverse=True)
    if not shared:  # the same name at another site is another machine
        owner = np.repeat(np.arange(len(names)), lengths)
        number = np.unique(owner * len(every) + number, return_inverse=True)[1]
    parts = np.split(number, np.cumsum(lengths)[:-1])
    return {site.name: part for site, part in zip(sites, parts, strict=True)}


def without_padding(
    predictions: Predictions, sites: Sequence[Site], task: Task
) -> dict[str, Any] | None:
    """Return the test metrics over full windows only, and which were padded; None if none was.

    Some published protocols drop machines shorter than the window. Ours pads them, and
    shows their numbers beside it.
    """
    parts, short = [], []
    for site in sites:
        windows = site.test
        full = ~windows.padded
        short += windows.machine[windows.padded].tolist()
        parts.append((windows.take(full), predictions[site.name][Split.TEST][full]))
    if not short:
        return None
    return {**_measure(parts, task), "short_machines": sorted(short)}


def mean_metrics(per_site: Sequence[Mapping[str, float | None]]) -> Metrics:
    """Return the mean over the sites that have a value; None where no site has one."""
    result: Metrics = {}
    for name in dict.fromkeys(key for values in per_site for key in values):
        if name in COUNTS or name.rpartition("_")[0] in ALARM_COUNTS:
            continue  # a mean of counts says nothing
        known = [v for values in per_site if (v := values.get(name)) is not None]
        result[name] = float(np.mean(known)) if known else None
    return result


def gains(
    federated: Mapping[str, Metrics], alone: Mapping[str, Metrics], task: Task
) -> dict[str, float | None]:
    """Return what federation gains each site over working alone; positive is better."""
    sign = 1.0 if task.higher_is_better else -1.0
    result: dict[str, float | None] = {}
    for site, values in federated.items():
        ours = values[task.primary]
        theirs = alone[site][task.primary] if site in alone else None
        result[site] = None if ours is None or theirs is None else sign * (ours - theirs)
    return result


def _measure(parts: Sequence[tuple[Windows, Floats]], task: Task) -> Metrics:
    windows = [part for part, _ in parts]
    tested = (
        np.concatenate([part.y for part in windows]),
        np.concatenate([part.truth for part in windows]),
        np.concatenate([scores for _, scores in parts]),
    )
    return task.metrics(*tested) | task.details(*tested)

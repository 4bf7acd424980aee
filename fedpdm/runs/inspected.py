"""The machines to inspect now, at every site that was tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from fedpdm.data.rows import Floats, Floats32, Split
from fedpdm.evaluation.attribution import badness, inputs_of
from fedpdm.evaluation.final_test import FinalTest
from fedpdm.evaluation.inspection import Now, explain, now
from fedpdm.federation import Federation, Site
from fedpdm.runs.experiment import Experiment
from fedpdm.tasks import Task
from fedpdm.training.objective import outputs

LISTED = 10
"""Machines of a site that a summary lists, the worst first."""
EXPLAINED = 20
"""Machines of the federation whose sensors are named, the worst first."""


def machines_to_inspect(
    experiment: Experiment,
    models: Callable[[str], nn.Module],
    trial: FinalTest,
    listed: int | None = LISTED,
) -> dict[str, Any] | None:
    """Return ``inspect`` of summary.json; None where nothing is predicted of machines.

    Args:
        experiment: what was run.
        models: of the chosen round, by site; one is used before the next is asked for.
        trial: its final test.
        listed: how many machines of a site are listed, the worst first; None lists all.
    """
    federation, task = experiment.federation, experiment.task
    if federation.shuffle is not None or not predicted(federation, task):
        return None
    risk = task.risks[0] if task.risks else None
    found: list[Now] = []
    counts = {}
    for site in trial.sites:
        level = trial.levels.of(site.name, risk) if risk else None
        scores = trial.predictions[site.name][Split.TEST]
        own = now(site.name, site.test.machine, site.test.time, scores, level, task)
        counts[site.name] = {"machines": len(own), "alarms": sum(bool(m.alarm) for m in own)}
        found += own[:listed]
    sign = 1 if task.alarm_below else -1
    found.sort(key=lambda machine: (not machine.alarm, sign * machine.score))
    named: dict[Now, list[dict[str, Any]]] = {}
    for site in trial.sites:
        worst = [machine for machine in found[:EXPLAINED] if machine.site == site.name]
        module = models(site.name) if worst else None
        if module is not None:
            named |= zip(worst, explained(worst, site, module, experiment), strict=True)
    return {
        "score": task.score_columns[0],
        "machines": [
            {"site": m.site, "machine": m.machine, "time": m.time, "score": m.score,
             "alarm": m.alarm, "since": m.since, "sensors": named.get(m)}
            for m in found
        ],
        "per_site": counts,
    }  # fmt: skip


def predicted(federation: Federation, task: Task) -> bool:
    """Return whether scores say how near a machine is to a failure, window by window."""
    return federation.source.window is not None and bool(task.risks or task.lives)


def explained(
    machines: list[Now], site: Site, module: nn.Module, experiment: Experiment
) -> list[list[dict[str, Any]]]:
    """Return the sensors that drive each machine's score."""
    federation, task = experiment.federation, experiment.task

    def raw(x: Floats32) -> Floats:
        return task.scores(outputs(module, torch.from_numpy(x).to(experiment.device)))

    at = np.array([machine.position for machine in machines])
    sensors = federation.features.sensors(federation.source.features)
    groups, windows = inputs_of(sensors, federation.inputs), site.test
    bad = badness(task, raw(windows.x))
    return explain(
        at, lambda some: windows.x[some], windows.machine, bad, raw, task, groups, experiment.seed
    )

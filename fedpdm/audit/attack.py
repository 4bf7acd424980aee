"""Asks a finished run's models for the losses of windows that they know, and that they do not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fedpdm.audit.membership import Losses, attacked, bound
from fedpdm.config.values import Config
from fedpdm.data.windows import Windows
from fedpdm.errors import ConfigError, DataError
from fedpdm.federation import Site
from fedpdm.runs.experiment import Experiment
from fedpdm.runs.reopened import Reopened, reopen
from fedpdm.training.loop import TrainingSettings, fit, tensors
from fedpdm.training.objective import LocalContext, Objective, Supervised

CONTROL_WINDOWS, CONTROL_EPOCHS = 400, 150
"""Windows that the control's model learns by heart, and passes over them."""


def membership(
    run: Path, *, control: bool = False, imports: Sequence[str] = (), cfg: Config | None = None
) -> dict[str, Any]:
    """Attack a finished run's chosen round, and say how well that works.

    Members are the sites' training windows; the others are windows of the same sites' held-out
    machines from the same time, which nothing was trained or chosen on.

    Args:
        run: its folder; its data must be on this machine.
        control: also train a model until it knows some members by heart, and attack that: it shows
            whether the attack would have found something.
        imports: the modules that the run's own code comes from.
        cfg: its config, where this process has just run it.

    Raises:
        UserError: the run is not finished, has no held-out machines, or its objective gives no
            loss of single windows.
    """
    opened = reopen(run, imports=imports, cfg=cfg)
    experiment = opened.experiment
    objective = experiment.objective
    if not isinstance(objective, Supervised):
        raise ConfigError(
            f"the audit compares losses of single windows, and {type(objective).__name__} is "
            "measured otherwise; audit a run with objective=task"
        )
    told = opened.summary.get("privacy")
    found: dict[str, Any] = {
        "run": run.name,
        "round": opened.chosen,
        "model": attack(opened.sites, opened.models, objective, experiment.seed),
        "untrained": attack(
            opened.sites, lambda site: experiment.build_model().module, objective, experiment.seed
        ),
        "privacy": told and {k: told[k] for k in ("mechanism", "protects", "epsilon", "delta")},
        "bound": bound(told["epsilon"], told["delta"])
        if told and told["mechanism"] == "dpsgd"
        else None,
        "control": None,
    }
    if control:
        sites, module = memorised(opened)
        found["control"] = attack(sites, lambda site: module, objective, experiment.seed)
    return found


def attack(sites: Sequence[Site], model: Any, objective: Objective, seed: int) -> dict[str, Any]:
    """Return what a threshold on the loss of all sites' windows finds.

    Args:
        sites: their windows.
        model: gives the module of a site by its name.
        objective: gives losses.
        seed: of the run.
    """
    members: list[Losses] = []
    others: list[Losses] = []
    for site in sites:
        module = model(site.name).eval()
        for windows, into in ((site.train, members), (never_used(site), others)):
            if len(windows):
                into.append(losses_of(module, windows, objective, site.name))
    if not others:
        raise DataError(
            "the audit needs windows of machines that were never used, and no site of this run "
            "holds a machine out; take a data set that does (data=fleet)"
        )
    return attacked(Losses.joined(members), Losses.joined(others), seed)


def never_used(site: Site) -> Windows:
    """Return the windows of held-out machines that end no later than the training windows.

    Later ones are of other wear and seasons, and could be told apart without any model.
    """
    windows = site.heldout
    if not len(windows) or not len(site.train):
        return windows
    times = site.train.time
    return part_of(windows, windows.time <= np.nanmax(times))


def part_of(windows: Windows, chosen: Any) -> Windows:
    """Return some of the windows."""
    parts: dict[str, Any] = {n: None if v is None else v[chosen] for n, v in vars(windows).items()}
    return Windows(**parts)


def losses_of(module: nn.Module, windows: Windows, objective: Objective, site: str) -> Losses:
    """Return the losses of windows, in eval mode; windows that were made up count as none."""
    x, y = tensors(windows.x, windows.y, torch.device("cpu"))
    with torch.no_grad():
        pairs = zip(torch.split(x, 1024), torch.split(y, 1024), strict=True)
        parts = [objective.losses(module, *pair, LocalContext()) for pair in pairs]
    loss = torch.cat(parts).double().numpy()
    real = windows.machine != ""
    names = np.array([f"{site}/{machine}" for machine in windows.machine])
    return Losses(loss[real], names[real])


def memorised(opened: Reopened) -> tuple[list[Site], nn.Module]:
    """Train a fresh model until it knows a few hundred members by heart.

    Returns:
        The sites with those members as their training windows, and the model.
    """
    experiment: Experiment = opened.experiment
    sites, left = [], CONTROL_WINDOWS
    for site in opened.sites:
        kept = np.arange(len(site.train)) < left
        left -= int(kept.sum())
        windows = {**site.windows, next(iter(site.windows)): part_of(site.train, kept)}
        sites.append(Site(site.name, windows))
        if left <= 0:
            break
    x = np.concatenate([site.train.x for site in sites])
    y = np.concatenate([site.train.y for site in sites])
    module = experiment.build_model().module
    settings = TrainingSettings(
        local_epochs=1, batch_size=32, learning_rate=3e-3, schedule="constant"
    )
    fit(
        module, *tensors(x, y, torch.device("cpu")), experiment.objective, settings,
        seed=experiment.seed, key=("audit-control",), epochs=CONTROL_EPOCHS,
    )  # fmt: skip
    return sites, module

"""Attacks the gradients and the updates of a finished run's sites: do they give windows away?

Two things that a server sees are attacked. *A step*: the gradient of one window, or of eight, at
the untrained model and at the chosen one, as it is and with the clipping and noise of a DP-SGD
step. It is the worst case, and what ``strategy=fedsgd`` with so small a batch would send. *An
update*: what a site really sent in round 1, after all its local steps, transforms and noise; the
round is trained again to see it.

Errors are root mean squared, in deviations of the scaled sensors, over all readings of a window.
Beside each stands the error of the mean training window, which needs no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedpdm.aggregation.update import Update
from fedpdm.audit.attack import part_of
from fedpdm.audit.inversion import (
    Step,
    by_direction,
    by_length,
    closed_form,
    distance,
    errors,
    noised,
    reading_layer,
)
from fedpdm.data.windows import Windows
from fedpdm.errors import ConfigError, DataError
from fedpdm.federation import Site
from fedpdm.runs.again import fresh, train_again
from fedpdm.runs.reopened import Reopened, reopen
from fedpdm.seeding import numpy_generator, torch_generator
from fedpdm.server.base import Round
from fedpdm.server.synchronous import Synchronous
from fedpdm.server.valuation import Kept
from fedpdm.training.loop import tensors
from fedpdm.training.objective import Supervised

CLIP, NOISES = 1.0, (0.01, 1.0)
"""Of the steps of DP-SGD that are attacked beside the plain one."""
SINGLES, BATCH = 4, 8
"""Windows that are attacked one by one, and together."""
NEAR = 0.1
"""A window counts as recovered when its error is below this share of the mean window's."""


def inversion(run: Path, *, imports: Sequence[str] = ()) -> dict[str, Any]:
    """Attack the gradients of a finished run's sites, and say how near the windows come.

    Args:
        run: its folder; its data must be on this machine.
        imports: the modules that the run's own code comes from.

    Raises:
        UserError: the run is not finished, or its loss is not one of single windows.
    """
    opened = reopen(run, imports=imports)
    if not isinstance(opened.experiment.objective, Supervised):
        raise ConfigError(
            "the audit differentiates the loss of windows and targets, and "
            f"{type(opened.experiment.objective).__name__} needs more than those; audit a run with "
            "objective=task"
        )
    privacy = opened.summary.get("privacy")
    return {
        "run": run.name,
        "round": opened.chosen,
        "steps": steps(opened),
        "update": update(opened, run, imports),
        "privacy": privacy and {k: privacy[k] for k in ("mechanism", "noise_multiplier")},
    }


def real(windows: Windows) -> Windows:
    """Return the windows that were measured and not made up."""
    return part_of(windows, windows.machine != "")


def steps(opened: Reopened) -> list[dict[str, Any]]:
    """Return what attacks on steps find: one entry for each model, batch and noise."""
    experiment, seed = opened.experiment, opened.experiment.seed
    site = max(opened.sites, key=lambda each: len(each.train))
    train = real(site.train)
    if len(train) < SINGLES + BATCH:
        raise DataError(f"the audit needs {SINGLES + BATCH} training windows at a site")
    draws = numpy_generator(seed, "audit", "inversion").permutation(len(train))
    singles = [draws[i : i + 1] for i in range(SINGLES)]
    mean = train.x.mean(0, keepdims=True)
    found = []
    for name, module in (
        ("untrained", experiment.build_model().module), ("trained", opened.models(site.name))
    ):  # fmt: skip
        module = module.cpu().eval()
        for batches in (singles, [draws[SINGLES : SINGLES + BATCH]]):
            for noise in (None, *NOISES):
                parts = []
                for number, chosen in enumerate(batches):
                    x, y = tensors(train.x[chosen], train.y[chosen], torch.device("cpu"))
                    step = Step(module, experiment.objective, y, tuple(x.shape))
                    key = ("audit", name, len(chosen), number, str(noise))
                    parts.append(attacked(step, x, mean, noise, seed, key))
                found.append(
                    {"model": name, "batch": len(batches[0]), "noise": noise, **over(parts)}
                )
    return found


def attacked(
    step: Step,
    x: Tensor,
    mean: NDArray[np.float32],
    noise: float | None,
    seed: int,
    key: tuple[str | int, ...],
) -> dict[str, Any]:
    """Return by attack the errors of the windows of one step.

    Args:
        step: what the attacker knows.
        x: (B, …) the windows.
        mean: (1, …) the mean training window.
        noise: of a step of DP-SGD; None for the plain gradient.
        seed: of the run.
        key: what is drawn for.
    """
    if noise is None:
        seen = step.gradients(x)
    else:
        single = [
            Step(step.module, step.objective, step.y[i : i + 1], (1, *step.shape[1:])).gradients(
                x[i : i + 1]
            )
            for i in range(len(x))
        ]
        seen = noised(single, CLIP, noise, torch_generator(seed, "noise", *key))
    guesses: dict[str, Tensor | None] = {
        "by_direction": by_direction(step, seen, torch_generator(seed, "direction", *key)),
        "by_length": by_length(step, seen, torch_generator(seed, "length", *key)),
    }
    layer = reading_layer(step)
    if layer is not None and len(x) == 1:
        guesses["closed_form"] = closed_form(seen, layer, step.shape)
    true = x.numpy()
    of: dict[str, Any] = {"mean_window": errors(np.repeat(mean, len(true), 0), true)}
    for name, guess in guesses.items():
        of[name] = of["mean_window"] if guess is None else errors(guess.numpy(), true)
    return of


def over(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return by attack the mean error over batches, and the share of windows recovered."""
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    mean = joined.pop("mean_window")
    return {
        "mean_window": float(mean.mean()),
        "attacks": {
            name: {"error": float(own.mean()), "recovered": float((own < NEAR * mean).mean())}
            for name, own in joined.items()
        },
    }


class Watched(Synchronous):
    """Synchronous rounds whose accepted updates are kept.

    Args:
        kept: where.
    """

    def __init__(self, kept: Kept) -> None:
        super().__init__()
        self._kept = kept

    def submit(self, round: Round, sites: Sequence[str]) -> None:
        round.accept = self._kept.accept
        super().submit(round, sites)


def update(opened: Reopened, run: Path, imports: Sequence[str]) -> dict[str, Any] | None:
    """Return what matching finds in the update of a site in round 1; None if none can be seen.

    Which of the site's windows a guess stands for is not known: its error is that to the nearest
    one. The same is measured of guesses without the update: the mean window, and windows of
    another site.
    """
    experiment, kept = fresh(run, imports), Kept()
    if not isinstance(experiment.server, Synchronous) or experiment.transforms.hides_values:
        return None
    first = replace(experiment, rounds=1, server=Watched(kept))
    with TemporaryDirectory() as place:
        train_again(first, opened.manifest["engine"]["settings"], Path(place) / "again")
    sites = {site.name: site for site in opened.sites}
    seen = next((u for u, _ in kept.updates if u.site in sites), None)
    return None if seen is None else matched(opened, seen, sites)


def matched(opened: Reopened, seen: Update, sites: dict[str, Site]) -> dict[str, Any]:
    """Return how near windows that match an update come to the site's own."""
    experiment, seed = opened.experiment, opened.experiment.seed
    train = real(sites[seen.site].train)
    others = [real(site.train) for name, site in sites.items() if name != seen.site]
    module = experiment.build_model().module.cpu().eval()
    draws = numpy_generator(seed, "audit", "update").permutation(len(train))[:BATCH]
    _, y = tensors(train.x[draws], train.y[draws], torch.device("cpu"))
    step = Step(module, experiment.objective, y, train.x[draws].shape)
    delta = {name: -torch.from_numpy(np.array(d)) for name, d in seen.delta().items()}
    names = [name for name, p in module.named_parameters() if p.requires_grad and name in delta]
    generator = torch_generator(seed, "audit", "update")
    guess = by_direction(step, {name: delta[name].float() for name in names}, generator).numpy()

    def nearest(windows: NDArray[np.float32]) -> float:
        return float(distance(windows, train.x).min(1).mean())

    return {
        "site": seen.site,
        "windows": len(train),
        "epochs": experiment.settings.local_epochs,
        "error": nearest(guess),
        "mean_window": nearest(train.x.mean(0, keepdims=True)),
        "other_site": nearest(others[0].x[:BATCH]) if others else None,
    }

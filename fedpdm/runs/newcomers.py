"""Sites that never took part: what the shared model is worth to them, at once and fine-tuned.

``newcomers.sites=[houston]`` leaves houston out of training, of the choice of the round, and of the
shared scaler's sums. After the last round its test windows are scored with the shared model as it
is (zero-shot), and with that model trained further on its own training windows, for as many epochs
as its validation windows like best (none among them). Beside both stands what it has by itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from fedpdm.baselines.best_alone import NAME as BEST_ALONE
from fedpdm.baselines.best_alone import best_alone
from fedpdm.baselines.registry import BASELINES, diverged, gather, pieces, work
from fedpdm.data.normalise import Scaler
from fedpdm.data.rows import Split
from fedpdm.evaluation.scoring import SPLITS, Predictions, predict_site, score
from fedpdm.federation import Site
from fedpdm.runs.assembly import baseline_inputs
from fedpdm.runs.experiment import Experiment
from fedpdm.seeding import torch_generator
from fedpdm.training.loop import tensors
from fedpdm.training.objective import LocalContext, LocalWork
from fedpdm.training.personal import FineTune
from fedpdm.wire.records import Arrays

NAMES = ("zero_shot", "fine_tuned")


def test_newcomers(
    experiment: Experiment, weights: Arrays, scaler: Scaler | None
) -> dict[str, Any]:
    """Return the scores of the sites that took no part, by predictor, as ``test`` has them.

    Args:
        experiment: what was run.
        weights: the shared tensors of the chosen round.
        scaler: the shared scaler; None where each site scales by itself.
    """
    federation, task = experiment.federation, experiment.task
    sites = [
        federation.site(name, scaler or federation.moments(name).scaler())
        for name in experiment.newcomers
    ]
    found: dict[str, Predictions] = {name: {} for name in NAMES}
    for site in sites:
        for name, model in zip(NAMES, _models(experiment, site, weights), strict=True):
            found[name][site.name] = predict_site(model, site, task, experiment.device, SPLITS)
    found |= _alone(experiment, sites, scaler)
    parts = ("global", "mean_site", "per_site")
    scored = {name: score(each, sites, task, Split.TEST) for name, each in found.items()}
    return {name: {part: each[part] for part in parts} for name, each in scored.items()}


test_newcomers.__test__ = False  # type: ignore[attr-defined]


def _models(experiment: Experiment, site: Site, weights: Arrays) -> tuple[Any, Any]:
    """Return the shared model, and the one that is fine-tuned to a site."""
    objective, settings = experiment.objective.without_federation(), experiment.settings
    model = experiment.build_model()
    received = {name: torch.from_numpy(array) for name, array in weights.items()}
    model.set_parameters({**model.get_parameters(), **received})
    model.to(experiment.device)
    key, seed = ("newcomer", site.name), experiment.seed
    sides = [
        tensors(site.windows[split].x, site.windows[split].y, experiment.device)
        for split in (Split.TRAIN, Split.VALIDATION)
    ]
    # The rate of the last round: with a schedule that falls, the model is used to a low one.
    first = (experiment.rounds - 1) * settings.local_epochs
    constant = replace(settings, schedule="constant", learning_rate=settings.rate(first))
    work = LocalWork(*sides[0], constant, seed, key, settings.local_epochs, 0, sides[1])
    context = LocalContext(received, {}, torch_generator(seed, *key), work)
    tuning = FineTune(epochs=experiment.newcomer_epochs)
    tuning.around(objective)
    tuning.personalise(model.module, context)
    return objective.predictor(model.module, context), tuning.predictor(model.module, context)


def _alone(
    experiment: Experiment, sites: list[Site], scaler: Scaler | None
) -> dict[str, Predictions]:
    """Return the predictions of what these sites have by themselves."""
    kinds = tuple(name for name in experiment.baselines.names if BASELINES[name].per_site)
    if not experiment.baselines.sites or not kinds:
        return {}
    inputs = replace(
        baseline_inputs(experiment), names=experiment.newcomers, scaler=scaler, baselines=kinds
    )
    found = gather(work(inputs, pieces(inputs)))
    found = {name: each for name, each in found.items() if name not in diverged(found)}
    if (best := best_alone(found, sites, experiment.task)) is not None:
        found[BEST_ALONE] = best[0]
    return found

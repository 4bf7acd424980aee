"""The federation's network trained alone or on pooled rows, and the constant (trivial) baseline.

Networks get the federation's architecture, initial weights, number of epochs and selection
rule (the best of ``rounds`` looks at the validation metric), but one optimizer for the whole
run, as a site that trains alone would have. Where the federation's steps make sense in a
federation only (``strategy=fedsgd``), ``baselines.training`` gives them others, and
``baselines.alone`` gives sites alone their own: an epoch of one site's few rows is few steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from fedpdm.baselines.inputs import BaselineInputs, BaselineSchedule, predicted
from fedpdm.baselines.registry import Baseline, register_baseline
from fedpdm.data.rows import Split
from fedpdm.data.summaries import tree_columns
from fedpdm.data.windows import Windows
from fedpdm.evaluation.scoring import SPLITS, Predictions, predict, predict_site
from fedpdm.models import ModelWrapper
from fedpdm.models.gbdt import GradientBoostedTrees
from fedpdm.tasks import Reconstruction, Task
from fedpdm.tasks.reconstruction import ERRORS
from fedpdm.training.boosting import Growth, Rows, boost, drive, loss_of
from fedpdm.training.loop import fit, tensors
from fedpdm.training.objective import LocalContext, Supervised, outputs


@register_baseline("trivial", Baseline(
    "Trivial", "the best constant answer, which knows the training data's average only",
    marker="|", colour="trivial", column="always",
))  # fmt: skip
def trivial(inputs: BaselineInputs) -> Predictions:
    """A constant: the share of failures, or the mean remaining life, in all training data."""
    if isinstance(inputs.task, Reconstruction):  # the mean of its targets: the readings
        return guessed(inputs, "mean_error")
    pool = inputs.sites(inputs.pool)
    constant = inputs.task.trivial(np.concatenate([site.train.real().y for site in pool]))
    return predicted(
        inputs.sites(),
        lambda windows: np.broadcast_to(constant, (len(windows), *constant.shape)).copy(),
    )


def guessed(inputs: BaselineInputs, error: str) -> Predictions:
    """Return the errors of an untrained guess of hidden readings as the scores of a predictor.

    The model measures them on the steps that it hides, so all predictors have the same ones.
    """
    model = inputs.build_model()
    model.module.to(inputs.device)
    found = predict(model.module, inputs.sites(), inputs.task, inputs.device)
    column = ERRORS.index(error)
    order = [column, *range(1, len(ERRORS))]
    return {
        site: {split: scores[:, order] for split, scores in own.items()}
        for site, own in found.items()
    }


@register_baseline("alone", Baseline(
    "Alone", "the same model trained on that site's own data only", name="The same model alone",
    marker="o", hollow=True, colour="alone", column="always", per_site=True, interval=True,
    cost=lambda inputs: 2 * inputs.alone.rounds / inputs.pooled.rounds,
))  # fmt: skip
def alone(inputs: BaselineInputs, name: str) -> Predictions:
    """One site that shares nothing: its own rows, its own scaler, its own best epoch.

    Once the epoch is chosen, it trains again with its validation windows beside the training
    windows. Thresholds and calibration come from the model that never saw them.
    """
    site, key = inputs.own_site(name), ("alone", name)
    chosen = train_whole(inputs, inputs.alone, site.train, site.validation, key)
    found = predict_site(chosen.module, site, inputs.task, inputs.device, SPLITS)
    if chosen.rounds is not None:
        every = Windows.concatenate([site.train, site.validation])
        final = train_whole(inputs, inputs.alone, every, None, key, chosen.rounds)
        tested = (Split.TEST, Split.HELDOUT)
        found |= predict_site(final.module, site, inputs.task, inputs.device, tested)
    return {name: found}


@register_baseline("pooled", Baseline(
    "Pooled", "the same model trained on all sites' rows in one place, where that is allowed",
    subject="The same model on pooled data, if all sites could hand over their rows,",
    marker="D", colour="pooled", column="asked", interval=True,
    cost=lambda inputs: len(inputs.pool),
))  # fmt: skip
def pooled(inputs: BaselineInputs) -> Predictions:
    """All rows in one place, which no site may do: the ceiling."""
    pool = inputs.sites(inputs.pool)
    model = train_whole(
        inputs,
        inputs.pooled,
        Windows.concatenate([site.train for site in pool]),
        Windows.concatenate([site.validation for site in pool]),
        ("pooled",),
    )
    return predict(model.module, inputs.sites(), inputs.task, inputs.device)


@dataclass(frozen=True)
class Trained:
    """A network that was trained without a federation.

    Attributes:
        module: what predicts.
        rounds: after how many looks at validation data it was at its best; None without looks.
    """

    module: nn.Module
    rounds: int | None


def train_whole(
    inputs: BaselineInputs,
    schedule: BaselineSchedule,
    train: Windows,
    validation: Windows | None,
    key: tuple[str, ...],
    rounds: int | None = None,
) -> Trained:
    """Return a network trained for all epochs at once, at its best look at validation data.

    One whose outputs were never finite comes back as it is (``registry.diverged``).

    Args:
        inputs: what baselines need.
        schedule: settings, and how often it looks.
        train: windows to train on.
        validation: windows to look at; None to look at none and keep the last weights.
        key: of the draws.
        rounds: stop after so many looks; None: the schedule's.
    """
    rounds = schedule.rounds if rounds is None else rounds
    task, settings = inputs.task, schedule.settings
    model = inputs.build_model()
    model.module.to(inputs.device)
    x, y = tensors(train.x, train.y, inputs.device)
    objective, context = inputs.objective or Supervised.of(task), LocalContext()
    best: dict[str, Any] = {"metric": None, "loss": None, "weights": None, "rounds": None}

    def look(epoch: int) -> None:
        if epoch % settings.local_epochs or not validation:
            return
        x_validation, y_validation = tensors(validation.x, validation.y, inputs.device)
        output = outputs(objective.predictor(model.module, context), x_validation)
        if not output.isfinite().all():
            return
        metric = task.metrics(validation.y, validation.truth, task.scores(output))[task.primary]
        metric = metric if task.learns_labels else None  # else labels would choose the epoch
        loss = objective.mean_loss(model.module, x_validation, y_validation, context, output)
        lower = best["loss"] is None or loss < best["loss"]
        if task.better(metric, best["metric"]) or (metric is None and lower):
            weights = copy.deepcopy(model.get_parameters())
            number = epoch // settings.local_epochs
            best.update(metric=metric, loss=loss, weights=weights, rounds=number)

    if isinstance(model.module, GradientBoostedTrees):
        _grow(model, train, task, rounds, settings.local_epochs, look)
    else:
        fit(
            model.module, x, y, objective, settings, seed=inputs.seed, key=key,
            epochs=rounds * settings.local_epochs, after_epoch=look,
        )  # fmt: skip
    if best["weights"] is not None:
        model.set_parameters(best["weights"])
    return Trained(objective.predictor(model.module, context), best["rounds"])


def _grow(
    model: ModelWrapper,
    train: Windows,
    task: Task,
    rounds: int,
    epochs: int,
    look: Callable[[int], None],
) -> None:
    """Grow trees as the federation does, on rows that lie in one place."""
    loss, growth = loss_of(task), Growth.of(model.config)
    rows, trees = Rows(tree_columns(train.x), train.y, loss), model.snapshot()
    for number in range(1, min(rounds, model.config["rounds"]) + 1):
        drive(boost(trees, growth, loss, number), lambda request: rows.answer(request, trees))
        model.set_parameters(trees)
        look(number * epochs)

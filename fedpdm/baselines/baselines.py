"""What the shared model is compared with: trivial, alone, pooled, trees, MiniRocket, rules.

Networks get the federation's architecture, initial weights, number of epochs and
selection rule (the best of ``rounds`` looks at the validation metric), but one optimizer
for the whole run, as somebody who trains alone would have. Where the federation's steps make
sense in a federation only (``strategy=fedsgd``), ``baselines.training`` gives them others, and
``baselines.alone`` gives sites alone their own: an epoch of one site's few rows is few steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fedpdm.baselines.estimators import PerColumn, ridge, trees
from fedpdm.baselines.minirocket import LENGTH as KERNEL_LENGTH
from fedpdm.baselines.minirocket import MiniRocket
from fedpdm.baselines.window_summary import summarise
from fedpdm.data.normalise import Scaler
from fedpdm.data.rows import Floats, Floats32, Ints
from fedpdm.data.windows import Windows
from fedpdm.evaluation.scoring import TESTED, Predictions, predict, predict_site
from fedpdm.federation import Federation, Site
from fedpdm.models import ModelWrapper
from fedpdm.seeding import numpy_generator
from fedpdm.tasks import Task
from fedpdm.training.loop import TrainingSettings, fit, tensors
from fedpdm.training.objective import LocalContext, Objective, Supervised, outputs


@dataclass(frozen=True)
class RocketSettings:
    """How much MiniRocket may take.

    Attributes:
        features: about how many; rounded down to a multiple of 84.
        windows: the most training windows that it sees.
    """

    features: int = 2016
    windows: int = 2000


@dataclass(frozen=True)
class Schedule:
    """How a network is trained without a federation.

    Attributes:
        settings: its training.
        rounds: how often it looks at its validation data, after ``local_epochs`` each.
    """

    settings: TrainingSettings
    rounds: int


@dataclass(frozen=True)
class BaselineInputs:
    """What baselines need.

    Attributes:
        federation: the sites' data.
        names: sites that are tested.
        build_model: makes the federation's initial model.
        pooled: how the network on pooled rows trains: as sites do in the federation, unless
            ``baselines.training`` and ``baselines.rounds`` say otherwise.
        alone: how a site alone trains: as pooled, unless ``baselines.alone`` says otherwise.
        seed: the run's seed.
        scaler: its shared scaler; None where each site scales by itself.
        pool: sites whose rows are pooled for training.
        device: where to compute.
        controls: names of the wanted controls (``fedpdm.baselines.registry``).
        rocket: how much MiniRocket may take.
        objective: what networks minimise; None for the task's loss.
    """

    federation: Federation
    names: tuple[str, ...]
    build_model: Callable[[], ModelWrapper]
    pooled: Schedule
    alone: Schedule
    seed: int
    scaler: Scaler | None
    pool: tuple[str, ...]
    device: torch.device
    controls: tuple[str, ...] = ("trivial", "alone", "pooled", "rules", "hgb", "minirocket")
    rocket: RocketSettings = RocketSettings()
    objective: Objective | None = None

    @property
    def task(self) -> Task:
        return self.federation.task

    def own_site(self, name: str) -> Site:
        """Return a site scaled by its own training rows."""
        return self.federation.site(name, self.federation.moments(name).scaler())

    def sites(self, names: Sequence[str] | None = None) -> list[Site]:
        """Return the tested sites, or ``names``, as the federation scales them."""
        names = self.names if names is None else names
        if self.scaler is None:
            return [self.own_site(name) for name in names]
        return [self.federation.site(name, self.scaler) for name in names]

    def series(self, windows: Windows) -> Floats32:
        """Return the (N, T, F) readings of windows, without features of whole windows."""
        readings, _ = self.federation.features.apart(
            windows.x, len(self.federation.source.features)
        )
        assert readings is not None
        return readings

    def table(self, windows: Windows) -> Floats:
        """Return (N, K) summaries of windows, and the features of whole windows, if any."""
        parts = self.federation.features.apart(windows.x, len(self.federation.source.features))
        known = [summarise(part) for part in parts if part is not None]
        return np.concatenate(known, axis=1)


def trivial(inputs: BaselineInputs) -> Predictions:
    """A constant: the share of failures, or the mean remaining life, in all training data."""
    sites = inputs.sites()
    pool = inputs.sites(inputs.pool)
    constant = inputs.task.trivial(np.concatenate([site.train.real().y for site in pool]))
    return {
        site.name: {
            split: np.broadcast_to(constant, (len(site.windows[split]), *constant.shape)).copy()
            for split in TESTED
        }
        for site in sites
    }


def alone(inputs: BaselineInputs, name: str) -> Predictions:
    """One site that shares nothing: its own rows, its own scaler, its own best epoch."""
    site = inputs.own_site(name)
    model = train_whole(inputs, inputs.alone, site.train, site.validation, ("alone", name))
    return {name: predict_site(model, site, inputs.task, inputs.device, TESTED)}


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
    return predict(model, inputs.sites(), inputs.task, inputs.device)


def train_whole(
    inputs: BaselineInputs,
    schedule: Schedule,
    train: Windows,
    validation: Windows,
    key: tuple[str, ...],
) -> nn.Module:
    """Return what predicts, trained for all epochs at once, at its best look at validation data.

    One whose outputs were never finite comes back as it is (``controls.diverged``).
    """
    task, settings = inputs.task, schedule.settings
    objective, context = inputs.objective or Supervised.of(task), LocalContext()
    model = inputs.build_model()
    model.module.to(inputs.device)
    x, y = tensors(train.x, train.y, inputs.device)
    x_validation, y_validation = tensors(validation.x, validation.y, inputs.device)
    best: dict[str, Any] = {"metric": None, "loss": None, "weights": None}

    def look(epoch: int) -> None:
        if epoch % settings.local_epochs or len(validation) == 0:
            return
        output = outputs(objective.predictor(model.module, context), x_validation)
        if not output.isfinite().all():
            return
        metric = task.metrics(validation.y, validation.truth, task.scores(output))[task.primary]
        loss = objective.mean_loss(model.module, x_validation, y_validation, context, output)
        lower = best["loss"] is None or loss < best["loss"]
        if task.better(metric, best["metric"]) or (metric is None and lower):
            best.update(metric=metric, loss=loss, weights=copy.deepcopy(model.get_parameters()))

    fit(
        model.module, x, y, objective, settings,
        seed=inputs.seed, key=key, epochs=schedule.rounds * settings.local_epochs, after_epoch=look,
    )  # fmt: skip
    if best["weights"] is not None:
        model.set_parameters(best["weights"])
    return objective.predictor(model.module, context)


def boosted_trees(inputs: BaselineInputs) -> Predictions:
    """Histogram gradient boosting (scikit-learn) on summary features of the pooled windows.

    With features=statistics or both it gets those features, too.
    """
    from threadpoolctl import threadpool_limits

    sites = inputs.sites()
    train = Windows.concatenate([site.train for site in inputs.sites(inputs.pool)])
    with threadpool_limits(limits=1):
        model = PerColumn(inputs.task, train.y, trees(inputs.table(train), inputs.seed))
        return _predicted(sites, lambda windows: model(inputs.table(windows)))


def rocket(inputs: BaselineInputs) -> Predictions:
    """MiniRocket and ridge regression on the pooled windows, at most ``rocket.windows`` of them."""
    from threadpoolctl import threadpool_limits

    settings, pool = inputs.rocket, inputs.sites(inputs.pool)
    train = Windows.concatenate([site.train.real() for site in pool])
    train = train.take(some_windows(train, settings.windows, inputs.seed))
    checked = Windows.concatenate([site.validation for site in pool])
    transform = MiniRocket(inputs.series(train), settings.features, seed=inputs.seed)

    def table(windows: Windows) -> Floats32:
        return transform(inputs.series(windows))

    with threadpool_limits(limits=1):
        fit = ridge(table(train), (table(checked), checked.y))
        model = PerColumn(inputs.task, train.y, fit)
        return _predicted(inputs.sites(), lambda windows: model(table(windows)))


def some_windows(windows: Windows, most: int, seed: int) -> Ints:
    """Return positions of at most ``most`` windows, seeded, in their order.

    Where there are classes, up to half of them are of the rare one: its share is put right again
    by the calibration on validation data.
    """
    count = len(windows)
    if count <= most:
        return np.arange(count)
    order = numpy_generator(seed, "minirocket", "windows").permutation(count)
    if windows.y.dtype.kind == "i":
        rare = windows.y[order] == np.argmin(np.bincount(windows.y))
        order = np.concatenate([order[rare][: most // 2], order[~rare]])
    return np.sort(order[:most])


def _predicted(sites: Sequence[Site], model: Callable[[Windows], Floats]) -> Predictions:
    return {site.name: {split: model(site.windows[split]) for split in TESTED} for site in sites}


def rules(inputs: BaselineInputs) -> Predictions:
    """The data set's own physical rules, without any learning."""
    result: Predictions = {}
    for name in inputs.names:
        rows = inputs.federation.rows(name)
        alarms = inputs.federation.source.rules(rows)
        assert alarms is not None  # else it would have been left out
        result[name] = {split: alarms[rows.split == split].astype(np.float64) for split in TESTED}
    return result


def no_rules(inputs: BaselineInputs) -> str | None:
    """Return why there are no rules, or None."""
    source = inputs.federation.source
    known = not inputs.names or source.rules(inputs.federation.rows(inputs.names[0])) is not None
    return None if known else f"data={source.name} has no known rules"


def no_series(inputs: BaselineInputs) -> str | None:
    """Return why there is no time series for MiniRocket, or None."""
    features, window = inputs.federation.features, inputs.federation.source.window
    if window is None:
        return f"data={inputs.federation.source.name} has single rows and no time series"
    if features.mode == "statistics":
        return "features=statistics leaves no time series"
    if window < KERNEL_LENGTH:
        return f"windows of {window} steps are shorter than its kernels of {KERNEL_LENGTH}"
    return None

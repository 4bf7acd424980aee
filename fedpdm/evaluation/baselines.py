"""What the shared model is compared with: trivial, alone, pooled, boosted trees, rules.

Networks get the federation's architecture, initial weights, number of epochs and
selection rule (the best of ``rounds`` looks at the validation metric), but one optimizer
for the whole run, as somebody who trains alone would have.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fedpdm.data.normalise import Scaler
from fedpdm.data.rows import Floats, Split
from fedpdm.data.windows import Windows
from fedpdm.evaluation.features_summary import summarise
from fedpdm.evaluation.outcome import TESTED, Predictions, predict, predict_site
from fedpdm.federation import Federation, Site
from fedpdm.models import ModelWrapper
from fedpdm.tasks import Task
from fedpdm.training import TrainingSettings, fit, outputs, tensors


@dataclass(frozen=True)
class Bench:
    """What baselines need.

    Attributes:
        federation: the plants' data.
        names: plants that are tested.
        build_model: makes the federation's initial model.
        settings: the federation's local training.
        rounds: its rounds.
        seed: its seed.
        scaler: its shared scaler; None where each plant scales by itself.
        pool: plants whose rows are pooled for training.
        device: where to compute.
    """

    federation: Federation
    names: tuple[str, ...]
    build_model: Callable[[], ModelWrapper]
    settings: TrainingSettings
    rounds: int
    seed: int
    scaler: Scaler | None
    pool: tuple[str, ...]
    device: torch.device

    @property
    def task(self) -> Task:
        return self.federation.task

    def own_site(self, name: str) -> Site:
        """Return a plant scaled by its own training rows."""
        return self.federation.site(name, self.federation.moments(name).scaler())

    def sites(self, names: Sequence[str] | None = None) -> list[Site]:
        """Return the tested plants, or ``names``, as the federation scales them."""
        names = self.names if names is None else names
        if self.scaler is None:
            return [self.own_site(name) for name in names]
        return [self.federation.site(name, self.scaler) for name in names]


def trivial(bench: Bench) -> Predictions:
    """A constant: the share of failures, or the mean remaining life, in all training data."""
    sites = bench.sites()
    pool = bench.sites(bench.pool)
    constant = bench.task.trivial(np.concatenate([site.train.real().y for site in pool]))
    return {
        site.name: {
            split: np.broadcast_to(constant, (len(site.windows[split]), *constant.shape)).copy()
            for split in TESTED
        }
        for site in sites
    }


def alone(bench: Bench, name: str) -> Predictions:
    """One plant that shares nothing: its own rows, its own scaler, its own best epoch."""
    site = bench.own_site(name)
    model = train_whole(bench, site.train, site.validation, ("alone", name))
    return {name: predict_site(model.module, site, bench.task, bench.device, TESTED)}


def pooled(bench: Bench) -> Predictions:
    """All rows in one place, which no plant may do: the ceiling."""
    pool = bench.sites(bench.pool)
    model = train_whole(
        bench,
        Windows.concatenate([site.train for site in pool]),
        Windows.concatenate([site.validation for site in pool]),
        ("pooled",),
    )
    return predict(model.module, bench.sites(), bench.task, bench.device)


def train_whole(
    bench: Bench, train: Windows, validation: Windows, key: tuple[str, ...]
) -> ModelWrapper:
    """Return a model trained for all epochs at once, at its best look at validation data."""
    task, settings = bench.task, bench.settings
    model = bench.build_model()
    model.module.to(bench.device)
    x, y = tensors(train.x, train.y, bench.device)
    x_validation, y_validation = tensors(validation.x, validation.y, bench.device)
    best: dict[str, Any] = {"metric": None, "loss": None, "weights": None}

    def look(epoch: int) -> None:
        if epoch % settings.local_epochs or len(validation) == 0:
            return
        output = outputs(model.module, x_validation)
        metric = task.metrics(validation.y, validation.truth, task.scores(output))[task.primary]
        loss = float(task.loss(output, y_validation))
        lower = best["loss"] is None or loss < best["loss"]
        if task.better(metric, best["metric"]) or (metric is None and lower):
            best.update(metric=metric, loss=loss, weights=copy.deepcopy(model.get_parameters()))

    fit(
        model.module, x, y, task.loss, settings,
        seed=bench.seed, key=key, epochs=bench.rounds * settings.local_epochs, after_epoch=look,
    )  # fmt: skip
    if best["weights"] is not None:
        model.set_parameters(best["weights"])
    return model


def boosted_trees(bench: Bench) -> Predictions:
    """Histogram gradient boosting (scikit-learn) on summary features of the pooled windows."""
    from threadpoolctl import threadpool_limits

    sites = bench.sites()
    train = Windows.concatenate([site.train for site in bench.sites(bench.pool)])
    with threadpool_limits(limits=1):
        model = _Trees(train, bench)
        return {
            site.name: {split: model(site.windows[split]) for split in TESTED} for site in sites
        }


class _Trees:
    """One booster per target column, chosen by the targets' type."""

    def __init__(self, train: Windows, bench: Bench) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        self._task = bench.task
        x, y = summarise(train.x), train.y
        self._columns = y.ndim == 2
        targets = list(y.T) if self._columns else [y]
        self._classes = self._columns or y.dtype.kind == "i"
        kind = HistGradientBoostingClassifier if self._classes else HistGradientBoostingRegressor
        settings = {"max_iter": 150, "learning_rate": 0.06, "early_stopping": False,
                    "random_state": bench.seed % 2**32}  # fmt: skip
        self._models = [
            kind(**settings).fit(x, t) if len(np.unique(t)) > 1 else float(t.flat[0])
            for t in targets
        ]

    def __call__(self, windows: Windows) -> Floats:
        if len(windows) == 0:
            return np.zeros((0, len(self._models)) if self._columns else 0)
        x = summarise(windows.x)
        if not self._classes:
            unit = float(self._task.scores(torch.ones((1, 1)))[0])  # the cap: targets are shares
            return np.asarray(np.clip(self._output(self._models[0], x), 0.0, 1.0) * unit)
        scores = np.stack([self._output(model, x) for model in self._models], axis=1)
        # Horizons are nested: a failure within 30 is one within 60.
        return np.maximum.accumulate(scores, axis=1) if self._columns else scores[:, 0]

    def _output(self, model: Any, x: Floats) -> Floats:
        if isinstance(model, float):
            return np.full(len(x), model)
        return np.asarray(model.predict_proba(x)[:, 1] if self._classes else model.predict(x))


def rules(bench: Bench) -> Predictions:
    """The data set's own physical rules, without any learning; empty where it has none."""
    result: Predictions = {}
    for name in bench.names:
        rows = bench.federation.rows(name)
        alarms = bench.federation.source.rules(rows)
        if alarms is None:
            return {}
        result[name] = {split: alarms[rows.split == split].astype(np.float64) for split in TESTED}
    return result


@dataclass(frozen=True)
class Piece:
    """A piece of work of a baseline: all of it, or one plant's part."""

    baseline: str
    site: str | None = None


WHOLE: dict[str, Callable[[Bench], Predictions]] = {
    "trivial": trivial, "pooled": pooled, "hgb": boosted_trees, "rules": rules,
}  # fmt: skip
PER_SITE: dict[str, Callable[[Bench, str], Predictions]] = {"alone": alone}


def pieces(bench: Bench) -> list[Piece]:
    """Return all work, the longest first, so that two processes finish together."""
    parts = [Piece("pooled"), *(Piece("alone", name) for name in bench.names)]
    return [*parts, Piece("hgb"), Piece("trivial"), Piece("rules")]


def work(bench: Bench, todo: Sequence[Piece]) -> dict[str, Floats]:
    """Do pieces of work; return scores by ``baseline/site/SPLIT``."""
    result = {}
    for piece in todo:
        part = (
            WHOLE[piece.baseline](bench)
            if piece.site is None
            else PER_SITE[piece.baseline](bench, piece.site)
        )
        for site, splits in part.items():
            for split, scores in splits.items():
                result[f"{piece.baseline}/{site}/{split.name}"] = scores
    return result


def gather(scores: dict[str, Floats]) -> dict[str, Predictions]:
    """Return the predictions of each baseline from what ``work`` made."""
    result: dict[str, Predictions] = {}
    for key, values in scores.items():
        baseline, _, rest = key.partition("/")
        site, _, split = rest.rpartition("/")
        result.setdefault(baseline, {}).setdefault(site, {})[Split[split]] = values
    return result

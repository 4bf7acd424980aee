"""Baselines that are not networks: trees, MiniRocket with ridge regression, physical rules.

The estimators of scikit-learn know one column of a task's targets each.

Shapes: N windows, K features, H horizons.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from fedpdm.baselines.inputs import BaselineInputs, predicted
from fedpdm.baselines.minirocket import LENGTH, MiniRocket
from fedpdm.baselines.registry import Baseline, register_baseline
from fedpdm.data.rows import Floats, Floats32, Ints
from fedpdm.data.windows import Windows
from fedpdm.evaluation.scoring import SPLITS, Predictions
from fedpdm.seeding import numpy_generator
from fedpdm.tasks import Task

Answer: TypeAlias = Callable[[NDArray[Any]], Floats]
"""(N, K) features to (N,) probabilities or values."""


def columns_of(task: Task, y: NDArray[np.generic]) -> NDArray[Any]:
    """Return (N,) or (N, H) targets as estimators know them: of C classes, (N, C) of 0 or 1."""
    return y if not task.per_class else (y[:, None] == np.arange(task.classes)).astype(np.int64)


class PerColumn:
    """Scores of a task from estimators that know one column of its targets each.

    Args:
        task: what is predicted.
        y: (N,) or (N, H) training targets; integers and several columns are classes, else values.
        fit: returns the answer for one column, given its position, its targets (N,) and whether
            they are classes. A column with one value only is answered by that value.
    """

    def __init__(
        self,
        task: Task,
        y: NDArray[np.generic],
        fit: Callable[[int, NDArray[Any], bool], Answer],
    ) -> None:
        y = columns_of(task, y)
        self._task, self._several = task, y.ndim == 2
        self._classes = self._several or y.dtype.kind == "i"
        columns = list(y.T) if self._several else [y]
        self._answers = [
            fit(position, column, self._classes)
            if len(np.unique(column)) > 1
            else _constant(float(column.flat[0]))
            for position, column in enumerate(columns)
        ]

    def __call__(self, x: NDArray[Any]) -> Floats:
        """Return (N,) or (N, H) scores as the task's ``scores`` gives them."""
        if len(x) == 0:
            return np.zeros((0, len(self._answers)) if self._several else 0)
        if not self._classes:
            unit = float(self._task.scores(torch.ones((1, 1)))[0])  # the cap: targets are shares
            return np.asarray(np.clip(self._answers[0](x), 0.0, 1.0) * unit)
        scores = np.stack([answer(x) for answer in self._answers], axis=1)
        if self._task.per_class:  # one against the rest, each
            total = scores.sum(axis=1, keepdims=True)
            return np.asarray(
                np.where(total > 0, scores / np.where(total > 0, total, 1), 1 / scores.shape[1])
            )
        # Horizons are nested: a failure within 30 is one within 60.
        return np.maximum.accumulate(scores, axis=1) if self._several else scores[:, 0]


def _constant(value: float) -> Answer:
    return lambda x: np.full(len(x), value)


def trees(x: Floats, seed: int) -> Callable[[int, NDArray[Any], bool], Answer]:
    """Return what fits histogram gradient boosting to columns, on (N, K) training features."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    def fit(position: int, target: NDArray[Any], classes: bool) -> Answer:
        kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
        model = kind(
            max_iter=150, learning_rate=0.06, early_stopping=False, random_state=seed % 2**32
        ).fit(x, target)
        if classes:
            return lambda new: np.asarray(model.predict_proba(new)[:, 1])
        return lambda new: np.asarray(model.predict(new))

    return fit


@register_baseline("hgb", Baseline(
    "Trees", "boosted trees on pooled rows, with summary features of each window",
    name="Boosted trees", subject="Boosted trees on pooled data",
    marker="^", colour="hgb", column="asked", cost=lambda inputs: 0.4 * len(inputs.pool),
    missing=lambda inputs: no_columns(inputs),
))  # fmt: skip
def boosted_trees(inputs: BaselineInputs) -> Predictions:
    """Histogram gradient boosting (scikit-learn) on summary features of the pooled windows.

    With features=statistics or both it gets those features, too.
    """
    from threadpoolctl import threadpool_limits

    sites = inputs.sites()
    train = Windows.concatenate([site.train for site in inputs.sites(inputs.pool)])
    with threadpool_limits(limits=1):
        model = PerColumn(inputs.task, train.y, trees(inputs.table(train), inputs.seed))
        return predicted(sites, lambda windows: model(inputs.table(windows)))


def ridge(
    x: NDArray[Any], checked: tuple[NDArray[Any], NDArray[Any]]
) -> Callable[[int, NDArray[Any], bool], Answer]:
    """Return what fits ridge regression to columns, on (N, K) training features.

    Features are standardised; the penalty is the best of 10 between 0.001 and 1,000 by
    leave-one-out, as for MiniRocket in its paper. Distances to the boundary between classes
    become probabilities by Platt's logistic curve, fitted to validation data (``platt``).

    Args:
        x: training features.
        checked: features (M, K) and targets (M,) or (M, H) of validation data.
    """
    from sklearn.linear_model import RidgeClassifierCV, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    penalties = np.logspace(-3, 3, 10)

    def fit(position: int, target: NDArray[Any], classes: bool) -> Answer:
        kind = RidgeClassifierCV if classes else RidgeCV
        model = make_pipeline(StandardScaler(), kind(alphas=penalties)).fit(x, target)
        if not classes:
            return lambda new: np.asarray(model.predict(new), dtype=np.float64)
        seen, truth = checked
        column = truth[:, position] if truth.ndim == 2 else truth
        slope, offset = platt(model.decision_function(seen) if len(seen) else np.zeros(0), column)

        def answer(new: NDArray[Any]) -> Floats:
            return np.asarray(1 / (1 + np.exp(-(slope * model.decision_function(new) + offset))))

        return answer

    return fit


def platt(distance: Floats, truth: Ints | Floats) -> tuple[float, float]:
    """Return slope and offset of the logistic curve from distances (N,) to probabilities.

    Platt 1999, without his smoothing of targets. The slope is never negative, so the order of
    the scores stays; where the data has one class, or would turn the order round, it is 1.
    """
    from sklearn.linear_model import LogisticRegression

    labels = truth.astype(np.int64)
    if len(np.unique(labels)) < 2:
        return 1.0, 0.0
    curve = LogisticRegression(C=1e6).fit(distance[:, None], labels)
    slope = float(curve.coef_[0, 0])
    return (slope, float(curve.intercept_[0])) if slope > 0 else (1.0, 0.0)


def no_columns(inputs: BaselineInputs) -> str | None:
    """Return why trees and ridge regression cannot learn the task, or None."""
    if inputs.task.columns:
        return None
    return f"task={inputs.task.name} has targets that it does not learn"


def no_series(inputs: BaselineInputs) -> str | None:
    """Return why there is no time series for MiniRocket, or None."""
    if (reason := no_columns(inputs)) is not None:
        return reason
    features, window = inputs.federation.features, inputs.federation.source.window
    if window is None:
        return f"data={inputs.federation.source.name} has single rows and no time series"
    if features.mode == "statistics":
        return "features=statistics leaves no time series"
    if window < LENGTH:
        return f"windows of {window} steps are shorter than its kernels of {LENGTH}"
    return None


@register_baseline("minirocket", Baseline(
    "Rocket", "MiniRocket's random convolutions of pooled windows, and ridge regression",
    name="MiniRocket", subject="MiniRocket and ridge regression on pooled data",
    marker="v", colour="minirocket", cost=lambda inputs: 0.2 * len(inputs.pool), missing=no_series,
))  # fmt: skip
def rocket(inputs: BaselineInputs) -> Predictions:
    """MiniRocket and ridge regression on the pooled windows, at most ``rocket.windows`` of them."""
    from threadpoolctl import threadpool_limits

    settings, pool = inputs.rocket, inputs.sites(inputs.pool)
    train = Windows.concatenate([site.train.real() for site in pool])
    train = train.take(some_windows(train, settings.windows, inputs.seed))
    checked = Windows.concatenate([site.validation for site in pool])
    wanted = columns_of(inputs.task, checked.y)
    transform = MiniRocket(inputs.series(train), settings.features, seed=inputs.seed)

    def table(windows: Windows) -> Floats32:
        return transform(inputs.series(windows))

    with threadpool_limits(limits=1):
        fit = ridge(table(train), (table(checked), wanted))
        model = PerColumn(inputs.task, train.y, fit)
        return predicted(inputs.sites(), lambda windows: model(table(windows)))


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


def no_rules(inputs: BaselineInputs) -> str | None:
    """Return why there are no rules, or None."""
    source = inputs.federation.source
    known = not inputs.names or source.rules(inputs.federation.rows(inputs.names[0])) is not None
    return None if known else f"data={source.name} has no known rules"


@register_baseline("rules", Baseline(
    "Rules", "the process's known physical rules, without learning",
    name="Physical rules", subject="The physical rules alone, without learning,",
    marker="s", colour="rules", missing=no_rules,
))  # fmt: skip
def rules(inputs: BaselineInputs) -> Predictions:
    """The data set's own physical rules, without any learning."""
    result: Predictions = {}
    for name in inputs.names:
        rows = inputs.federation.rows(name)
        alarms = np.asarray(inputs.federation.source.rules(rows), dtype=np.float64)
        result[name] = {split: alarms[rows.split == split] for split in SPLITS}
    return result

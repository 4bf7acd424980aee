"""MiniRocket with ridge regression, and physical rules.

Shapes: N windows, K features, H horizons.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.baselines.columns import Answer, PerColumn, columns_of, no_columns
from fedpdm.baselines.inputs import BaselineInputs, predicted
from fedpdm.baselines.minirocket import LENGTH, MiniRocket
from fedpdm.baselines.registry import Baseline, register_baseline
from fedpdm.data.rows import Floats, Floats32, Ints
from fedpdm.data.windows import Windows
from fedpdm.evaluation.scoring import SPLITS, Predictions
from fedpdm.seeding import numpy_generator


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
    """MiniRocket and ridge regression on the pooled windows, ``rocket.windows`` at most."""
    from threadpoolctl import threadpool_limits

    settings, pool = inputs.rocket, inputs.sites(inputs.pool)
    train = Windows.concatenate([site.train.real() for site in pool])
    if settings.windows is not None:
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

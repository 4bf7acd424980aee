"""Boosted trees (scikit-learn) on every window and its history, on pooled rows and alone.

A table row is a window in figures (``fedpdm.data.summaries``) and, where rows have a time, what
its last row's history says (``fedpdm.data.sources.with_history``). Windows end at every row,
whatever ``data.stride`` networks train with. The loss on validation windows chooses the number of
trees; then trees are grown again on training and validation windows together, as many more as
there are more windows. Thresholds and calibration come from those that never saw validation.

Shapes: N windows, K columns, T steps, F sensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.baselines.columns import Answer, PerColumn, columns_of, no_columns
from fedpdm.baselines.inputs import BaselineInputs
from fedpdm.baselines.registry import Baseline, register_baseline
from fedpdm.data.normalise import Scaler
from fedpdm.data.rows import Floats, Split
from fedpdm.data.sources.base import Source, WrappedSource
from fedpdm.data.sources.with_history import history
from fedpdm.data.summaries import summarise
from fedpdm.evaluation.scoring import SPLITS, Predictions
from fedpdm.federation import Federation
from fedpdm.tasks import Task

SETTINGS: dict[str, Any] = {"max_leaf_nodes": 15, "max_features": 0.3}
"""Small trees, each split of which looks at a random third of the columns."""
RATE, MOST, PATIENCE = 0.06, 300, 15
"""Learning rate, the most trees, and how many more may not lower the loss on validation."""
LEAF = (5, 20)
"""The fewest windows of a leaf: a tenth of the rarest class, within these bounds. The upper one
is scikit-learn's default, a third of the failures of a small site."""
UNCHECKED = 100
"""Trees where there is no validation window to choose by."""
MORE = 2.0
"""At most so many times as many trees grow on training and validation windows together."""
READINGS = 100_000_000
"""The most readings in all sites' windows; where every row would make more, some are left out."""


class _EveryRow(WrappedSource):
    """A source whose windows end at every row, or at every few where there are very many."""

    def __init__(self, inner: Source, rows: int) -> None:
        super().__init__(inner)
        readings = rows * len(inner.features) * (inner.window or 1)
        self.stride = self.evaluation_stride = max(1, -(-readings // READINGS))


FITTED = (Split.TRAIN, Split.VALIDATION)


@dataclass(frozen=True)
class Table:
    """A site's windows as trees see them.

    Attributes:
        fitted: by split, training and validation: (N, K) windows that end at every row, and
            their (N,) or (N, H) targets.
        asked: (N, K) by split: the windows that predictions are wanted of.
    """

    fitted: dict[Split, tuple[Floats, NDArray[np.generic]]]
    asked: dict[Split, Floats]

    @staticmethod
    def of(inputs: BaselineInputs, name: str, alone: bool = False) -> Table:
        """Return the table of a site, scaled as the federation does or by itself alone."""
        own = inputs.federation
        scaler = inputs.own_scaler(name) if alone else inputs.scaler_of(name)
        every = own
        if own.shuffle is None:  # labels are turned with the windows that a run is tested on
            rows = len(own.rows(name)) * len(inputs.pool)
            every = own.with_source(_EveryRow(own.source, rows))
        windows, columns = every.site(name, scaler).windows, _columns(every, name, scaler, FITTED)
        return Table(
            {split: (columns[split], windows[split].y) for split in FITTED},
            _columns(own, name, scaler, SPLITS),
        )


def _columns(
    federation: Federation, name: str, scaler: Scaler, splits: Sequence[Split]
) -> dict[Split, Floats]:
    """Return (N, K) by split: windows in figures, and the history of their last rows."""
    windows, source = federation.site(name, scaler).windows, federation.source
    past = _past(federation, name, scaler)
    sensors = len(federation.features.sensors(source.features))
    result = {}
    for split in splits:
        parts = federation.features.apart(windows[split].x, len(source.features))
        found = [summarise(part[..., :sensors]) for part in parts[:1] if part is not None]
        found += [summarise(part) for part in parts[1:] if part is not None]
        if past is not None:
            found.append(past[federation.ends(name)[split]])
        result[split] = np.concatenate(found, axis=1)
    return result


def _past(federation: Federation, name: str, scaler: Scaler) -> Floats | None:
    """Return (R, 1 + 3 F) of the history of a site's rows; None where rows have no time.

    Readings are scaled first, so a change of operating condition is not one of the machine. The
    age is left out where the data withholds it from networks.
    """
    source, rows = federation.source, federation.rows(name)
    if source.window is None:
        return None
    sensors = len(federation.features.sensors(source.features))
    own = Scaler(scaler.mean[:, :sensors], scaler.scale[:, :sensors])
    scaled = own.apply(rows.values[:, :sensors], rows.condition)
    found = history(replace(rows, values=scaled.astype(np.float64)))
    return found if source.tells_age else found[:, 1:]


class ChosenTrees:
    """Boosted trees of all columns of a task, whose number validation chooses.

    Args:
        task: what is predicted.
        tables: of the sites whose windows are pooled.
        seed: of the draws of columns.
    """

    def __init__(self, task: Task, tables: Sequence[Table], seed: int) -> None:
        parts = [[table.fitted[split] for table in tables] for split in FITTED]
        (x, y), (x_checked, y_checked) = (
            (np.concatenate([x for x, _ in part]), np.concatenate([y for _, y in part]))
            for part in parts
        )
        several = columns_of(task, y_checked)
        checked = several if several.ndim == 2 else several[:, None]
        counts: dict[int, int] = {}
        seed %= 2**32

        def stop(position: int, target: NDArray[Any], classes: bool) -> Answer:
            validation = x_checked, checked[:, position]
            counts[position], answer = stopped(x, target, validation, classes, seed)
            return answer

        def grow(position: int, target: NDArray[Any], classes: bool) -> Answer:
            # More rows bear more trees.
            more = min(len(target) / len(x), MORE)
            count = round(counts.get(position, UNCHECKED) * more)
            return grown(np.concatenate([x, x_checked]), target, count, classes, seed)

        self._checked = PerColumn(task, y, stop)
        self._final = PerColumn(task, np.concatenate([y, y_checked]), grow)

    def __call__(self, asked: dict[Split, Floats]) -> dict[Split, Floats]:
        """Return scores of (N, K) rows by split; those of validation by trees that never saw it."""
        return {
            split: (self._checked if split == Split.VALIDATION else self._final)(x)
            for split, x in asked.items()
        }


def stopped(
    x: Floats,
    target: NDArray[Any],
    checked: tuple[Floats, NDArray[Any]],
    classes: bool,
    seed: int,
) -> tuple[int, Answer]:
    """Return the number of trees with the lowest loss on validation windows, and their answer.

    Args:
        x: (N, K) training windows.
        target: (N,) classes or values.
        checked: (M, K) and (M,) of validation.
        classes: whether targets are classes.
        seed: of the draws of columns.
    """
    if len(np.unique(checked[1])) < 2:
        return UNCHECKED, grown(x, target, UNCHECKED, classes, seed)
    model = _kind(classes)(
        learning_rate=RATE, max_iter=MOST, early_stopping=True, scoring="loss",
        n_iter_no_change=PATIENCE, random_state=seed, **SETTINGS,
        min_samples_leaf=leaf_of(target, classes),
    ).fit(x, target, X_val=checked[0], y_val=checked[1])  # fmt: skip
    best = int(np.argmax(model.validation_score_[1:]))  # of negative losses; the first has no tree

    def answer(new: NDArray[Any]) -> Floats:
        staged = model.staged_predict_proba(new) if classes else model.staged_predict(new)
        found = np.asarray(next(islice(staged, best, None)))
        return found[:, 1] if classes else found

    return best + 1, answer


def grown(x: Floats, target: NDArray[Any], count: int, classes: bool, seed: int) -> Answer:
    """Return what ``count`` trees answer, grown on (N, K) windows."""
    model = _kind(classes)(
        learning_rate=RATE, max_iter=count, early_stopping=False, random_state=seed, **SETTINGS,
        min_samples_leaf=leaf_of(target, classes),
    ).fit(x, target)  # fmt: skip
    if classes:
        return lambda new: np.asarray(model.predict_proba(new)[:, 1])
    return lambda new: np.asarray(model.predict(new))


def leaf_of(target: NDArray[Any], classes: bool) -> int:
    """Return the fewest windows of a leaf for (N,) targets; see ``LEAF``."""
    low, high = LEAF
    rarest = int(np.unique(target, return_counts=True)[1].min()) if classes else high * 10
    return int(np.clip(rarest // 10, low, high))


def _kind(classes: bool) -> Any:
    """Return the estimator of classes or of values."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    return HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor


@register_baseline("hgb", Baseline(
    "Trees", "boosted trees on pooled rows: every window in figures, and its history",
    name="Boosted trees", subject="Boosted trees on pooled data",
    marker="^", colour="hgb", column="asked", cost=lambda inputs: 0.5 * len(inputs.pool),
    missing=no_columns,
))  # fmt: skip
def boosted_trees(inputs: BaselineInputs) -> Predictions:
    """Boosted trees on the pooled windows, validation windows included in the end."""
    tables = {name: Table.of(inputs, name) for name in dict.fromkeys((*inputs.pool, *inputs.names))}
    with one_thread():
        model = ChosenTrees(inputs.task, [tables[name] for name in inputs.pool], inputs.seed)
        return {name: model(tables[name].asked) for name in inputs.names}


@register_baseline("hgb_alone", Baseline(
    "Trees alone", "boosted trees on that site's own rows, like those on pooled rows",
    name="Boosted trees alone", marker="^", hollow=True, colour="hgb", per_site=True,
    interval=True, cost=lambda inputs: 0.5, missing=no_columns,
))  # fmt: skip
def boosted_trees_alone(inputs: BaselineInputs, name: str) -> Predictions:
    """Boosted trees of one site that shares nothing, not even sums for scaling."""
    table = Table.of(inputs, name, alone=True)
    with one_thread():
        return {name: ChosenTrees(inputs.task, [table], inputs.seed)(table.asked)}


def one_thread() -> Any:
    """Keep trees to one thread: baselines run side by side."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1)

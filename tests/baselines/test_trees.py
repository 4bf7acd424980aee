"""Boosted trees: what they see, what validation chooses, and what a site alone may use."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fedpdm.baselines import trees
from fedpdm.baselines.networks import alone, pooled
from fedpdm.baselines.trees import (
    PATIENCE,
    RATE,
    SETTINGS,
    UNCHECKED,
    ChosenTrees,
    Table,
    boosted_trees,
    boosted_trees_alone,
    grown,
)
from fedpdm.data.features import WindowFeatures
from fedpdm.data.leakage.label_shuffle import LabelShuffle
from fedpdm.data.rows import Rows, Split
from fedpdm.data.sources.with_history import HistorySource
from fedpdm.federation import Federation
from fedpdm.tasks import Failure, Horizons, RemainingLife, Task
from fedpdm.testing.tiny import TinySource
from tests.baselines.test_registry import inputs

TRAIN, VALIDATION, TEST = Split.TRAIN, Split.VALIDATION, Split.TEST


class Changed(TinySource):
    """The same sites, with other rows in one split of some of them."""

    at: tuple[str, ...] = ("a", "b")
    split = TEST

    def rows(self, site: str) -> Rows:
        rows = super().rows(site)
        values = rows.values.copy()
        if site in self.at:
            values[rows.split == self.split] += 99.0
        return replace(rows, values=values)


class Validated(Changed):
    split = VALIDATION


class OtherSite(Changed):
    at = ("b",)
    split = TRAIN


@pytest.mark.parametrize("task", [Failure(4.0), Horizons([2, 4, 8]), RemainingLife(9)])
def test_a_site_alone_depends_on_its_own_rows_only(task: Task) -> None:
    ours, theirs = (
        boosted_trees_alone(inputs(task, source), "a") for source in (TinySource, OtherSite)
    )
    for split, scores in ours["a"].items():
        assert np.array_equal(scores, theirs["a"][split]) and len(scores)
    together = (
        boosted_trees(inputs(task, source))["a"][TEST] for source in (TinySource, OtherSite)
    )
    assert not np.array_equal(*together)


def test_trees_are_the_same_whatever_the_test_rows_are() -> None:
    plain, spoiled = (inputs(source=source) for source in (TinySource, Changed))
    asked = Table.of(plain, "a").asked
    found = [
        ChosenTrees(Failure(4.0), [Table.of(given, name) for name in "ab"], 0)(asked)
        for given in (plain, spoiled)
    ]
    assert all(np.array_equal(found[0][split], found[1][split]) for split in found[0])


def test_validation_is_predicted_by_trees_that_never_saw_it_and_test_by_those_that_did() -> None:
    table, counts = Table.of(inputs(), "a"), []
    real = trees.stopped

    def watched(*given: Any) -> Any:
        count, answer = real(*given)
        counts.append(count)
        return count, answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "stopped", watched)
        found = ChosenTrees(Failure(4.0), [table], 0)(table.asked)
    (x, y), (more, their) = (table.fitted[split] for split in (TRAIN, VALIDATION))
    unseen = grown(x, y, counts[0], True, 0)
    np.testing.assert_allclose(found[VALIDATION], unseen(table.asked[VALIDATION]), atol=1e-9)
    count = round(counts[0] * (len(x) + len(more)) / len(x))
    every = grown(np.concatenate([x, more]), np.concatenate([y, their]), count, True, 0)
    assert np.array_equal(found[TEST], every(table.asked[TEST]))
    assert not np.array_equal(found[TEST], unseen(table.asked[TEST]))


def test_validation_chooses_the_number_of_trees() -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import log_loss

    (x, y), checked = (Table.of(inputs(), "a").fitted[split] for split in (TRAIN, VALIDATION))
    model = HistGradientBoostingClassifier(
        learning_rate=RATE, max_iter=150, early_stopping=False, random_state=0, **SETTINGS,
        min_samples_leaf=trees.leaf_of(y, True),
    ).fit(x, y)  # fmt: skip
    losses = [log_loss(checked[1], risks) for risks in model.staged_predict_proba(checked[0])]
    found = trees.stopped(x, y, checked, True, 0)[0]
    assert found == int(np.argmin(losses[: found + PATIENCE])) + 1
    assert found > 1 and losses[found - 1] < losses[0]


@pytest.mark.parametrize("kept", [0, None])
def test_without_a_failure_in_validation_nothing_is_chosen(kept: int | None) -> None:
    table = Table.of(inputs(), "a")
    x, y = table.fitted[VALIDATION]
    table.fitted[VALIDATION] = (x[:kept], np.zeros_like(y)[:kept])
    found = ChosenTrees(Failure(4.0), [table], 0)(table.asked)
    unseen = grown(*table.fitted[TRAIN], UNCHECKED, True, 0)
    assert np.array_equal(found[VALIDATION], unseen(table.asked[VALIDATION]))


def test_labels_turn_with_the_windows_of_the_run() -> None:
    given = inputs()
    shuffle = LabelShuffle("rotated", 0)
    shuffled = Federation(given.federation.source, given.task, shuffle=shuffle)
    table = Table.of(replace(given, federation=shuffled), "a")
    windows = shuffled.site("a", given.scaler_of("a")).windows
    assert np.array_equal(table.fitted[TRAIN][1], windows[TRAIN].y)


def test_windows_end_at_every_row_whatever_the_stride(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sparse(TinySource):
        stride = evaluation_stride = 9

    often, seldom = (Table.of(inputs(source=source), "a") for source in (TinySource, Sparse))
    for split in (TRAIN, VALIDATION):
        for one, other in zip(often.fitted[split], seldom.fitted[split], strict=True):
            assert np.array_equal(one, other)
    assert len(often.asked[TEST]) > 5 * len(seldom.asked[TEST])
    monkeypatch.setattr(trees, "READINGS", 2 * 3 * 12 * 720 // 4)  # a quarter of the windows
    few = Table.of(inputs(source=Sparse), "a").fitted[TRAIN][0]
    assert 3.5 < len(often.fitted[TRAIN][0]) / len(few) < 4.5


def test_history_is_of_scaled_readings_and_the_age_is_told_where_it_may_be() -> None:
    class Aged(TinySource):
        tells_age = False

    class Switching(TinySource):
        """Every second row is read in another unit, and says so."""

        conditions = 2

        def rows(self, site: str) -> Rows:
            rows = super().rows(site)
            second = np.arange(len(rows)) % 2
            values = np.where(second[:, None] == 1, 1000 + 10 * rows.values, rows.values)
            return replace(rows, values=values, condition=second)

    plain, aged, switching = (
        Table.of(inputs(source=source), "a").asked[TEST] for source in (TinySource, Aged, Switching)
    )
    assert plain.shape[1] == 3 * 6 + 1 + 3 * 3 and aged.shape[1] == plain.shape[1] - 1
    assert np.array_equal(np.delete(plain, 18, axis=1), aged)
    # Each condition is scaled by its own moments, so the switching all but disappears.
    assert np.abs(switching[:, 19:] - plain[:, 19:]).max() < 0.5


def test_history_is_not_taken_twice() -> None:
    given = inputs()
    features = WindowFeatures("history")
    source = HistorySource(TinySource({"a": {"machines": 6}, "b": {"machines": 6}}, window=12))
    federation = Federation(source, Failure(4.0), features=features)
    own = replace(given, federation=federation, scaler=federation.moments("a").scaler())
    assert Table.of(own, "a").asked[TEST].shape[1] == Table.of(given, "a").asked[TEST].shape[1]


def test_single_rows_have_no_history() -> None:
    assert Table.of(inputs(window=None), "a").asked[TEST].shape[1] == 3


@pytest.mark.parametrize(("baseline", "uses"), [(alone, True), (pooled, False)])
def test_only_a_network_alone_trains_on_validation_rows_in_the_end(
    baseline: Any, uses: bool
) -> None:
    plain, changed = inputs(), replace(inputs(source=Validated), scaler=inputs().scaler)
    found = []
    for given in (plain, changed):
        torch.manual_seed(0)  # the same weights to begin with
        found.append(baseline(given, *(["a"] if uses else []))["a"][TEST])
    assert np.array_equal(*found) != uses


@pytest.mark.parametrize(("rare", "leaf"), [(19, 5), (71, 7), (254, 20), (5000, 20)])
def test_a_leaf_is_small_beside_the_rarest_class(rare: int, leaf: int) -> None:
    target = np.r_[np.ones(rare), np.zeros(6000)]
    assert trees.leaf_of(target, classes=True) == leaf
    assert trees.leaf_of(target, classes=False) == 20

"""Tasks of many classes: labels from the truth, whole machines tested, metrics by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from fedpdm.baselines.columns import PerColumn
from fedpdm.baselines.trees import grown
from fedpdm.config.compose import compose
from fedpdm.data.rows import Rows, Split
from fedpdm.data.sources.base import Source
from fedpdm.errors import ConfigError, DataError
from fedpdm.runs.experiment import build
from fedpdm.simulate import main
from fedpdm.tasks import AssetType, DeviceFailure, Task
from fedpdm.tasks.metrics import of_classes

SITES = ("detroit", "houston", "leeds", "nagoya")
SMALL = ["experiment=homeiq", *(f"sites.{site}.machines=12" for site in SITES)]
KINDS = ["pump", "fan", "spindle"]


def test_metrics_by_hand() -> None:
    scores = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5]])
    found = of_classes(np.array([0, 1, 1, 0]), scores)
    assert found["accuracy"] == 0.5
    # Class 2 is answered, but never true: the two that occur count.
    assert found["macro_recall"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert found["macro_precision"] == pytest.approx((1 / 2 + 1 / 1) / 2)
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    logs = [math.log(p) for p in (0.7, 0.3, 0.8, 0.2)]
    assert found["log_loss"] == pytest.approx(-sum(logs) / 4)
    assert of_classes(np.zeros(0), np.zeros((0, 3)))["macro_f1"] is None


def test_scores_are_probabilities_and_the_constant_answers_the_majority() -> None:
    task = AssetType(KINDS)
    scores = task.scores(torch.randn(5, 3))
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    constant = task.trivial(np.array([2, 2, 0, 2]))
    np.testing.assert_allclose(constant, [0.25, 0, 0.75])
    assert task.score_columns == ("p_pump", "p_fan", "p_spindle")


def test_trees_give_a_probability_of_every_class() -> None:
    draw = np.random.default_rng(0)
    y = draw.integers(0, 3, 300)
    x = np.stack([y + draw.normal(0, 0.1, 300), draw.normal(size=300)], axis=1)

    def fit(position: int, target: Any, classes: bool) -> Any:
        return grown(x, target, 50, classes, 0)

    scores = PerColumn(AssetType(KINDS), y, fit)(x)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert (scores.argmax(axis=1) == y).mean() > 0.95


def test_the_log_likelihood_is_the_loss() -> None:
    task, output = AssetType(KINDS), torch.randn(6, 3)
    target = torch.tensor([0, 1, 2, 2, 1, 0])
    true, mean = task.log_likelihoods(output, target)
    torch.testing.assert_close(-true.sum(dim=1), task.row_losses(output, target))
    torch.testing.assert_close(mean[:, 0], torch.log_softmax(output, dim=1).mean(dim=1))


@pytest.mark.parametrize("classes", [None, ["pump"], ["pump", "pump"]])
def test_classes_must_be_named_and_differ(classes: list[str] | None) -> None:
    with pytest.raises(ConfigError, match=r"task\.classes"):
        AssetType(classes)


def parts(*words: str) -> tuple[Task, Source, list[Rows]]:
    experiment = build(compose([*SMALL, *words]))
    source = experiment.federation.source
    return experiment.task, source, [source.rows(site) for site in source.sites]


@pytest.fixture(scope="module")
def kinds() -> tuple[Task, Source, list[Rows]]:
    return parts("data.days=60")


@pytest.fixture(scope="module")
def failures() -> tuple[Task, Source, list[Rows]]:
    return parts("task=device_failure", "data.days=150")


def test_a_machine_is_in_one_part_and_every_kind_in_training(
    kinds: tuple[Task, Source, list[Rows]],
) -> None:
    task, _, sites = kinds
    for rows in sites:
        table = pd.DataFrame({
            "machine": rows.machine, "split": rows.split, "kind": task.targets(rows)[0],
        })  # fmt: skip
        assert (table.groupby("machine")["split"].nunique() == 1).all()
        assert (table.groupby("machine")["kind"].nunique() == 1).all()
        assert set(table["split"]) == {Split.TRAIN, Split.VALIDATION, Split.TEST}
        trained = table[table["split"] == Split.TRAIN]["kind"]
        assert set(trained) == set(table["kind"])


def test_a_failure_mode_is_that_of_the_hidden_life(
    failures: tuple[Task, Source, list[Rows]],
) -> None:
    task, source, sites = failures
    assert isinstance(task, DeviceFailure)
    for site, rows in zip(source.sites, sites, strict=True):
        target, positive, known = task.targets(rows)
        near = rows.time_to_failure <= task.horizon
        assert ((target > 0) == near).all() and (positive == near).all()
        mode = np.array(task.names)[target]
        assert (mode[near] == source.truth(site)["mode"][near]).all()
        assert (known == (near | (rows.observed >= task.horizon) | ~np.isnan(rows.time_to_failure)
                          )).all()  # fmt: skip


def of_one_feature(task: Task, sites: Sequence[Rows]) -> float:
    """Return the best macro F1 of thresholds on one reading, as many as there are classes."""
    from sklearn.tree import DecisionTreeClassifier

    values = np.concatenate([rows.values for rows in sites])
    y = np.concatenate([task.targets(rows)[0] for rows in sites])
    known = np.concatenate([task.targets(rows)[2] for rows in sites])
    best = 0.0
    for column in values[known].T:
        x = np.where(np.isnan(column), np.nanmean(column), column)[:, None]
        tree = DecisionTreeClassifier(
            max_leaf_nodes=2 * task.classes, class_weight="balanced", random_state=0
        ).fit(x, y[known])
        found = np.zeros((len(x), task.classes))
        found[:, tree.classes_] = tree.predict_proba(x)
        best = max(best, of_classes(y[known], found)["macro_f1"] or 0.0)
    return best


def test_no_thresholds_on_one_reading_give_the_labels(
    kinds: tuple[Task, Source, list[Rows]], failures: tuple[Task, Source, list[Rows]]
) -> None:
    task, _, sites = kinds
    assert of_one_feature(task, sites) < 0.6
    task, _, sites = failures
    assert of_one_feature(task, sites) < 0.4


def test_a_word_that_is_no_class_is_refused(kinds: tuple[Task, Source, list[Rows]]) -> None:
    _, _, sites = kinds
    with pytest.raises(DataError, match=r"task\.classes"):
        AssetType(KINDS).targets(sites[0])


def test_data_without_the_column_says_where_it_comes_from() -> None:
    with pytest.raises(DataError, match=r"sites\.detroit\.groups"):
        parts("data.days=60", "task.column=colour")[1]


@pytest.mark.parametrize(
    "task", [pytest.param("asset_type", marks=pytest.mark.long), "device_failure"]
)  # test_experiments runs the other
def test_the_experiment_ends_with_a_report(task: str, tmp_path: Path) -> None:
    words = [
        *SMALL, f"task={task}", "data.days=80", "rounds=1", "training.local_epochs=1",
        "engine=serial", "baselines.processes=0", "baselines.controls=[trivial,hgb]",
        f"hydra.run.dir={tmp_path}",
    ]  # fmt: skip
    assert main(words) == 0
    summary: dict[str, Any] = json.loads((tmp_path / "summary.json").read_text())
    test = summary["test"]
    constant = test["baselines"]["trivial"]["global"]
    assert 0 < constant["accuracy"] < 1
    assert test["baselines"]["hgb"]["global"]["accuracy"] >= constant["accuracy"]
    assert test["alarms"] is None and summary["validation"]["metric"] == "macro_f1"
    assert "macro F1" in (tmp_path / "report.html").read_text()

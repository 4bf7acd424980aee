"""Baselines: which there are, which cannot be had, and what they may look at."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedpdm.baselines import estimators, workers
from fedpdm.baselines.estimators import platt, rocket, some_windows
from fedpdm.baselines.inputs import BaselineInputs, BaselineSchedule, RocketSettings
from fedpdm.baselines.minirocket import MiniRocket
from fedpdm.baselines.registry import (
    BASELINES,
    Piece,
    diverged,
    gather,
    left_out,
    pieces,
    predictors,
    wanted,
    work,
)
from fedpdm.baselines.trees import boosted_trees
from fedpdm.baselines.workers import BaselineWorkers
from fedpdm.data.features import RAW, WindowFeatures
from fedpdm.data.rows import Rows, Split
from fedpdm.data.windows import Windows
from fedpdm.errors import ConfigError
from fedpdm.federation import Federation
from fedpdm.models import ModelFactory
from fedpdm.tasks import Failure, Horizons, RemainingLife, Task
from fedpdm.testing.tiny import TinySource
from fedpdm.training.loop import TrainingSettings

ONE = BaselineSchedule(TrainingSettings(1, 8, 0.01), rounds=1)


def inputs(
    task: Task | None = None,
    source: type[TinySource] = TinySource,
    window: int | None = 12,
    features: WindowFeatures = RAW,
    **given: Any,
) -> BaselineInputs:
    sites = source({"a": {"machines": 6}, "b": {"machines": 6}}, window=window)
    built = Federation(sites, task or Failure(4.0), features=features)
    total = built.moments("a") + built.moments("b")
    return BaselineInputs(
        federation=built, names=("a", "b"),
        build_model=lambda: ModelFactory.create_model(
            "mlp", len(built.inputs), 2, sequence_length=built.input_length
        ),
        seed=0, scaler=total.scaler(), pool=("a", "b"), device=torch.device("cpu"),
        **({"rocket": RocketSettings(features=168, windows=60), "pooled": ONE, "alone": ONE,
            "baselines": tuple(n for n, shown in BASELINES.items() if shown.task is None)}
           | given),
    )  # fmt: skip


def test_every_control_has_a_column_and_is_explained() -> None:
    shown = predictors()
    assert set(BASELINES) | {"federated"} == set(shown)
    assert all(one.heading and one.explained for one in shown.values())


def test_only_what_is_wanted_is_done_the_longest_first() -> None:
    some = inputs(baselines=wanted(["hgb", "alone", "trivial"], "failure"))
    todo = pieces(some)
    assert [piece.baseline for piece in todo] == ["alone", "alone", "hgb", "trivial"]
    assert {piece.site for piece in todo[:2]} == {"a", "b"}
    assert set(gather(work(some, todo[2:]))) == {"hgb", "trivial"}


def trained(inputs: BaselineInputs, piece: Piece) -> dict[str, np.ndarray[Any, Any]]:
    torch.manual_seed(0)  # the same weights to begin with
    return work(inputs, [piece])


def test_a_site_alone_has_a_schedule_of_its_own() -> None:
    longer = BaselineSchedule(TrainingSettings(1, 8, 0.01), rounds=30)
    some = inputs(baselines=wanted(["alone", "pooled"], "failure"), alone=longer)
    assert pieces(some)[-1].baseline == "pooled", "30 epochs of a site take longer"
    before, after = (trained(b, Piece("alone", "a")) for b in (inputs(), some))
    assert not np.array_equal(before["alone/a/TEST"], after["alone/a/TEST"])
    before, after = (trained(b, Piece("pooled")) for b in (inputs(), some))
    assert np.array_equal(before["pooled/a/TEST"], after["pooled/a/TEST"])


def test_training_that_diverges_leaves_its_control_out_and_says_where() -> None:
    wild = BaselineSchedule(TrainingSettings(4, 8, 1e30, optimizer="sgd"), rounds=2)
    found = gather(work(inputs(alone=wild), [Piece("alone", "b"), Piece("pooled")]))
    assert list(reasons := diverged(found)) == ["alone"]
    assert "no finite output at b" in reasons["alone"]


def test_an_unknown_control_is_named() -> None:
    with pytest.raises(ConfigError, match="magic is unknown; choose some of trivial, alone"):
        wanted(["alone", "magic"], "failure")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"window": None}, "data=tiny has single rows and no time series"),
        ({"window": 8}, "windows of 8 steps are shorter than its kernels of 9"),
        ({"features": WindowFeatures("statistics")}, "features=statistics leaves no time series"),
    ],
)
def test_minirocket_is_left_out_with_the_reason(given: dict[str, Any], reason: str) -> None:
    made = inputs(**given)
    assert left_out(made) == {"minirocket": reason, "rules": "data=tiny has no known rules"}
    assert "minirocket" not in {piece.baseline for piece in pieces(made)}


@pytest.mark.parametrize("baseline", [rocket, boosted_trees])
@pytest.mark.parametrize("task", [Failure(4.0), Horizons([2, 4, 8]), RemainingLife(9)])
@pytest.mark.parametrize("features", [RAW, WindowFeatures("both")])
def test_trees_and_minirocket_predict_every_task(
    baseline: Any, task: Task, features: WindowFeatures
) -> None:
    made = inputs(task, features=features)
    found = baseline(made)
    for site in made.sites():
        for split in (Split.TEST, Split.HELDOUT):
            scores, part = found[site.name][split], site.windows[split]
            assert len(scores) == len(part) and np.isfinite(scores).all()
            assert scores.min() >= 0 and scores.max() <= (9 if task.name == "rul" else 1)
            if task.name == "horizons":
                assert scores.shape[1] == 3 and (np.diff(scores, axis=1) >= 0).all()
    pooled = np.concatenate([site.test.truth for site in made.sites()])
    target = np.concatenate([site.test.y for site in made.sites()])
    scores = np.concatenate([found[name][Split.TEST] for name in ("a", "b")])
    if task.name == "failure":  # the sensor that creeps up is there to be found
        metric = task.metrics(target, pooled, scores)
        assert (metric["roc_auc"] or 0) > 0.7


class Spoiled(TinySource):
    """The same sites with test and held-out rows of another world."""

    def rows(self, site: str) -> Rows:
        rows = super().rows(site)
        values = rows.values.copy()
        values[rows.split >= Split.TEST] = 99.0
        return replace(rows, values=values)


def test_minirocket_is_the_same_whatever_the_test_rows_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    class Watched(MiniRocket):
        def __init__(self, windows: np.ndarray, *rest: Any, **more: Any) -> None:
            super().__init__(windows, *rest, **more)  # type: ignore[arg-type]
            seen.append(np.concatenate([part.bias.numpy().ravel() for part in self.dilations]))

    monkeypatch.setattr(estimators, "MiniRocket", Watched)
    for source in (TinySource, Spoiled):
        rocket(inputs(source=source))
    assert np.array_equal(*seen)


def labelled(positives: int, healthy: int) -> Windows:
    y = np.r_[np.ones(positives, dtype=np.int64), np.zeros(healthy, dtype=np.int64)]
    none, x = np.zeros(len(y), dtype=bool), np.zeros((len(y), 9, 1), dtype=np.float32)
    return Windows(x, y, y * 1.0, y.astype(str), y * 1.0, none, none)


def test_a_cap_on_windows_keeps_the_rare_ones() -> None:
    few, many = labelled(30, 970), labelled(400, 600)
    assert len(some_windows(few, 2000, 0)) == 1000
    chosen = few.take(some_windows(few, 100, 0))
    assert len(chosen) == 100 and chosen.y.sum() == 30
    assert many.take(some_windows(many, 100, 0)).y.sum() == 50
    first, again, other = (some_windows(few, 100, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert len(set(first.tolist())) == 100


def test_probabilities_keep_the_order_and_have_the_share_of_validation() -> None:
    random = np.random.default_rng(0)
    distance = random.normal(size=4000)
    truth = (random.random(4000) < 1 / (1 + np.exp(-(3 * distance - 2)))).astype(np.int64)
    slope, offset = platt(distance, truth)
    assert (slope, offset) == pytest.approx((3, -2), rel=0.15)
    found = 1 / (1 + np.exp(-(slope * distance + offset)))
    assert found.mean() == pytest.approx(truth.mean(), abs=1e-3)


@pytest.mark.parametrize("kind", ["one class", "reversed", "nothing"])
def test_validation_that_cannot_calibrate_leaves_the_order_alone(kind: str) -> None:
    distance: np.ndarray = np.linspace(-1, 1, 50)
    truth: Sequence[int] = (distance < 0).astype(int) if kind == "reversed" else np.zeros(50, int)  # type: ignore[assignment]
    if kind == "nothing":
        distance, truth = distance[:0], truth[:0]
    assert platt(distance, np.asarray(truth)) == (1.0, 0.0)


@pytest.mark.parametrize(("free", "begins"), [(0, False), (1, True)])
def test_baselines_on_no_free_core_wait_for_the_first_round(
    free: int, begins: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: Any) -> dict[str, np.ndarray]:
        (tmp_path / "begun").touch()
        return {"x/a/TEST": np.ones(1)}

    monkeypatch.setattr(workers, "work", work)
    beside = BaselineWorkers(inputs(), tmp_path, 1, lambda: None, free)
    for _ in range(100 if begins else 10):
        if (tmp_path / "begun").exists():
            break
        time.sleep(0.05)
    assert (tmp_path / "begun").exists() == begins
    beside.release()
    assert beside.scores()["x/a/TEST"] == 1.0
    beside.stop()

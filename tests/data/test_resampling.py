"""Resampling: in training windows only, marked, keyed, and by somebody else's SMOTE."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from fedpdm.baselines.inputs import BaselineInputs, BaselineSchedule
from fedpdm.baselines.networks import trivial
from fedpdm.data.resampling import Resampler
from fedpdm.data.rows import Split
from fedpdm.data.windows import Windows
from fedpdm.errors import ConfigError
from fedpdm.federation import Federation
from fedpdm.models import ModelFactory
from fedpdm.tasks import Failure, RemainingLife
from fedpdm.testing.tiny import TinySource
from fedpdm.training.loop import TrainingSettings

pytest.importorskip("imblearn")


def sites(kind: str | None, seed: int = 0, window: int | None = 8, **extra: object) -> Federation:
    resampler = None if kind is None else Resampler(kind, seed, **extra)  # type: ignore[arg-type]
    source = TinySource({"a": {}, "b": {"machines": 6}}, window=window)
    return Federation(source, Failure(4.0), resampler=resampler)


def windows(built: Federation, split: Split, name: str = "a") -> Windows:
    return built.site(name, built.moments(name).scaler()).windows[split]


def rows(failures: int, healthy: int = 30, grade: bool = True) -> Windows:
    """Rows of two measures and, last, a grade of three."""
    random = np.random.default_rng(3)
    x = random.normal(size=(failures + healthy, 3)).astype(np.float32)
    if grade:
        x[:, 2] = random.integers(0, 3, len(x))
    y = (np.arange(len(x)) < failures).astype(np.int64)
    flat = np.zeros(len(x), dtype=bool)
    return Windows(x, y, y.astype(float), np.arange(len(x)).astype(str), y * 1.0, flat, flat)


@pytest.mark.parametrize(("kind", "window"), [("oversample", 8), ("smote", None)])
def test_training_is_evened_out_and_nothing_else_changes(kind: str, window: int | None) -> None:
    plain, evened = sites(None, window=window), sites(kind, window=window)
    before, after = windows(plain, Split.TRAIN), windows(evened, Split.TRAIN)
    assert before.y.mean() < 0.4 and after.y.mean() == 0.5
    assert after.made is not None and after.made.sum() == len(after) - len(before)
    assert np.array_equal(after.real().x, before.x) and np.array_equal(after.real().y, before.y)
    assert after.y[after.made].min() == 1, "only the rarer class grows"
    for split in (Split.VALIDATION, Split.TEST, Split.HELDOUT):
        part = windows(evened, split)
        assert part.made is None and np.array_equal(part.x, windows(plain, split).x)
    first, second = plain.moments("a"), evened.moments("a")
    assert np.array_equal(first.total, second.total) and np.array_equal(first.count, second.count)


def test_repeated_windows_are_windows_that_were_there() -> None:
    after = windows(sites("oversample"), Split.TRAIN)
    assert after.made is not None
    there = {window.tobytes() for window in after.real().x}
    assert {window.tobytes() for window in after.x[after.made]} <= there


def test_smote_never_mixes_grades_and_stays_between_failures() -> None:
    before = rows(failures=8)
    after = Resampler("smote", 0, ("grade",))(before, "a", ("m", "n", "grade"))
    assert after.made is not None and after.made.sum() == 22
    assert set(np.unique(after.x[:, 2])) == {0, 1, 2}
    low, high = before.x[:8, :2].min(0), before.x[:8, :2].max(0)
    made = after.x[after.made, :2]
    assert (made >= low - 1e-6).all() and (made <= high + 1e-6).all()
    assert set(after.machine[after.made]) == {""} and np.isnan(after.time[after.made]).all()
    mixed = Resampler("smote", 0)(before, "a", ("m", "n", "grade"))
    assert len(np.unique(mixed.x[:, 2])) > 3, "without being told, SMOTE would mix them"


def test_draws_hang_on_seed_and_site() -> None:
    one = Resampler("smote", 0)(rows(8), "a", ("m", "n", "o")).x
    assert np.array_equal(one, Resampler("smote", 0)(rows(8), "a", ("m", "n", "o")).x)
    for other in (
        Resampler("smote", 1)(rows(8), "a", "mno"),
        Resampler("smote", 0)(rows(8), "b", "mno"),
    ):
        assert not np.array_equal(one, other.x)


@pytest.mark.parametrize(("kind", "failures"), [("smote", 0), ("smote", 1), ("oversample", 0)])
def test_who_has_nothing_to_resample_from_keeps_what_there_is(kind: str, failures: int) -> None:
    before = rows(failures)
    assert Resampler(kind, 0)(before, "a", ("m", "n", "o")) is before


def test_two_failures_are_enough_for_smote() -> None:
    assert Resampler("smote", 0)(rows(2), "a", ("m", "n", "o")).y.mean() == 0.5


def test_pooled_windows_know_which_were_made() -> None:
    first, second = windows(sites("oversample"), Split.TRAIN), windows(sites(None), Split.TRAIN)
    joined = Windows.concatenate([first, second])
    assert joined.made is not None and first.made is not None
    assert joined.made.sum() == first.made.sum() and not joined.made[len(first) :].any()


def test_the_trivial_predictor_and_the_report_keep_the_real_share() -> None:
    import torch

    real, built = sites(None), sites("oversample")
    once = BaselineSchedule(TrainingSettings(1, 8, 0.1), rounds=1)
    inputs = BaselineInputs(
        federation=built, names=("a", "b"),
        build_model=lambda: ModelFactory.create_model("mlp", 3, 2),
        pooled=once, alone=once, seed=0, scaler=None, pool=("a", "b"),
        device=torch.device("cpu"), baselines=(),
    )  # fmt: skip
    share = np.concatenate([windows(real, Split.TRAIN, name).y for name in ("a", "b")]).mean()
    assert trivial(inputs)["a"][Split.TEST] == pytest.approx(share)
    shapes = [made.shape(made.site("a", made.moments("a").scaler())) for made in (real, built)]
    assert shapes[1].pop("resampled") > shapes[0].pop("resampled") == 0
    assert shapes[0] == shapes[1]


def test_what_cannot_be_resampled_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="histories is the history of none: use training.resamp"):
        windows(sites("smote"), Split.TRAIN)
    life = Federation(TinySource({"a": {}}), RemainingLife(9), resampler=Resampler("oversample", 0))
    with pytest.raises(ConfigError, match="evens out the classes of task=failure"):
        windows(life, Split.TRAIN)
    with pytest.raises(ConfigError, match="resample=adasyn is unknown; choose smote, oversample"):
        Resampler("adasyn", 0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'fedpdm\[resampling\]'"):
        Resampler("smote", 0)

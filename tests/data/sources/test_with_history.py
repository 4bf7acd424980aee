"""Columns of a row's past: closed forms, no look ahead, and the same numbers in predict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fedpdm.config.compose import compose
from fedpdm.data.rows import Rows, Split
from fedpdm.data.sources.with_history import MIDDLE, NEW, add_history, history, history_names
from fedpdm.errors import ConfigError, ModelError
from fedpdm.predict import load_predictor
from fedpdm.promote import package
from fedpdm.runs.experiment import build
from fedpdm.runs.reopened import reopen
from fedpdm.simulate import main as simulate
from tests.promote.toy_sites import SENSORS, SETTINGS, write_sites


def rows(values: list[list[float]], life: list[int]) -> Rows:
    count = len(values)
    none = np.full(count, np.nan)
    return Rows(
        ("a", "b"), np.array(values, dtype=float), np.array(["m"] * count),
        np.arange(10.0, 10.0 + count), np.array(life), none, np.zeros(count),
        np.zeros(count, dtype=np.int8), np.zeros(count, dtype=np.int64),
    )  # fmt: skip


def test_columns_of_three_rows_and_of_a_new_life() -> None:
    nan = float("nan")
    found = history(rows([[1, 5], [3, nan], [7, 9], [2, nan]], [0, 0, 0, 1]))
    names = history_names(("a", "b"))[2:]
    by_name = dict(zip(names, found.T, strict=True))
    assert by_name["age in life"].tolist() == [0, 1, 2, 0]
    fade = 0.5 ** (1 / MIDDLE)
    levels = [1, (3 + fade) / (1 + fade), (7 + 3 * fade + fade**2) / (1 + fade + fade**2), 2]
    np.testing.assert_allclose(by_name["a: level"], levels)
    np.testing.assert_allclose(by_name["a: change"], np.array(levels) - [1, 2, 11 / 3, 2])
    two = (9 + 5 * fade**2) / (1 + fade**2)  # the missing reading has no weight
    np.testing.assert_allclose(by_name["b: level"], [5, 5, two, nan])
    assert by_name["a: trend"][[0, 3]].tolist() == [0, 0] and by_name["a: trend"][2] > 0


def test_the_part_when_new_is_its_first_rows() -> None:
    found = add_history(rows([[float(k), 0] for k in range(NEW + 5)], [0] * (NEW + 5)))
    place = {name: k for k, name in enumerate(found.features)}
    level, change = (found.values[:, place[f"a: {of}"]] for of in ("level", "change"))
    np.testing.assert_allclose((level - change)[-6:], (NEW - 1) / 2)


def test_no_row_knows_what_comes_after_it() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(60, 2))
    plain = rows(values.tolist(), [0] * 30 + [1] * 30)
    changed = values.copy()
    changed[40:] += 5
    np.testing.assert_array_equal(history(plain)[:40], history(replace(plain, values=changed))[:40])


def test_data_without_time_or_with_switching_conditions_is_refused() -> None:
    for data in (["data=ai4i", "model=mlp"], ["data=cmapss", "data.subset=FD002"]):
        with pytest.raises(ConfigError, match="features=history"):
            build(compose([*data, "features=history"]))


def test_predict_computes_what_training_saw(tmp_path: Path) -> None:
    sites, run = write_sites(tmp_path / "sites", ["north"]), tmp_path / "run"
    words = ["--config-dir", str(sites), f"data.path={sites}", "site=north", *SETTINGS]
    fewer = ["rounds=1", "training.local_epochs=1", "baselines.controls=[]", "features=history"]
    assert simulate([*words, *fewer, f"hydra.run.dir={run}"]) == 0
    predictor = load_predictor(run)
    frame = pd.read_csv(sites / "north.csv")
    assert predictor.features.columns(SENSORS) == history_names(tuple(SENSORS))
    scored = predictor.score(frame).set_index(["machine", "time"])["risk"]
    windows = reopen(run).sites[0].windows[Split.VALIDATION]
    with torch.no_grad():
        output = predictor.model.module(torch.from_numpy(windows.x))
    mine = predictor.task.scores(output).ravel()
    assert len(windows) > 20  # times of files are days since 1970
    keys = [(m, str((pd.Timestamp(0) + pd.Timedelta(days=t)).date()))
            for m, t in zip(windows.machine, windows.time, strict=True)]  # fmt: skip
    np.testing.assert_allclose(scored.loc[keys], mine, rtol=1e-5)
    with pytest.raises(ModelError, match="features=history"):
        package.require_readable(predictor)

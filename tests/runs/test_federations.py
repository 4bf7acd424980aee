"""``sites.NAME.models``: a federation for each model, and their ensemble at each site."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpdm.comparison.recommend import measured_models
from fedpdm.config.compose import compose
from fedpdm.data.rows import Split
from fedpdm.errors import ConfigError, HistoryError
from fedpdm.history import History
from fedpdm.models import ModelFactory, ModelManager
from fedpdm.predict import load_predictor
from fedpdm.runs.federations import ensemble
from fedpdm.simulate import main
from fedpdm.tasks import Failure

BASE = [
    "sites.detroit.machines=8", "sites.houston.machines=8", "data.days=120", "data.stride=28",
    "baselines.controls=[alone]", "baselines.processes=1", "evaluate.bootstrap=0", "rounds=2",
    "training.local_epochs=1", "engine=serial",
]  # fmt: skip
PREFER = ["sites.detroit.models=[mlp,lstm]", "sites.houston.models=[lstm]"]


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "models.json").read_text())
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("federations") / "whole"
    assert main([*BASE, *PREFER, f"hydra.run.dir={folder}"]) == 0
    return folder


def test_each_federation_is_the_run_of_its_sites_alone(whole: Path, tmp_path: Path) -> None:
    words = [word for word in BASE if "houston" not in word]
    assert main([*words, "site=detroit", "model=mlp", f"hydra.run.dir={tmp_path / 'own'}"]) == 0
    with History.open(whole / "models" / "mlp") as inside, History.open(tmp_path / "own") as own:
        for name, array in own.weights(2).items():
            assert np.array_equal(inside.weights(2)[name], array)


def test_sites_have_their_models_and_validation_chooses(whole: Path) -> None:
    found = read(whole)
    assert {name: site["models"] for name, site in found["sites"].items()} == {
        "detroit": ["mlp", "lstm"], "houston": ["lstm"]
    }  # fmt: skip
    assert found["federations"]["lstm"]["sites"] == ["detroit", "houston"]
    detroit, houston = found["sites"]["detroit"], found["sites"]["houston"]
    assert set(detroit["test"]) == {"mlp", "lstm", "ensemble"}
    assert set(houston["test"]) == {"lstm"}  # one model has no ensemble
    assert detroit["chosen"] == max(detroit["validation"], key=detroit["validation"].get)
    for model in ("mlp", "lstm"):
        summary = json.loads((whole / "models" / model / "summary.json").read_text())
        tested = summary["test"]["per_site"]["detroit"]["average_precision"]
        assert detroit["test"][model] == pytest.approx(tested, abs=1e-12)


def test_the_ensemble_is_the_mean_risk() -> None:
    one, other = {Split.TEST: np.array([[0.2], [0.6]])}, {Split.TEST: np.array([[0.4], [0.0]])}
    assert ensemble([one, other], "a")[Split.TEST].ravel() == pytest.approx([0.3, 0.3])
    with pytest.raises(ConfigError, match=r"sites\.a\.models"):
        ensemble([one, {Split.TEST: np.zeros((3, 1))}], "a")


def test_the_manager_has_every_round_of_every_model(whole: Path) -> None:
    manager = ModelManager(whole / "model_states")
    assert manager.list_models() == ["mlp", "lstm"]
    assert [state.round_num for state in manager.list_model_states("lstm")] == [0, 1, 2]
    restored = manager.restore_model_state("lstm", 1).snapshot()
    with History.open(whole / "models" / "lstm") as history:
        for name, array in history.weights(1).items():
            assert np.array_equal(restored[name], array)


def test_a_stopped_run_goes_on_with_what_is_missing(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "models" / "lstm")
    (folder / "models.json").unlink()
    assert main([f"resume={folder}"]) == 0
    now, before = read(folder), read(whole)
    assert now["sites"] == before["sites"]


@pytest.mark.long
def test_personal_models_compression_and_dropouts_in_every_federation(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["strategy=ditto", "transforms=topk", "transforms.topk.share=0.1", "clock=virtual",
             "clock.dropout=0.2", "data.step_hours=24", "data.window=8",
             "data.stride=4"]  # fmt: skip
    assert main([*BASE, *PREFER, *words, f"hydra.run.dir={folder}"]) == 0
    before = read(folder)
    shutil.rmtree(folder / "models" / "lstm")
    (folder / "models.json").unlink()
    assert main([f"resume={folder}"]) == 0
    now = read(folder)
    assert now["sites"] == before["sites"]
    whole, ours = (found["federations"]["lstm"]["bytes"]["down"] for found in (before, now))
    assert whole == ours > 0


def test_the_folder_is_not_used_twice(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BASE, *PREFER, f"hydra.run.dir={whole}"]) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_predict_names_the_federations(whole: Path) -> None:
    with pytest.raises(HistoryError, match="models/lstm"):
        load_predictor(whole)
    assert load_predictor(whole / "models" / "lstm", site="houston").model


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*PREFER, "model=cnn"], "model=cnn"),
        ([*PREFER, "init=runs/other"], "init"),
        ([*PREFER, "init.pretrain=[task=reconstruction]"], "init"),
        ([*PREFER[:1], "sites.houston.models=[nothing]"], "nothing"),
        ([*PREFER[:1], "sites.houston.models=lstm"], "sites.houston.models=lstm"),
        ([*PREFER[:1], "sites.houston.models=[lstm,lstm]"], "different"),
        ([*PREFER, "partition=iid", "partition.sites=3"], "partition"),
        ([*PREFER, "replicas=2"], "replicas=1"),
    ],
)
def test_what_cannot_work_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        compose(words)


def test_a_site_without_a_preference_takes_the_run_s_own_model() -> None:
    cfg = compose(["sites.detroit.models=[mlp]", "model=cnn", "model.config.dropout_rate=0.1"])
    assert {model: [*part.sites] for model, part in cfg.federations.items()} == {
        "mlp": ["detroit"], "cnn": ["houston"]
    }  # fmt: skip
    assert cfg.federations.cnn.model.config.dropout_rate == 0.1
    assert cfg.federations.mlp.model.config.dropout_rate != 0.1


def test_a_sweep_refuses_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", *BASE, *PREFER, "seed=0,1", f"hydra.sweep.dir={tmp_path}"]) == 2
    assert "sites.NAME.models" in capsys.readouterr().err


def test_recommend_says_first_what_was_measured(whole: Path) -> None:
    measured = measured_models([whole], Failure.name, "fleet")
    best = {
        model: json.loads((whole / "models" / model / "summary.json").read_text())["validation"]
        for model in ("mlp", "lstm")
    }
    assert list(measured) == sorted(best, key=lambda model: -best[model]["best"])
    shape = {"feature_count": 10, "sequence_length": 12, "spatial_dominant": True}
    found = ModelFactory.recommend(shape, measured=measured)
    assert [name for name, _ in found][:2] == list(measured)
    assert [name for name, _ in found][2:] == [
        name for name, _ in ModelFactory.recommend(shape) if name not in measured
    ]
    with pytest.raises(ConfigError, match="task=rul"):
        measured_models([whole], "rul", "fleet")

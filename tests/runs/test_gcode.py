"""Programs from sensors, from the command line to the report, in a small version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedpdm.config.compose import compose
from fedpdm.data import programs
from fedpdm.data.sources.milling import OPERATIONS, MillingSource
from fedpdm.data.sources.npz import write_npz
from fedpdm.deployment.client import describe
from fedpdm.deployment.server import RemoteSource
from fedpdm.history import History
from fedpdm.predict import load_predictor
from fedpdm.runs.experiment import build
from fedpdm.simulate import main

DATA = ["data.shops=2", "data.runs=5", "data.lines=5", "data.window=8", "data.stride=4",
        "data.channels=1"]  # fmt: skip
SMALL = [*DATA, "experiment=gcode", "rounds=2", "training.local_epochs=1", "baselines.processes=0",
         "evaluate.bootstrap=20", "model.config.d_model=16", "model.config.n_heads=2",
         "model.config.width=16", "model.config.hidden_size=8",
         "training.schedule=constant"]  # fmt: skip
BARE = [*SMALL, "baselines.max_plants=0"]
ENCODER = ["data=milling", "task=operation", "model=sensor_encoder", "model.config.width=16",
           "model.config.hidden_size=8", "rounds=2", "training.local_epochs=1", *DATA,
           "baselines.max_plants=0"]  # fmt: skip
DENOISING = ["model.config.reconstructs=true",
             "objective={_target_: fedpdm.training.denoising.Denoising}"]  # fmt: skip


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    assert main([*arguments, f"hydra.run.dir={folder}"]) == 0
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def weights(folder: Path) -> dict[str, np.ndarray]:
    with History.open(folder) as history:
        return history.weights()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gcode") / "run"
    run(folder, *SMALL)
    return folder


def test_the_report_shows_heads_beside_language_and_majority(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    tested = summary["test"]
    assert set(tested["baselines"]) == {"trivial", "alone", "pooled", "language"}
    for found in (tested, *tested["baselines"].values()):
        measured = found["global"]
        assert measured["well_formed"] == 1.0 and 0 <= measured["exact_match"] <= 1
        assert all(measured[f"{head}_accuracy"] is not None
                   for head in ("type", "command", "parameter", "sign", "digit"))  # fmt: skip
    page = (finished / "report.html").read_text()
    assert 'id="written"' in page and "Language" in page and "whole number" in page


def written(folder: Path) -> np.ndarray:
    """Return the tokens that the run's model writes for rows of a shop, by ``predict``."""
    card = json.loads((folder / "model.json").read_text())
    random = np.random.default_rng(0)
    frame = pd.DataFrame({name: random.normal(size=30) for name in card["features"]})
    scored = load_predictor(folder).score(frame.assign(machine="m", time=np.arange(30.0)))
    names = [name for name in scored if str(name).startswith("token")]
    found = scored[names].to_numpy().reshape(len(scored), -1, len(programs.PARTS))
    return np.concatenate([np.zeros((len(found), 1, found.shape[2])), found], axis=1)


def test_predict_writes_lines_of_the_language(finished: Path) -> None:
    assert programs.well_formed(written(finished)).all()


def test_a_run_that_goes_on_is_the_run_that_was_never_stopped(
    finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    run(folder, *BARE, "rounds=1")
    assert main([f"resume={folder}", "rounds=2"]) == 0
    resumed, expected = weights(folder), weights(finished)
    assert all(np.array_equal(resumed[name], array) for name, array in expected.items())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([*SMALL, "engine=batched"], "engine=batched"),
     ([*ENCODER, *DENOISING, "engine=batched"], "engine=batched"),
     (["data=milling", "task=program", "model=lstm", *DATA], "program_decoder"),
     ([*ENCODER, *DENOISING[1:]], "reconstructs=true"),
     ([*ENCODER, "task=failure"], "horizon"),
     ([*SMALL, "data=fleet"], "data")],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_a_sentence(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, f"hydra.run.dir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_operations_are_learned_by_one_engine_as_by_the_other(tmp_path: Path) -> None:
    found = {}
    for engine in ("serial", "batched"):
        arguments = (*ENCODER, "model.config.dropout_rate=0.0", f"engine={engine}")
        run(tmp_path / engine, *arguments)
        found[engine] = weights(tmp_path / engine)
    for name, array in found["serial"].items():
        assert np.linalg.norm(found["batched"][name] - array) <= 1e-4 * np.linalg.norm(array) + 1e-5


def test_operations_are_learned_with_the_noise_taken_away(tmp_path: Path) -> None:
    summary = run(tmp_path / "run", *ENCODER, *DENOISING)
    assert summary["test"]["global"]["accuracy"] is not None


def test_files_of_windows_are_trained_on_like_generated_ones(tmp_path: Path) -> None:
    source = MillingSource(sites={}, shops=1, runs=10, lines=4, window=8, stride=4, channels=1)
    write_npz(source, tmp_path / "data", OPERATIONS)
    summary = run(
        tmp_path / "run", "data=npz", f"data.path={tmp_path / 'data'}", "partition.sites=2",
        "task=program", "model=program_decoder", "model.config.width=16", "rounds=1",
        "model.config.hidden_size=8", "model.config.d_model=16", "model.config.n_layers=1",
        "baselines.controls=[trivial]", "training.local_epochs=1",
    )  # fmt: skip
    assert summary["test"]["global"]["n"] > 0 and len(summary["sites"]) == 2
    operation = [*ENCODER[1:-len(DATA) - 1], "baselines.max_plants=0", "data=npz",
                 f"data.path={tmp_path / 'data'}", "partition.sites=2"]  # fmt: skip
    assert run(tmp_path / "kinds", *operation)["test"]["global"]["accuracy"] is not None


def test_a_server_without_data_builds_the_model_of_the_sites() -> None:
    cfg = compose(ENCODER)
    here = build(cfg)
    there = build(cfg, RemoteSource(here.federation.sites, describe(here, "shop-1")))
    assert here.model == there.model and any(here.model["config"]["levels"])

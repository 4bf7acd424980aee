"""From a run to a folder that scores without PyTorch, and the versions beside it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedpdm.data.__main__ import main as data
from fedpdm.evaluation.calibration import Isotonic, Temperature
from fedpdm.predict import load_predictor
from fedpdm.promote import package
from fedpdm.promote.__main__ import main
from fedpdm.promote.export import export_model
from fedpdm.promote.registry import write_folder
from fedpdm.promote.standalone import Mistake, Model
from fedpdm.runs.predictor import Predictor
from fedpdm.simulate import main as simulate
from fedpdm.storage import write_tensors
from tests.promote.toy_sites import SETTINGS, new_rows, rows
from tests.test_predict import WINDOW, acme, make_run

BLOCKED = ("torch", "fedpdm", "flwr", "hydra", "omegaconf", "sklearn", "scipy", "pyarrow", "pint")
BLOCKER = f"""
import runpy, sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ImportError(name + " is not here")
sys.meta_path.insert(0, Refused())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def score_with(folder: Path, file: Path) -> subprocess.CompletedProcess[str]:
    """Run a promoted folder's predict.py where PyTorch and fedpdm cannot be imported."""
    script = file.parent / "blocked.py"
    script.write_text(BLOCKER)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, str(script), str(folder / "predict.py"), str(file), "--out",
         str(file.parent / "out.csv")],
        capture_output=True, text=True, env=clean, cwd=file.parent,
    )  # fmt: skip


def same(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    """Compare a written CSV with the scores of fedpdm.predict."""
    assert found.columns.tolist() == wanted.columns.tolist()
    for name in wanted:
        if wanted[name].dtype.kind == "f":
            np.testing.assert_allclose(found[name], wanted[name], 1e-6, 1e-5, err_msg=name)
        else:
            assert found[name].astype(str).tolist() == wanted[name].astype(str).tolist(), name


@pytest.fixture
def folder(quick: Callable[..., int], tmp_path: Path) -> Path:
    """A promoted version."""
    assert quick("--by", "Ada") == 0
    return tmp_path / "store" / "failure-trend" / "1"


def test_the_promoted_folder_scores_new_rows_as_the_run_does(
    run: Path, folder: Path, tmp_path: Path
) -> None:
    new_rows().to_csv(tmp_path / "new.csv", index=False)
    done = score_with(folder, tmp_path / "new.csv")
    assert done.returncode == 0, done.stderr
    predictor = load_predictor(run)
    wanted = predictor.score(predictor.read(tmp_path / "new.csv"))
    assert wanted["padded"].any() and wanted["alarm"].any() and not wanted["alarm"].all()
    same(pd.read_csv(tmp_path / "out.csv"), wanted)


def test_the_folder_is_whole_and_says_what_it_is(folder: Path, run: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    names = {path.name for path in folder.iterdir()}
    assert names == {*manifest["files"], "manifest.json"}
    assert names == {"model.onnx", "card.json", "scaler.json", "decision.json", "decision.md",
                     "predict.py", "manifest.json"}  # fmt: skip
    for name, said in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == said
    assert manifest["signed_by"] == "Ada" and manifest["run"] == run.name
    began = json.loads((run / "manifest.json").read_text())
    assert manifest["data"]["sha256"] == began["data"]["sha256"]
    here = str(Path.cwd()).encode()
    assert not any(here in path.read_bytes() for path in folder.iterdir())


@pytest.mark.parametrize("name", ["model.onnx", "card.json", "scaler.json"])
def test_an_altered_file_scores_nothing(name: str, folder: Path) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(Mistake, match=name):
        Model(folder)


def test_a_file_that_cannot_be_scored_gets_one_sentence(folder: Path, tmp_path: Path) -> None:
    model, good = Model(folder), new_rows()
    bad: Mapping[str, pd.DataFrame] = {
        "s3": good.drop(columns="s3"),
        "text": good.assign(s1="hot"),
        "no time": good.assign(time="soon"),
        "two rows": pd.concat([good, good.head(1)]),
        "no row": good.head(0),
    }
    for said, frame in bad.items():
        frame.to_csv(tmp_path / "new.csv", index=False)
        with pytest.raises(Mistake, match=said):
            model.score(model.read(tmp_path / "new.csv"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own data base
def test_versions_and_their_status(
    quick: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    store = tmp_path / "store"
    uri = f"sqlite:///{store / 'registry.db'}"
    (tmp_path / "gates.yaml").write_text("milliseconds: 0\n")
    assert quick() == 0
    assert quick("--registry", uri) == 0
    assert quick("--gates", str(tmp_path / "gates.yaml")) == 1
    capsys.readouterr()
    assert main(["--list", "--out", str(store)]) == 0
    (store / "odd" / "1").mkdir(parents=True)
    (store / "odd" / "1" / "decision.json").write_text('{"test": "high"}')
    lines = capsys.readouterr().out.splitlines()
    status = [line.split()[1:3] for line in lines if line.startswith("failure-trend")]
    assert status == [["1", "earlier"], ["2", "current"], ["–", "refused"]]
    assert main(["--list", "--out", str(store)]) == 2
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    version = client.get_model_version_by_alias("failure-trend", "current")
    manifest = (store / "failure-trend" / "2" / "manifest.json").read_bytes()
    assert version.tags["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    assert version.tags["folder_version"] == "2" and version.tags["status"] == "promoted"


def test_what_cannot_be_promoted(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        ([], "--list"),
        ([str(tmp_path / "nothing")], "no run"),
        (["--list", "--out", str(tmp_path / "nothing")], "nothing was promoted"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err
    shutil.copytree(run, tmp_path / "begun")
    (tmp_path / "begun" / "summary.json").unlink()
    assert main([str(tmp_path / "begun")]) == 2
    assert "summary.json" in capsys.readouterr().err


# Other sites' files, features, calibrations and tasks ------------------------------------


def compared(predictor: Predictor, tmp_path: Path, file: Path, width: int) -> pd.DataFrame:
    """Score a file in both ways, compare, and return the scores."""
    length = predictor.features.length(predictor.window)
    window = np.zeros(width if length is None else (length, width), np.float32)
    exported = export_model(predictor.model.module, predictor.task, window)
    files = package.contents(predictor, exported, {"name": "m", "version": 1})
    said = package.as_json(package.manifest(files, {}))
    write_folder(tmp_path / "folder", files | {"manifest.json": said})
    model = Model(tmp_path / "folder")
    wanted = predictor.score(predictor.read(file))
    same(model.score(model.read(file)), wanted)
    return wanted


def test_a_sites_own_columns_words_units_and_times(tmp_path: Path) -> None:
    features = {
        "temperature": {"column": "Temp", "unit": "degF", "into": "degC"},
        "vibration": "Vib",
        "state": {"column": "mode", "values": {"idle": "leer", "run": "läuft", "off": "aus"}},
        "fan": "Fan",
    }
    zen = {"path": "zen.csv", "machine": "id", "time": "t", "label": "y", "sep": ";",
           "decimal": ",", "thousands": ".", "missing": ["-", -999], "encoding": "cp1252",
           "time_format": "%d.%m.%Y %H:%M", "skip_rows": 1, "where": {"hall": ["A", "B"]},
           "features": features}  # fmt: skip
    names = ["temperature", "vibration", "state_idle", "state_run", "state_off", "fan"]
    run = make_run(tmp_path / "run", sites={"zen": zen}, features=names, input_dim=6)
    data, draw = acme(30), np.random.default_rng(2)
    frame = pd.DataFrame({
        "id": data["asset"], "Vib": data["vib"] * 20, "t": pd.to_datetime(data["when"]),
        "hall": draw.choice(["A", "B", "C"], len(data)),
        "mode": draw.choice(["leer", "läuft", "aus"], len(data)),
        "Fan": draw.choice(["on", "off"], len(data)), "Temp": data["T1"] + 1000,
    })  # fmt: skip
    frame["t"] = frame["t"].dt.strftime("%d.%m.%Y %H:%M")
    frame["Temp"] = [f"{v:,.2f}".translate({44: ".", 46: ","}) for v in frame["Temp"]]
    frame["Vib"] = [f"{v:.2f}".replace(".", ",") for v in frame["Vib"]]
    frame.loc[frame.index % 7 == 1, "Temp"] = "-"
    frame.loc[frame.index % 11 == 1, "Vib"] = "-999"
    frame.loc[frame.index % 13 == 1, "mode"] = ""
    text = "export of Monday\n" + frame.to_csv(sep=";", index=False)
    (tmp_path / "new.csv").write_text(text, encoding="cp1252")
    scored = compared(load_predictor(run), tmp_path, tmp_path / "new.csv", 6)
    assert len(scored) > 20 and scored["risk"].std() > 1e-3


@pytest.mark.parametrize("mode", ["statistics", "both"])
def test_statistics_of_windows(mode: str, tmp_path: Path) -> None:
    inputs = {"mode": mode, "limits": {"temperature": [40.0, 60.0]}}
    width = 28 * 2 + 11 + (2 if mode == "both" else 0)
    run = make_run(tmp_path / "run", inputs=inputs, input_dim=width,
                   sequence_length=None if mode == "statistics" else WINDOW)  # fmt: skip
    scale = np.abs(np.random.default_rng(0).normal(20, 5, (1, 28 * 2 + 11 + 2)))
    write_tensors(run / "scaler.safetensors",
                  {"federated/mean": scale + 20, "federated/scale": scale})  # fmt: skip
    frame = acme(30).rename(columns={"asset": "machine", "when": "time", "T1": "temperature",
                                     "vib": "vibration"})  # fmt: skip
    frame.loc[frame.index % 5 == 2, "temperature"] = np.nan
    frame.loc[40:55, "vibration"] = np.nan
    frame.to_csv(tmp_path / "new.csv", index=False)
    compared(load_predictor(run), tmp_path, tmp_path / "new.csv", width)


TASKS: dict[str, dict[str, Any]] = {
    "isotonic, three horizons": {
        "task": {"name": "horizons", "horizons": [7, 14, 30]}, "num_classes": 3,
        "calibration": Isotonic(tuple(
            (np.array([0.0, 0.4, 0.6, 1.0]), np.array([0.0, 0.1 * k, 0.5, 0.9])) for k in (1, 2, 3)
        )).described(),
    },
    "lives with an interval": {
        "task": {"name": "rul", "cap": 125}, "num_classes": 1, "threshold": 60.0,
        "interval": {"level": 0.9, "factor": 0.25, "cap": 125.0, "machines": 20},
    },
    "temperature, rows that stand alone": {
        "window": None, "sequence_length": None, "calibration": Temperature(2.5).described(),
    },
}  # fmt: skip


@pytest.mark.parametrize("changes", TASKS.values(), ids=TASKS)
def test_tasks_calibrations_and_intervals(changes: dict[str, Any], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", **changes)
    frame = acme(30).rename(columns={"asset": "machine", "when": "time", "T1": "temperature",
                                     "vib": "vibration"})  # fmt: skip
    frame.loc[frame.index % 5 == 2, "temperature"] = np.nan
    frame.to_csv(tmp_path / "new.csv", index=False)
    compared(load_predictor(run), tmp_path, tmp_path / "new.csv", 2)


def test_operating_conditions(tmp_path: Path) -> None:
    operating = {"columns": ["setting"], "points": [[0.0], [10.0]], "tolerance": [0.5]}
    run = make_run(tmp_path / "run", conditions=2, operating=operating)
    mean = np.array([[50.0, 40.0], [55.0, 60.0]])
    write_tensors(run / "scaler.safetensors",
                  {"federated/mean": mean, "federated/scale": mean / 5})  # fmt: skip
    frame = acme(30).rename(columns={"asset": "machine", "when": "time", "T1": "temperature",
                                     "vib": "vibration"})  # fmt: skip
    frame["setting"] = np.where(frame.index % 3 == 0, 10.2, -0.1)
    frame.to_csv(tmp_path / "new.csv", index=False)
    compared(load_predictor(run), tmp_path, tmp_path / "new.csv", 2)
    frame.assign(setting=5.0).to_csv(tmp_path / "new.csv", index=False)
    model = Model(tmp_path / "folder")
    with pytest.raises(Mistake, match="conditions"):
        model.score(model.read(tmp_path / "new.csv"))


def test_files_that_predict_py_cannot_read_are_refused(tmp_path: Path) -> None:
    from fedpdm.errors import ModelError

    zen = {"path": "zen.csv", "machine": "id", "time": "t", "label": "y", "time_zone":
           "Europe/Warsaw", "features": ["temperature", "vibration"]}  # fmt: skip
    run = make_run(tmp_path / "run", sites={"zen": zen})
    with pytest.raises(ModelError, match="time_zone"):
        package.require_readable(load_predictor(run))


# As a new user would ----------------------------------------------------------------------


def test_from_a_csv_to_a_prediction_in_four_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The four of docs/promotion.md, on a file with missing values; the new machine is unknown."""
    monkeypatch.chdir(tmp_path)
    frame = rows("pump", 5, machines=10, steps=150)
    frame.mask(np.random.default_rng(3).random(frame.shape) < 0.02).assign(
        machine=frame["machine"], time=frame["time"], fails=frame["fails"]
    ).to_csv("plant.csv", index=False)
    new_rows().to_csv("new.csv", index=False)
    assert data(["describe", "plant.csv", "--out", "mine/site/plant.yaml"]) == 0
    settings = [word for word in SETTINGS if not word.startswith("data=")]
    assert simulate(["--config-dir", "mine", "data=files", "data.path=.", "site=plant",
                     *settings, "--out", "runs/first"]) == 0  # fmt: skip
    assert main(["runs/first", "--accept", "trees=the network goes on learning at the site"]) == 0
    done = score_with(tmp_path / "promoted" / "failure-trend" / "1", tmp_path / "new.csv")
    assert done.returncode == 0, done.stderr
    assert set(pd.read_csv("out.csv")["machine"]) == {"new0", "new1", "new2"}


@pytest.mark.long
def test_predict_in_an_environment_without_torch(folder: Path, run: Path, tmp_path: Path) -> None:
    """A new environment with numpy, pandas and onnxruntime only; takes a network and a minute."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    call: Callable[..., Any] = subprocess.run
    call([python, "-m", "pip", "install", "-q", "numpy", "pandas", "onnxruntime"], check=True)
    assert call([python, "-c", "import torch"], capture_output=True).returncode != 0
    new_rows().to_csv(tmp_path / "new.csv", index=False)
    call([python, folder / "predict.py", "new.csv", "--out", "out.csv"],
         cwd=tmp_path, env={}, check=True)  # fmt: skip
    predictor = load_predictor(run)
    same(pd.read_csv(tmp_path / "out.csv"), predictor.score(predictor.read(tmp_path / "new.csv")))

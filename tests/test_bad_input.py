"""Mistakes: exit 2, one sentence with the way out, no traceback, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedpdm.simulate import main

QUICK = ["site=detroit,houston", "rounds=1", "model=mlp", "training.local_epochs=1",
         "baselines.max_plants=0"]  # fmt: skip
SMALL = [*QUICK, "data.days=150", "sites.detroit.machines=6", "sites.houston.machines=6",
         "evaluate.bootstrap=0"]  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused, and return what it said."""
    before = {p for p in Path.cwd().rglob("*") if p.is_file()}
    code = main(arguments)
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1, "one message"
    assert "Traceback" not in captured.err + captured.out
    assert {p for p in Path.cwd().rglob("*") if p.is_file()} == before, "nothing half-written"
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["site=boston"], ["boston", "detroit", "houston"]),
        (["site=detroit,detroit"], ["detroit", "twice"]),
        (["strategy=fedavgg"], ["fedavgg", "fedavg"]),
        (["model=transformer"], ["transformer", "lstm"]),
        (["round=5"], ["round", "rounds"]),
        (["strategy=fedprox", "strategy.muu=1"], ["strategy.muu", "proximal_mu"]),
        (["task.horizn=3"], ["task.horizn", "horizon"]),
        (["sites.boston.machines=3"], ["sites.boston"]),
        (["rounds=0"], ["rounds=0", "at least 1"]),
        (["rounds=ten"], ["rounds=ten", "number"]),
        (["rounds=2.5"], ["rounds=2.5", "whole number"]),
        (["seed=-1"], ["seed=-1"]),
        (["replicas=0"], ["replicas=0"]),
        (["strategy.fraction_train=0"], ["fraction_train"]),
        (["strategy.fraction_train=1.5"], ["fraction_train"]),
        (["strategy=fedprox", "strategy.proximal_mu=large"], ["proximal_mu=large", "number"]),
        (["strategy=bulyan"], ["Bulyan", "at least 3"]),
        (["training.learning_rate=-1"], ["learning_rate"]),
        (["training.local_epochs=0"], ["local_epochs"]),
        (["training.optimizer=lion"], ["lion", "adam"]),
        (["device=tpu"], ["device=tpu"]),
        (["device=cuda:99"], ["cuda"]),
        (["scaling=minmax"], ["scaling=minmax", "federated"]),
        (["evaluate.fraction=0"], ["evaluate.fraction"]),
        (["monitor.norm_factor=0.5"], ["monitor.norm_factor"]),
        (["monitor.rollback=perhaps"], ["monitor.rollback=perhaps", "true or false"]),
        (["faults.nan=houston"], ["faults.nan", "SITE@ROUND"]),
        (["faults.poison=boston@2"], ["boston", "detroit"]),
        (["faults.nan=houston@40"], ["houston@40", "last round"]),
        (["sites=detroit"], ["did you mean site=detroit"]),
        (["site="], ["names no site"]),
        (["training=3"], ["training", "block"]),
        (["training.clip_norm=abc"], ["training.clip_norm=abc"]),
        (["training.batch_size=2.5"], ["training.batch_size=2.5"]),
        (["training.gamma=-1"], ["training.gamma=-1"]),
        (["strategy.fraction_train=null"], ["fraction_train"]),
        (["data=5"], ["name"]),
        (["strategy=fedprox", "strategy.proximal_mu=-1"], ["proximal_mu=-1"]),
        (["task.horizon=-5"], ["task.horizon"]),
        (["task.horizon=100000"], ["task.horizon"]),
        (["data.window=100000"], ["data.window", "longer"]),
        (["task=rul", "task.cap=0"], ["task.cap"]),
        (["task=horizons", "task.horizons=[9,3]"], ["task.horizons"]),
        (["site=[]"], ["sites", "site="]),
        (["partition=type"], ["partition.column=type", "columns: none"]),
        (["partition=dirichlet", "partition.alpha=0"], ["partition.alpha=0"]),
        (["partition=life"], ["partition=life", "is not known"]),
        (["partition=condition"], ["partition=condition", "one only; use another partition"]),
        (["split=nowhere"], ["split=", "nowhere", "cannot be read"]),
        (["history.keep=0"], ["history.keep"]),
        (["round_timeout=-1"], ["round_timeout"]),
        (["model=cnn", "data.window=4"], ["window", "cnn"]),
        (["site=detroit,houston,"], ["site"]),
        (["sites.houston.machines=-4"], ["houston", "machines"]),
        (["--config-dir", "not_there"], ["not_there"]),
        (["resume=runs/never"], ["runs/never"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_options(arguments: list[str], says: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(arguments, capsys)
    for word in says:
        assert word in message


def test_no_site_has_a_test_window(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(
        [*QUICK[1:], "site=houston", "data.days=70", "data.window=40", "task.horizon=11"], capsys
    )
    assert "no site has a test window: lower data.window (now 40)" in message
    assert "data.days" in message


def test_refused_runs_leave_no_folder_of_runs_but_one_that_stood_stays(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*QUICK, "task.horizon=-1"]) == 2 and not Path("runs").exists()
    Path("runs").mkdir()
    assert main([*QUICK, "task.horizon=-1"]) == 2 and Path("runs").is_dir()


# Bring your own data --------------------------------------------------------------------


def frame(machines: int = 5, days: int = 200) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "machine": np.repeat([f"m{i}" for i in range(machines)], days),
            "time": np.tile(np.arange(days, dtype=float), machines),
            "vibration": random.normal(size=machines * days),
            "heat": random.normal(size=machines * days),
        }
    )


def failures(machines: int = 5) -> pd.DataFrame:
    times = [30.0, 70.0, 110.0, 150.0, 190.0]
    return pd.DataFrame(
        {"machine": [f"m{i}" for i in range(machines) for _ in times], "time": times * machines}
    )


def site(change: Callable[[pd.DataFrame], pd.DataFrame] | None = None) -> list[str]:
    """Write one site and its config in the current folder; return the command line."""
    data = frame() if change is None else change(frame())
    data.to_csv("plant.csv", index=False)
    failures().to_csv("failures.csv", index=False)
    Path("my_conf/site").mkdir(parents=True)
    Path("my_conf/site/plant.yaml").write_text(
        """# @package sites
plant:
  path: plant.csv
  machine: machine
  time: time
  features: {vibration: vibration, heat: heat}
  failures: {path: failures.csv, machine: machine, time: time}
"""
    )
    return ["--config-dir", "my_conf", "data=files", "site=plant", *QUICK[1:]]


def test_the_site_itself_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*site(), "hydra.run.dir=run"]) == 0, capsys.readouterr().err
    assert json.loads(Path("run/summary.json").read_text())["sites"] == ["plant"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.drop(columns="heat"), ["plant", "plant.csv", "heat"]),
        (lambda f: f.assign(heat=f["heat"].astype(object).where(f.index != 7, "hot")),
         ["plant", "heat", "hot"]),
        (lambda f: f.head(0), ["plant", "plant.csv"]),
        (lambda f: f.head(3), ["plant", "3 rows"]),
        (lambda f: f.assign(heat=np.nan), ["plant", "heat"]),
        (lambda f: f.assign(heat=f["heat"].where(f.index % 10 == 0)), ["plant", "heat"]),
        (lambda f: f.assign(time="yesterday"), ["plant", "time", "yesterday"]),
        (lambda f: pd.concat([f, f.head(5)]), ["plant", "two rows"]),
        (lambda f: f.assign(vibration=np.inf), ["plant", "vibration"]),
        (lambda f: f.assign(machine="another"), ["plant", "machine"]),
    ],
    ids=["column", "text", "header-only", "three-rows", "all-nan", "mostly-nan", "times",
         "duplicates", "infinite", "machines"],
)  # fmt: skip
def test_files(
    change: Callable[[pd.DataFrame], pd.DataFrame], says: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    message = refused(site(change), capsys)
    for word in says:
        assert word in message, message


def test_sites_that_are_not_named_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    without = [word for word in site() if word != "site=plant"]
    message = refused(without, capsys)
    assert "without site=" in message and "name yours: site=plant (from my_conf" in message
    message = refused([*without, "site=plant,houston"], capsys)
    assert "houston is a site that data=fleet generates" in message and "site=plant " in message
    assert "--config-dir FOLDER" in refused(["data=files"], capsys)


def test_an_unknown_key_of_a_site_names_those_of_its_own_yaml(
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = refused([*site(), "sites.plant.cost.missed=3"], capsys)
    assert "did you mean costs?" in message and "failures" in message


def test_a_yaml_that_defines_another_site(capsys: pytest.CaptureFixture[str]) -> None:
    command = site()
    Path("my_conf/site/lost.yaml").write_text("lost: {path: plant.csv}\n")
    message = refused([*command[:3], "site=plant,lost"], capsys)
    assert "lost" in message and "# @package sites" in message


def test_a_yaml_without_the_header_that_its_group_needs(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my_conf/experiment").mkdir(parents=True)
    Path("my_conf/experiment/mine.yaml").write_text("rounds: 3\n")
    message = refused(["--config-dir=my_conf", "experiment=mine"], capsys)
    assert "my_conf/experiment/mine.yaml" in message and "'# @package _global_'" in message


def test_a_yaml_that_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    command = site()
    Path("my_conf/site/plant.yaml").write_text("# @package sites\nplant: {path: [\n")
    assert "yaml" in refused(command, capsys)


def test_an_empty_file(capsys: pytest.CaptureFixture[str]) -> None:
    command = site()
    Path("plant.csv").write_text("")
    assert "plant.csv" in refused(command, capsys)


def test_no_failure_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    command = site()
    Path("failures.csv").write_text("machine,time\n")
    assert "failure" in refused(command, capsys)


def test_window_longer_than_every_life(capsys: pytest.CaptureFixture[str]) -> None:
    assert "data.window=60" in refused([*site(), "data.window=60"], capsys)


def test_replicas_of_a_real_site(capsys: pytest.CaptureFixture[str]) -> None:
    assert "replicas" in refused([*site(), "replicas=3"], capsys)


@pytest.mark.parametrize("data", ["ai4i", "cmapss"])
def test_absent_data_names_the_command_that_fetches_it(
    data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused([f"data={data}", "data.path=nowhere"], capsys)
    assert f"fedpdm.data fetch {data}" in message


def test_a_truncated_data_set(data_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(data_folder / "cmapss", "broken/cmapss")
    whole = Path("broken/cmapss/train_FD001.txt").read_text()
    Path("broken/cmapss/train_FD001.txt").write_text(whole[: len(whole) // 2])
    assert "train_FD001.txt" in refused(["data=cmapss", "data.path=broken"], capsys)


def test_a_sequence_model_on_single_rows(
    data_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(["data=ai4i", f"data.path={data_folder}", "model=lstm"], capsys)
    assert "lstm" in message and "mlp" in message


# Run folders ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "done"
    assert main([*SMALL, "rounds=3", f"hydra.run.dir={folder}"]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_two_runs_on_one_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "already holds a run" in refused([*SMALL, f"hydra.run.dir={run}"], capsys)


def test_a_folder_that_another_run_works_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fedpdm.history.lock import RunLock

    with RunLock(run):
        assert "another run" in refused([f"resume={run}", "rounds=4"], capsys)


def test_resume_with_another_model(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "model=cnn" in refused([f"resume={run}", "model=cnn"], capsys)


def test_resume_of_a_tampered_model(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("model_type: mlp", "model_type: cnn"))
    assert "config.yaml is damaged" in refused([f"resume={run}", "rounds=4"], capsys)


def test_resume_with_another_seed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("seed: 42", "seed: 43"))
    assert "config.yaml is damaged" in refused([f"resume={run}", "rounds=4"], capsys)


def test_resume_with_fewer_rounds_than_are_done(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"resume={run}", "rounds=2"]) == 2
    assert "has 3 finished rounds" in capsys.readouterr().err


def test_all_checkpoints_corrupt(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (run / "rounds").glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-10])
    code = main([f"resume={run}", "rounds=4"])
    message = capsys.readouterr().err
    assert (code == 2 and "000003.safetensors" in message) or "good" in message


def test_a_damaged_last_round_is_named_and_the_one_before_is_used(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((run / "summary.json").read_text())
    file = run / "rounds" / "000003.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert main([f"resume={run}"]) == 0
    assert "000003.safetensors" in capsys.readouterr().out
    after = json.loads((run / "summary.json").read_text())
    assert any(event["kind"] == "damaged-round" for event in after["events"])
    assert after["test"] == before["test"], "the repeated round is the same, to the bit"


def test_a_manifest_that_is_not_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "manifest.json").write_text("{")
    assert "manifest.json" in refused([f"resume={run}", "rounds=4"], capsys)


def test_the_run_folder_is_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").write_text("")
    assert "taken" in refused([*QUICK, "hydra.run.dir=taken"], capsys)


def as_nobody(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command as a user who may not write everywhere, as root always may."""
    if os.getuid() != 0:
        pytest.skip("needs root to become another user")
    # Once as root first: a checkout or a Python in a private folder is not read afterwards.
    code = (
        "import os, sys; from fedpdm.simulate import main\n"
        "assert main([*sys.argv[1:-1], 'hydra.run.dir=warm']) == 0\n"
        "os.setgid(65534); os.setuid(65534); sys.exit(main(sys.argv[1:]))"
    )
    root = str(Path(__file__).parent.parent)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    for parent in [tmp_path, *tmp_path.parents][:3]:
        parent.chmod(0o755)
    done = as_nobody([*SMALL, f"hydra.run.dir={tmp_path}/closed/run"], tmp_path)
    assert done.returncode == 2, done.stderr
    assert "closed" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "closed").iterdir())


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                     capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """Finished rounds stay, and the run can be resumed when there is room again."""
    import errno

    from fedpdm import storage as tensors

    real = os.fsync
    calls = {"left": 14}

    def full(descriptor: int) -> None:
        calls["left"] -= 1
        if calls["left"] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(tensors.os, "fsync", full)
    folder = tmp_path / "run"
    code = main([*SMALL, "rounds=6", f"hydra.run.dir={folder}"])
    said = capsys.readouterr().err
    assert code == 2 and "full" in said and "Traceback" not in said, said
    monkeypatch.setattr(tensors.os, "fsync", real)
    assert main([f"resume={folder}"]) == 0
    whole = tmp_path / "whole"
    assert main([*SMALL, "rounds=6", f"hydra.run.dir={whole}"]) == 0
    last = "rounds/000006.safetensors"
    assert (folder / last).read_bytes() == (whole / last).read_bytes()

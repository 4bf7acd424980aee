"""A multirun that is stopped, started again, and shared by two processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fedpdm.config.command_line import placed, swept
from fedpdm.errors import ConfigError, HistoryError
from fedpdm.history.lock import RunLock
from fedpdm.simulate import main
from fedpdm.sweep import Sweep, quiet, state_of
from tests.comparison.example_comparison import make_run

SMALL = ["model=mlp", "rounds=1", "training.local_epochs=1", "sites.detroit.machines=4",
         "site=detroit", "engine=serial", "baselines.max_plants=0"]  # fmt: skip


def test_the_same_command_keeps_what_is_finished_and_ends_with_the_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["-m", "strategy=fedavg,fedprox", *SMALL, "--out", str(tmp_path)]
    assert main(command) == 0
    first, second, blank, *rest = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"1/2  strategy=fedavg  AP 0\.\d+  [\d.]+ s", first)
    assert re.fullmatch(r"2/2  strategy=fedprox  AP 0\.\d+  [\d.]+ s", second)
    assert blank == "" and "FedProx and FedAvg cannot be told apart" in " ".join(rest)
    page = tmp_path / "comparison" / "comparison.html"
    assert page.exists()
    before = (tmp_path / "1" / "history.sqlite").stat().st_mtime_ns
    (tmp_path / "0" / "summary.json").unlink()  # as after a kill before the end
    page.unlink()
    assert main([*command, "log=screen"]) == 0
    shown = capsys.readouterr().out
    assert "continuing after round 1" in shown and "finished before" in shown
    assert (tmp_path / "1" / "history.sqlite").stat().st_mtime_ns == before
    assert (tmp_path / "0" / "summary.json").exists() and page.exists()


def test_a_folder_of_other_settings_is_refused_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "0", 0)
    assert main(["-m", "seed=1", *SMALL, f"hydra.sweep.dir={tmp_path}"]) == 2
    told = capsys.readouterr()
    assert "holds a run of other settings" in told.err and "--out" in told.err
    assert "no comparison: there is one setting only" in told.out
    cfg = OmegaConf.create(json.loads((tmp_path / "0" / "manifest.json").read_text())["config"])
    assert state_of(tmp_path / "0", cfg) == "finished"
    cfg.rounds = 9
    assert state_of(tmp_path / "0", cfg) == "begun", "a longer run goes on"
    cfg.seed = 3
    with pytest.raises(HistoryError, match=r"other settings \(seed differ\).*--out"):
        state_of(tmp_path / "0", cfg)
    (tmp_path / "0" / "summary.json").unlink()
    cfg.seed = 0
    assert state_of(tmp_path / "0", cfg) == "begun" and state_of(tmp_path / "new", cfg) == "new"


def test_a_sweep_of_which_no_job_can_begin_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for wrong, named, lines in (("imports=[no_such_lab]", "no_such_lab", 2),
                                ("rounds=x", "rounds=x", 2),
                                ("strategy=fedavg,nonsense", "nonsense", 1)):  # fmt: skip
        assert main(["-m", "seed=0,1", "model=mlp", wrong]) == 2
        told = capsys.readouterr()
        assert named in told.err and told.err.count("\n") == lines
        assert "comparison" not in told.out and "ompare" not in told.out
        assert list(tmp_path.iterdir()) == []


def test_what_is_swept_sets_a_run_apart() -> None:
    words = ["-m", "--config-dir", "own", "a=1,2", "b=3", "site=[x,y],[z]", "+c=range(0,3)"]
    assert swept(words) == ({"a", "site", "c"}, 12)


def test_out_is_the_folder_of_a_run_and_of_a_sweep() -> None:
    assert placed(["seed=1", "--out", "my, run"]) == [
        "seed=1", 'hydra.run.dir="my, run"', 'hydra.sweep.dir="my, run"'
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="--out needs a folder"):
        placed(["--out"])


SUMMARY = {"validation": {"metric": "average_precision", "best": None},
           "test": {"global": {"average_precision": 0.5}}}  # fmt: skip

HOLD = """
import sys, time
from pathlib import Path
from fedpdm.history.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_job_that_another_process_holds_is_left_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path / "0", 0, finished=False)
    cfg = OmegaConf.create(json.loads((folder / "manifest.json").read_text())["config"])
    asked: list[bool] = []

    def simulate(cfg: object, folder: Path, *, resumed: bool) -> dict[str, object]:
        asked.append(resumed)
        print("round 1/1")
        return SUMMARY

    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as other:  # fmt: skip
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        assert Sweep(simulate).run(cfg, folder) is None
        assert asked == [] and "another process works on it" in capsys.readouterr().out
        other.kill()
    assert Sweep(simulate).run(cfg, folder, "2/2") == SUMMARY and asked == [True]
    assert capsys.readouterr().out.startswith("2/2  AP 0.500  ")
    cfg.log = "screen"
    with quiet("2/2", loud=True):
        print("round 1/1")
    assert "round 1/1" in capsys.readouterr().out


def test_two_that_meet_at_the_same_job_do_not_fail(tmp_path: Path) -> None:
    """The other began between our look and our lock, and has finished since."""
    folder = tmp_path / "0"
    cfg = OmegaConf.create({"rounds": 5})

    def simulate(cfg: object, folder: Path, *, resumed: bool) -> dict[str, object]:
        make_run(folder, 0)
        manifest = {"config": {"rounds": 5}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        raise HistoryError("another run is working on it")

    found = Sweep(simulate).run(cfg, folder)
    assert found is not None and found["rounds"] == 5
    with RunLock(folder):
        pass


def test_an_error_that_is_the_jobs_own_is_raised(tmp_path: Path) -> None:
    def simulate(*_: object, **__: object) -> dict[str, object]:
        raise HistoryError("the disk is full")

    with pytest.raises(HistoryError, match="disk is full"):
        Sweep(simulate).run(OmegaConf.create({"rounds": 1}), tmp_path / "0")

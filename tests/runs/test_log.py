"""``log=file``: every round, event and note, with the time, for services."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from fedpdm import simulate
from fedpdm.errors import ConfigError
from fedpdm.runs.log import NAME, log_of
from fedpdm.runs.progress import Progress

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 (.*)")


def said(folder: Path) -> list[str]:
    lines = (folder / NAME).read_text("utf-8").splitlines()
    found = [LINE.fullmatch(line) for line in lines]
    assert all(found), lines
    return [match[1] for match in found if match]


def test_rounds_that_the_screen_leaves_out_are_logged_and_lines_stay_lines(tmp_path: Path) -> None:
    log = log_of(OmegaConf.create({"log": "file"}), tmp_path)
    assert log is not None
    console = Console(file=io.StringIO(), width=100)
    with pytest.raises(RuntimeError), Progress(100, "rmse", console, log=log) as progress:
        for number in range(1, 6):
            progress.round(number, 0.5, 2.0)
        progress.round(6, None, None, [{"kind": "rollback", "round": 6, "message": "a\nb\x1b[2J"}])
        raise RuntimeError("out of\npaper")
    lines = said(tmp_path)
    assert [int(line.split()[1].split("/")[0]) for line in lines[:5]] == [1, 2, 3, 4, 5]
    assert lines[5:] == [
        "round 6: rolled back: a b\\x1b[2J",
        "ended by RuntimeError: out of paper",
    ]


def test_a_run_logs_to_its_folder_and_a_resume_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["site=detroit,houston", "rounds=2", "model=mlp", "training.local_epochs=1",
             "baselines.max_plants=0", "evaluate.bootstrap=0", "sites.detroit.machines=4",
             "sites.houston.machines=4", "data.days=120", "faults.nan=houston@2"]  # fmt: skip
    assert simulate.main([*words, "log=file", f"hydra.run.dir={run}"]) == 0
    first = said(run)
    assert [line[:9] for line in first if line.startswith("round ")] == [
        "round 1/2", "round 2: ", "round 2/2",
    ]  # fmt: skip
    assert first[-1].startswith("finished after 2 rounds")
    assert simulate.main([f"resume={run}", "rounds=3"]) == 0
    assert said(run)[: len(first)] == first
    assert said(run)[-1].startswith("finished after 3 rounds")


def test_without_it_there_is_no_file_and_other_words_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert log_of(OmegaConf.create({}), tmp_path) is None
    assert log_of(OmegaConf.create({"log": None}), tmp_path) is None
    with pytest.raises(ConfigError, match="log=elsewhere is unknown"):
        log_of(OmegaConf.create({"log": "elsewhere"}), tmp_path)


def test_a_log_that_cannot_be_written_does_not_end_the_run(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    (tmp_path / NAME).symlink_to(outside)
    for folder in (tmp_path, tmp_path / "nowhere"):
        log = log_of(OmegaConf.create({"log": "file"}), folder)
        assert log is not None
        log("a line")
    assert not outside.exists()

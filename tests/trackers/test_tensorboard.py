"""What TensorBoard reads back of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedpdm.history import History
from fedpdm.simulate import main
from tests.trackers.small import SMALL

event_accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator",
    reason="tensorboard is not installed: pip install fedpdm[tensorboard]",
)


def read(folder: Path) -> Any:
    found = event_accumulator.EventAccumulator(str(folder))
    found.Reload()
    return found


def test_rounds_sites_and_test_scores_are_read_back_and_a_resume_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main([*SMALL, "rounds=2", "tracker=tensorboard", f"hydra.run.dir={run}"]) == 0
    assert main([f"resume={run}", "rounds=3"]) == 0
    written = read(run / "tensorboard")
    summary = json.loads((run / "summary.json").read_text())
    losses = written.Scalars("train_loss")
    assert [event.step for event in losses] == [1, 2, 3], "each round once"
    assert [event.step for event in written.Scalars("sites/detroit/validation_loss")] == [1, 2, 3]
    with History.open(run) as history:
        sent = [record.bytes_up for record in history.rounds() if record.round]
    assert [event.value for event in written.Scalars("bytes/up")] == sent
    tested = written.Scalars("test/average_precision")[-1]
    assert tested.value == pytest.approx(summary["test"]["global"]["average_precision"])
    assert tested.step == summary["best_round"]


def test_several_runs_may_share_a_folder(tmp_path: Path) -> None:
    board = tmp_path / "board"
    assert main([*SMALL, "rounds=1", "tracker=tensorboard", f"tracker.folder={board}",
                 f"hydra.run.dir={tmp_path / 'run'}"]) == 0  # fmt: skip
    assert [event.step for event in read(board).Scalars("seconds")] == [1]
    assert not (tmp_path / "run" / "tensorboard").exists()

"""What cannot work together is refused when a run is put together, before it has a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from fedpdm.config.compose import compose
from fedpdm.runs.experiment import build
from fedpdm.runs.look import no_test_window
from fedpdm.simulate import main

TINY = ["site=detroit", "sites.detroit.machines=4", "data.days=100", "rounds=1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["engine=batched", "training.amp=true"], "training.amp"),
        (["engine=batched", "training.augment.jitter=0.1"], "stack"),
        (["task=failure", "baselines.controls=[interpolation]"], "task=reconstruction only"),
        (["task=horizons", "baselines.controls=[isolation_forest]"], "trivial, alone, pooled"),
        (["baselines.controls=[language]"], "task=program only"),
    ],
)
def test_it_is_refused_and_nothing_is_written(
    words: Sequence[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main([*TINY, *words, f"hydra.run.dir={folder}"]) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "manifest.json").exists() and not (folder / "history").exists()


@pytest.mark.parametrize(
    ("task", "names", "not_named"),
    [
        ("failure", ["task.horizon"], "task.cap"),
        ("horizons", ["task.horizons"], "task.cap"),
        ("rul", ["task.cap"], "task.horizon"),
        ("asset_type", ["machines"], "task."),
        ("reconstruction", ["data.window"], "task."),
    ],
)
def test_no_test_window_names_settings_that_the_task_has(
    task: str, names: Sequence[str], not_named: str
) -> None:
    said = no_test_window(build(compose([*TINY, f"task={task}"])))
    assert all(name in said for name in names) and not_named not in said.replace("tasks", "")

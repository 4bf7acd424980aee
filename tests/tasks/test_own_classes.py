"""Classes of machines and of failures from a user's own CSV files, from the command to predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from fedpdm.predict import main as predict
from fedpdm.simulate import main as simulate

SMALL = ("data=files", "data.window=6", "model=mlp", "site=east,west", "rounds=2",
         "training.local_epochs=2", "engine=serial", "baselines.processes=0",
         "baselines.controls=[trivial,alone,hgb]", "evaluate.bootstrap=0")  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sites with a dozen machines each: pumps hum and leak, fans shake and their belts slip."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "site").mkdir()
    for seed, name in enumerate(("east", "west")):
        draw, frames, log = np.random.default_rng(seed), [], []
        day = pd.date_range("2024-01-01", periods=120)
        for number in range(12):
            kind, fails = ("pump", "leak") if number % 2 else ("fan", "belt")
            until = 20 + (np.arange(120)[::-1] + 3 * number) % 40  # days to the next failure, + 20
            near = until <= 27
            frames.append(pd.DataFrame({
                "machine": f"{name}{number}", "time": day, "type": kind,
                "reason": np.where(near, fails, "fine, thanks"),
                "hum": draw.normal(number % 2, 0.3, 120) + 3 * near,
                "shake": draw.normal(0, 0.3, 120) + 3 * near * (number % 2),
            }))  # fmt: skip
            log += [{"machine": f"{name}{number}", "when": when} for when in day[until == 20]]
        pd.concat(frames).to_csv(folder / f"{name}.csv", index=False)
        pd.DataFrame(log).to_csv(folder / f"{name}-log.csv", index=False)
        block = {
            "path": f"{name}.csv", "machine": "machine", "time": "time",
            "features": ["hum", "shake"], "groups": ["type", "reason"],
            "failures": {"path": f"{name}-log.csv", "machine": "machine", "time": "when"},
        }  # fmt: skip
        text = yaml.safe_dump({name: block})
        (folder / "site" / f"{name}.yaml").write_text(f"# @package sites\n{text}")
    return folder


def run(files: Path, folder: Path, *words: str) -> dict[str, Any]:
    assert simulate(["--config-dir", str(files), f"data.path={files}", *SMALL, *words,
                     f"hydra.run.dir={folder}"]) == 0  # fmt: skip
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


@pytest.mark.parametrize(
    ("words", "columns"),
    [
        (["task=asset_type", "task.column=type", "task.classes=[pump,fan]"], ["p_pump", "p_fan"]),
        (["task=device_failure", "task.column=reason", "task.classes=[leak,belt]",
          "task.horizon=7"], ["p_healthy", "p_leak", "p_belt"]),
    ],
    ids=["asset_type", "device_failure"],
)  # fmt: skip
def test_a_column_of_words_gives_classes(
    files: Path, tmp_path: Path, words: list[str], columns: list[str]
) -> None:
    summary = run(files, tmp_path / "run", *words)
    tested = summary["test"]
    assert tested["global"]["macro_f1"] > tested["baselines"]["trivial"]["global"]["macro_f1"]
    assert set(tested["baselines"]) == {"trivial", "alone", "hgb"}
    out = tmp_path / "scores.csv"
    new = pd.read_csv(files / "east.csv").drop(columns=["type", "reason"])
    new.to_csv(tmp_path / "new.csv", index=False)
    assert predict([str(tmp_path / "run"), str(tmp_path / "new.csv"), "--site", "east", "--out",
                    str(out)]) == 0  # fmt: skip
    scored = pd.read_csv(out)
    assert list(scored.columns[2 : 2 + len(columns)]) == columns
    np.testing.assert_allclose(scored[columns].sum(axis=1), 1.0, atol=1e-6)


def test_a_class_that_is_not_named_is_refused(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["task=asset_type", "task.column=type", "task.classes=[pump,valve]"]
    assert simulate(["--config-dir", str(files), f"data.path={files}", *SMALL, *words,
                     f"hydra.run.dir={tmp_path / 'run'}"]) == 2  # fmt: skip
    assert "fan" in capsys.readouterr().err

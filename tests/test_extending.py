"""docs/extending.md as a reader follows it: a package outside the repository, and its runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(python|yaml|bash)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
NAME = re.compile(r"^# (?:in )?([\w/]+\.(?:py|yaml))$", re.MULTILINE)
COMMANDS = [text.strip() for kind, text in BLOCKS if kind == "bash"]
SMALL = [
    "rounds=2", "training.local_epochs=1", "baselines.max_plants=0", "evaluate.bootstrap=0",
    "hydra.run.dir=run",
]  # fmt: skip
FLEET = ["data.days=150", "data.step_hours=24", "data.window=8", "sites.detroit.machines=4",
         "sites.houston.machines=4"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page, each under the name that its first lines give it."""
    folder = tmp_path_factory.mktemp("lab")
    for kind, text in BLOCKS:
        if kind != "bash":
            found = NAME.search(text)
            assert found is not None, text
            file = folder / found[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
    return folder


def run(folder: Path, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[-1])
def test_every_command_of_the_page_runs(command: str, folder: Path) -> None:
    program, *arguments = shlex.split(command)
    assert program == "python"
    run(folder, *arguments, *SMALL, *([] if "data=bench" in command else FLEET))
    summary = json.loads((folder / "run" / "summary.json").read_text("utf-8"))
    assert summary["rounds"] == 2
    if "task=late" in command:
        assert "top_tenth" in summary["test"]["global"]
    (folder / "run").rename(folder / f"run-{command.split('=')[-1]}")


def test_the_checks_of_the_page_pass(folder: Path) -> None:
    run(folder, "test_mylab.py")


PARTS = '''
"""A baseline, a report section and a tracker."""

import json
from pathlib import Path

import numpy as np

from fedpdm.baselines.inputs import predicted
from fedpdm.baselines.registry import Baseline, register_baseline
from fedpdm.report.sections import register_section


@register_baseline("coin", Baseline("Coin", "a coin that is tossed", subject="A coin"))
def coin(inputs):
    return predicted(inputs.sites(), lambda windows: np.full(len(windows), 0.5))


@register_section("wear", template="<h2 id='wear'>Wear</h2>{{ wears }}", links={"wear": "Wear"})
def wear(page):
    return {"wears": f"of {len(page.table.rows)} sites"}


class Lines:
    """Writes a line a round."""

    def __init__(self, file):
        self.file = Path(file)

    def begin(self, folder, config, state):
        self.file.write_text("")

    def round(self, number, scalars, seconds_since_1970):
        with self.file.open("a") as file:
            file.write(json.dumps({"round": number, **scalars}) + "\\n")

    def end(self, scalars, summary):
        with self.file.open("a") as file:
            file.write(json.dumps(dict(scalars)) + "\\n")
'''


def test_all_kinds_of_parts_come_from_outside_in_one_run(folder: Path) -> None:
    (folder / "mylab" / "parts.py").write_text(PARTS)
    tracker = folder / "options" / "tracker" / "lines.yaml"
    tracker.parent.mkdir()
    tracker.write_text("_target_: mylab.parts.Lines\nfile: lines.jsonl\n")
    small = [word for word in SMALL if not word.startswith(("baselines", "hydra"))]
    run(
        folder, "-m", "fedpdm.simulate", "--config-dir", "options", "imports=[mylab.parts]",
        "data=bench", "task=late", "model=mlp", "tracker=lines", "baselines.controls=[coin]",
        "baselines.processes=1", "hydra.run.dir=parts", *small,
    )  # fmt: skip
    summary = json.loads((folder / "parts" / "summary.json").read_text("utf-8"))
    assert summary["data"]["name"] == "bench" and summary["task"] == "late"
    assert summary["test"]["baselines"]["coin"]["per_site"].keys() == {"north", "south"}
    page = (folder / "parts" / "report.html").read_text("utf-8")
    assert "a coin that is tossed" in page and "recall in the top tenth" in page
    assert "<h2 id='wear'>Wear</h2>of 2 sites" in page
    lines = [json.loads(line) for line in (folder / "lines.jsonl").read_text().splitlines()]
    assert [line.get("round") for line in lines] == [1, 2, None]
    assert "top_tenth" in lines[0] and "test/top_tenth" in lines[2]

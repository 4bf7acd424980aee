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

from tests.mylab import commands

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(python|yaml|bash)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
NAME = re.compile(r"^# (?:in )?([\w/]+\.(?:py|yaml))$", re.MULTILINE)
COMMANDS = [text.strip() for kind, text in BLOCKS if kind == "bash"]
SMALL = ["rounds=2", "training.local_epochs=1", "evaluate.bootstrap=0"]
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


PARTS_RUN = [
    "--config-dir", "options", "imports=[mylab.parts]", "data=bench", "task=late", "model=mlp",
    "tracker=lines", "baselines.controls=[coin]", "baselines.processes=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def ran(folder: Path) -> Path:
    """Run every command of the page, and then one with parts of all kinds, in one process."""
    (folder / "mylab" / "parts.py").write_text(PARTS)
    tracker = folder / "options" / "tracker" / "lines.yaml"
    tracker.parent.mkdir()
    tracker.write_text("_target_: mylab.parts.Lines\nfile: lines.jsonl\n")
    lines = []
    for number, command in enumerate(COMMANDS):
        program, *arguments = shlex.split(command)
        assert program == "python" and arguments[:2] == ["-m", "fedpdm.simulate"]
        sites = [] if "data=bench" in command else FLEET
        lines.append([*arguments[2:], *sites, "baselines.max_plants=0", f"hydra.run.dir={number}"])
    lines.append([*PARTS_RUN, "hydra.run.dir=parts"])
    for code, said in commands(folder, *(["simulate", *line, *SMALL] for line in lines)):
        assert code == 0, said
    return folder


@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_every_command_of_the_page_runs(number: int, ran: Path) -> None:
    summary = json.loads((ran / str(number) / "summary.json").read_text("utf-8"))
    assert summary["rounds"] == 2
    if "task=late" in COMMANDS[number]:
        assert "top_tenth" in summary["test"]["global"]


def test_all_kinds_of_parts_come_from_outside_in_one_run(ran: Path) -> None:
    summary = json.loads((ran / "parts" / "summary.json").read_text("utf-8"))
    assert summary["data"]["name"] == "bench" and summary["task"] == "late"
    assert summary["test"]["baselines"]["coin"]["per_site"].keys() == {"north", "south"}
    page = (ran / "parts" / "report.html").read_text("utf-8")
    assert "a coin that is tossed" in page and "recall in the top tenth" in page
    assert "<h2 id='wear'>Wear</h2>of 2 sites" in page
    lines = [json.loads(line) for line in (ran / "lines.jsonl").read_text().splitlines()]
    assert [line.get("round") for line in lines] == [1, 2, None]
    assert "top_tenth" in lines[0] and "test/top_tenth" in lines[2]


def test_the_checks_of_the_page_pass(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "test_mylab.py"], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]

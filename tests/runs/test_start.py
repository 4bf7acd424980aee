"""What a command imports before it is needed, and where its time goes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from fedpdm.server.stages import STAGES, Stages

FIRST_ROUND = """
import json, sys
from fedpdm.runs.progress import Progress
from fedpdm.simulate import main

told = Progress.round

def round(self, *arguments):
    Progress.round = told
    told(self, *arguments)
    print(json.dumps(sorted(sys.modules)))

Progress.round = round
sys.exit(main(sys.argv[1:]))
"""
SMALL = ["model=mlp", "rounds=2", "data.days=120", "sites.houston.machines=6",
         "sites.detroit.machines=6", "baselines.controls=[trivial,alone]"]  # fmt: skip


def test_help_needs_neither_torch_nor_flower() -> None:
    code = (
        "import sys; from fedpdm.simulate import main; main(['--help']); "
        "print([name for name in ('torch', 'flwr', 'numpy', 'ray') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_the_first_round_waits_for_no_library_of_baselines_and_pages(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FIRST_ROUND, *SMALL, f"hydra.run.dir={tmp_path / 'run'}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(json.loads(next(line for line in found.stdout.splitlines() if line[:1] == "[")))
    assert {"torch", "flwr"} <= loaded
    assert not loaded & {"pandas", "sklearn", "scipy.stats", "matplotlib", "jinja2", "ray"}


def test_every_second_belongs_to_one_stage() -> None:
    stages = Stages()
    stages.begin()
    for stage in (*STAGES, "train"):
        stages.end(stage)
    assert list(stages.seconds) == list(STAGES)
    assert all(value >= 0 for value in stages.seconds.values())

"""kill -9 at random moments, and resume: the same bits as a run that was left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this processor's system has no fork")
@pytest.mark.parametrize("kills", [8, pytest.param(40, marks=pytest.mark.long)])
def test_kills_leave_no_trace_in_the_weights(kills: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kills", str(kills), str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["kills"] == kills
    assert result["differing"] == []
    assert len(set(result["after_round"])) > kills // 8, "the kills hit different rounds"

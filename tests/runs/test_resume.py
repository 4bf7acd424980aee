"""kill -9 at random moments, and resume: the same bits as a run that was left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = int(os.environ.get("FEDPDM_KILLS", "20"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this processor's system has no fork")
def test_twenty_kills_leave_no_trace_in_the_weights(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kills", str(KILLS), str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["kills"] == KILLS
    assert result["differing"] == []
    assert len(set(result["after_round"])) > KILLS // 5, "the kills hit different rounds"

"""kill -9 at random moments, and resume: the same bits as a run that was left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EVERYTHING = (
    "strategy=ditto", "server=poisson", "privacy=central", "privacy.epsilon=40",
    "privacy.delta=0.01", "transforms=topk", "transforms.topk.share=0.1", "clock=virtual",
    "clock.dropout=0.2", "clock.duplicate=0.2",
)  # fmt: skip
"""Personal models, privacy, compression with error feedback and dropouts at once."""
BUFFER = (
    "strategy=apfl", "server=fedbuff", "server.buffer=2", "clock=virtual", "clock.spread=1.0",
    "transforms=sign", "transforms.sign.direction=up",
)  # fmt: skip
"""Jobs are under way whenever it is killed."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this processor's system has no fork")
@pytest.mark.parametrize(("kills", "chosen"), [
    (8, ()), pytest.param(40, (), marks=pytest.mark.long), (3, EVERYTHING),
    pytest.param(2, BUFFER, marks=pytest.mark.long),
])  # fmt: skip
def test_kills_leave_no_trace_in_the_weights(
    kills: int, chosen: tuple[str, ...], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kills", str(kills), str(tmp_path), *chosen],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["kills"] == kills
    assert result["differing"] == []
    assert kills < 8 or len(set(result["after_round"])) > kills // 8, "they hit different rounds"

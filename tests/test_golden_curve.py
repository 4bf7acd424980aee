"""The golden curve: 2 sites, 3 rounds, serial, CPU. Refactors must not move it.

    python -m tests.test_golden_curve        # writes tests/golden_curve.json anew

Float sums differ in their last digits between processor types, so the curve is made in a
process that pins ATen, oneDNN and MKL to AVX2, and is compared to the bit where that and
the torch version are those of the file. Elsewhere it is compared to 1e-6.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

GOLDEN = Path(__file__).parent / "golden_curve.json"
PINNED = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OMP_NUM_THREADS": "1",
}
CASES = {"cnn": "fedavg", "lstm": "fedadam", "hybrid": "fedprox"}
MAKE = """
import json, sys, torch
from pathlib import Path
from fedpdm.testing.federated import federate
torch.set_num_threads(1)
curve = {}
for model, strategy in json.loads(sys.argv[2]).items():
    run = federate(Path(sys.argv[1]) / model, strategy, sites=2, rounds=3, model=model, seed=5)
    curve[model] = [
        [r.metrics[name] for name in ("train_loss", "validation_loss", "parameter_norm")]
        for r in run.history.rounds()[1:]
    ]
print(json.dumps({"torch": torch.__version__.split("+")[0], "curve": curve}))
"""


def make() -> dict[str, object]:
    """Return the curve of the code as it is, made under pinned instructions."""
    root = str(Path(__file__).parent.parent)
    with TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", MAKE, folder, json.dumps(CASES)],
            cwd=root,
            env={**os.environ, **PINNED, "PYTHONPATH": root},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def avx2() -> bool:
    """Return whether this processor has the instructions that the file was made with."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and " avx2 " in cpuinfo.read_text()


def test_the_golden_curve_has_not_moved() -> None:
    golden, made = json.loads(GOLDEN.read_text()), make()
    for model, rounds in golden["curve"].items():
        if made["torch"] == golden["torch"] and avx2():
            assert made["curve"][model] == rounds, model  # type: ignore[index]
        else:
            for mine, theirs in zip(made["curve"][model], rounds, strict=True):  # type: ignore[index]
                assert mine == pytest.approx(theirs, rel=1e-6), model


def test_it_is_a_curve_that_learns() -> None:
    for rounds in json.loads(GOLDEN.read_text())["curve"].values():
        assert rounds[-1][0] < rounds[0][0]


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(make(), indent=1) + "\n")

"""Code from a folder outside the repository: on every engine, resumed, and for predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedpdm.history import History
from fedpdm.testing.federated import distance, same
from tests.mylab import TINY, commands, write

OURS = "imports=[mylab.strategies,mylab.models]"


def simulate(folder: str, *words: str) -> list[str]:
    return ["simulate", "--config-dir=conf", *TINY, *words, f"hydra.run.dir={folder}"]


def sweep(folder: str, *words: str) -> list[str]:
    return ["simulate", "--config-dir=conf", "-m", *TINY, *words, f"hydra.sweep.dir={folder}"]


def weights(folder: Path, number: int = 2) -> dict[str, np.ndarray]:
    with History.open(folder) as history:
        return history.weights(number)


MODELS = "serial", "transformer"
"""Runs of two models from outside."""
PULLED = ["model=tcn", "strategy=pulled", OURS]
MISSING = {
    "nobody.here": "'nobody'", "halved": "absent_dependency",
    "broken": "broken fails: ZeroDivisionError", "../x": "module name",
}  # fmt: skip
"""Modules that cannot be imported, and what is said of them."""
LINES = {
    "none": simulate("none", "model=tcn", "engine=serial", "experiment=mine"),
    "serial": simulate("serial", *PULLED, "engine=serial"),
    "ray": simulate("ray", *PULLED, "engine=ray", "engine.workers=2"),
    "batched": simulate("batched", "model=tcn", "engine=batched", "strategy=pulled",
                        "experiment=mine"),
    "transformer": simulate("transformer", "model=tiny_transformer", "engine=serial",
                            "experiment=mine", "rounds=1"),
    "rows": ["data", "generate", "--sites", "detroit", "--days", "40", "--out", "rows"],
    "resumed without": ["simulate", "resume=serial"],
    "predicted without": ["predict", "serial", "rows.csv"],
    "sweep": sweep("sweep", "model=mlp", "strategy=fedavg,pulled", OURS, "engine=serial",
                   "rounds=1"),
    "resumed": ["simulate", "resume=serial", OURS, "rounds=3"],
    "whole": simulate("whole", *PULLED, "engine=serial", "rounds=3"),
    **{f"predicted {run}": ["predict", run, "rows/plants/detroit.parquet", "--imports",
                            "mylab.strategies,mylab.models", "--out", f"{run}.csv"]
       for run in MODELS},
    **{f"missing {name}": simulate("x", f"imports={name}") for name in MISSING},
    "missing in a sweep": sweep("y", "imports=nobody", "seed=1,2"),
}  # fmt: skip
"""Commands by name, run in this order in one process."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lab = write(tmp_path_factory.mktemp("lab"))
    (lab / "halved.py").write_text("import absent_dependency\n")
    (lab / "broken.py").write_text("1 / 0\n")
    return lab


@pytest.fixture(scope="module")
def ran(lab: Path) -> dict[str, tuple[int, str]]:
    """Return the exit code and the errors of each of ``LINES``."""
    return dict(zip(LINES, commands(lab, *LINES.values()), strict=True))


def test_what_has_its_modules_succeeds(ran: dict[str, tuple[int, str]]) -> None:
    failed = {name: said for name, (code, said) in ran.items() if code != 0}
    without = {name for name in LINES if "without" in name or "missing" in name}
    assert set(failed) == without, failed
    assert OURS in failed["resumed without"]
    assert "--imports mylab.strategies,mylab.models" in failed["predicted without"]


@pytest.mark.usefixtures("ran")
def test_a_strategy_with_memory_is_itself_on_every_engine(lab: Path) -> None:
    assert same(weights(lab / "serial"), weights(lab / "ray"))
    assert distance(weights(lab / "serial"), weights(lab / "batched")) < 1e-5
    # Nothing is remembered before the first round, but the pull is there from its first step.
    for number in (1, 2):
        assert distance(weights(lab / "none", number), weights(lab / "ray", number)) > 1e-4


@pytest.mark.usefixtures("ran")
def test_models_from_outside_train_resume_and_predict(lab: Path) -> None:
    assert same(weights(lab / "serial", 3), weights(lab / "whole", 3))
    assert all((lab / f"{run}.csv").exists() for run in MODELS)


@pytest.mark.usefixtures("ran")
def test_a_sweep_has_own_code_too(lab: Path) -> None:
    assert distance(weights(lab / "sweep" / "0", 1), weights(lab / "sweep" / "1", 1)) > 1e-4


def test_a_module_that_is_missing_is_named(ran: dict[str, tuple[int, str]], lab: Path) -> None:
    expected = {f"missing {name}": words for name, words in MISSING.items()}
    for line, words in {**expected, "missing in a sweep": "'nobody'"}.items():
        code, told = ran[line]
        assert code == 2 and words in told.splitlines()[-1]
    assert not (lab / "x").exists()

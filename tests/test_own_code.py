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


MODELS = ["tcn", "tiny_transformer"]
RAY = ["engine=ray", "engine.workers=2"]
LINES = {
    "none": simulate("none", "model=mlp", "engine=serial"),
    "serial": simulate("serial", "model=mlp", "engine=serial", "strategy=pulled", OURS),
    "ray": simulate("ray", "model=mlp", *RAY, "strategy=pulled", OURS),
    "batched": simulate("batched", "model=mlp", "engine=batched", "strategy=pulled",
                        "experiment=mine"),
    "tcn": simulate("tcn", "model=tcn", *RAY, "experiment=mine"),
    "tiny_transformer": simulate("tiny_transformer", "model=tiny_transformer", "engine=serial",
                                 "experiment=mine"),
    "resumed tcn": ["simulate", "resume=tcn", OURS, "rounds=3"],
    "whole": simulate("whole", "model=tcn", "experiment=mine", "engine=serial", "rounds=3"),
    "rows": ["data", "generate", "--sites", "detroit", "--days", "40", "--out", "rows"],
    "resumed without": ["simulate", "resume=tcn"],
    "predicted without": ["predict", "tcn", "rows.csv"],
    "sweep": sweep("sweep", "model=mlp", "strategy=fedavg,pulled", OURS, "engine=serial"),
}  # fmt: skip
"""Commands by name, run in this order in one process."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def ran(lab: Path) -> dict[str, tuple[int, str]]:
    """Return the exit code and the errors of each of ``LINES``."""
    return dict(zip(LINES, commands(lab, *LINES.values()), strict=True))


def test_all_but_two_succeed(ran: dict[str, tuple[int, str]]) -> None:
    failed = {name: said for name, (code, said) in ran.items() if code != 0}
    assert set(failed) == {"resumed without", "predicted without"}, failed
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
    assert same(weights(lab / "tcn", 3), weights(lab / "whole", 3))
    words = [str(lab / "rows" / "plants" / "detroit.parquet"), "--imports",
             "mylab.strategies,mylab.models", "--out"]  # fmt: skip
    done = commands(lab, *(["predict", model, *words, f"{model}.csv"] for model in MODELS))
    assert [code for code, _ in done] == [0, 0], done
    assert all((lab / f"{model}.csv").exists() for model in MODELS)


@pytest.mark.usefixtures("ran")
def test_a_sweep_has_own_code_too(lab: Path) -> None:
    assert distance(weights(lab / "sweep" / "0"), weights(lab / "sweep" / "1")) > 1e-4


def test_a_module_that_is_missing_is_named(lab: Path) -> None:
    (lab / "halved.py").write_text("import absent_dependency\n")
    (lab / "broken.py").write_text("1 / 0\n")
    done = commands(
        lab,
        *(simulate("x", f"imports={name}") for name in ("nobody.here", "halved", "broken", "../x")),
        sweep("y", "imports=nobody", "seed=1,2"),
    )
    assert {code for code, _ in done} == {2}, done
    for (_, told), words in zip(
        done, ("'nobody'", "absent_dependency", "broken fails: ZeroDivisionError", "module name",
               "'nobody'"), strict=True,
    ):  # fmt: skip
        assert words in told.splitlines()[-1]
    assert not (lab / "x").exists()

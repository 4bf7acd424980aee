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


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("lab"))


def test_a_strategy_with_memory_is_itself_on_every_engine(lab: Path) -> None:
    done = commands(
        lab,
        simulate("none", "model=mlp", "engine=serial"),
        simulate("serial", "model=mlp", "engine=serial", "strategy=pulled", OURS),
        simulate("ray", "model=mlp", "engine=ray", "engine.workers=2", "strategy=pulled", OURS),
        simulate("batched", "model=mlp", "engine=batched", "strategy=pulled", "experiment=mine"),
    )
    assert [code for code, _ in done] == [0] * 4, done
    assert same(weights(lab / "serial"), weights(lab / "ray"))
    assert distance(weights(lab / "serial"), weights(lab / "batched")) < 1e-5
    # Nothing is remembered before the first round, but the pull is there from its first step.
    for number in (1, 2):
        assert distance(weights(lab / "none", number), weights(lab / "ray", number)) > 1e-4


def test_models_from_outside_train_resume_and_predict(lab: Path) -> None:
    models = ["tcn", "tiny_transformer"]
    words = ["engine=ray", "engine.workers=2", "experiment=mine"]
    done = commands(
        lab,
        *(simulate(model, f"model={model}", *words) for model in models),
        *(["simulate", f"resume={model}", OURS, "rounds=3"] for model in models),
        simulate("whole", "model=tcn", "experiment=mine", "engine=serial", "rounds=3"),
        ["simulate", "resume=tcn"],
        ["predict", "tcn", "rows.csv"],
        ["data", "generate", "--sites", "detroit", "--days", "40", "--out", "rows"],
    )
    assert [code for code, _ in done] == [0] * 5 + [2, 2, 0], done
    assert same(weights(lab / "tcn", 3), weights(lab / "whole", 3))
    assert OURS in done[5][1] and "--imports mylab.strategies,mylab.models" in done[6][1]
    rows = lab / "rows" / "plants" / "detroit.parquet"
    ours = ["--imports", "mylab.strategies,mylab.models"]
    for model in models:
        ((code, told),) = commands(lab, ["predict", model, str(rows), *ours, "--out", "s.csv"])
        assert code == 0 and (lab / "s.csv").exists(), told


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


def test_a_sweep_has_own_code_too(lab: Path) -> None:
    words = ["model=mlp", "strategy=fedavg,pulled", OURS, "engine=serial"]
    ((code, told),) = commands(lab, sweep("sweep", *words))
    assert code == 0, told
    assert distance(weights(lab / "sweep" / "0"), weights(lab / "sweep" / "1")) > 1e-4

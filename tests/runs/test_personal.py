"""A run whose sites keep tensors for themselves, from the command line to new data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedpdm.client.state import LOCAL
from fedpdm.errors import ConfigError
from fedpdm.history import History
from fedpdm.predict import load_predictor
from fedpdm.simulate import main
from fedpdm.training.personal import METHODS
from fedpdm.wire.flower import unpack_state
from fedpdm.wire.records import arrays_in
from tests.client.test_objective import Personal

SMALL = ["model=cnn", "rounds=2", "baselines.max_plants=0", "engine=serial"]
THREE = [f"sites.{name}.machines=8" for name in ("detroit", "houston", "leeds")]


def simulate(folder: Path, *arguments: str) -> dict[str, Any]:
    assert main([*SMALL, *arguments, f"hydra.run.dir={folder}"]) == 0
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("personal") / "run"
    simulate(folder, "travels=no_norm", "site=detroit,houston,leeds", *THREE,
             "strategy.fraction_train=0.4")  # fmt: skip
    return folder


def readings(run: Path) -> pd.DataFrame:
    card = json.loads((run / "model.json").read_text())
    random = np.random.default_rng(0)
    frame = pd.DataFrame({name: random.normal(size=60) for name in card["features"]})
    return frame.assign(machine="m", time=np.arange(60.0))


def test_predict_uses_the_tensors_of_the_site_that_is_named(finished: Path) -> None:
    with History.open(finished) as history:
        chosen = load_predictor(finished, site="leeds").round
        states = history.client_states(chosen)
        weights = history.weights(chosen)
    assert 0 < len(states) < 3  # somebody never trained
    scores = {}
    for site in ("detroit", "houston", "leeds"):
        predictor = load_predictor(finished, site=site)
        scores[site] = predictor.score(readings(finished))["risk"].to_numpy()
        state = predictor.model.get_parameters()
        assert all(np.array_equal(state[name], array) for name, array in weights.items())
        if site in states:
            own = arrays_in(unpack_state(states[site]), LOCAL)
            assert own and all(np.array_equal(state[name], own[name]) for name in own)
        else:
            assert (state["bn1.running_mean"] == 0).all()
    trained = next(iter(states))
    assert np.abs(scores[trained] - scores[next(s for s in scores if s not in states)]).max() > 0


def test_predict_asks_whose_data_it_is(finished: Path) -> None:
    with pytest.raises(ConfigError, match="--site.*detroit, houston, leeds"):
        load_predictor(finished)


def test_what_cannot_travel_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for travels, said in {
        "no_norm": "leaves no tensor of model=mlp", "bogus": "all, no_norm, body, head",
        "[lstm*]": "no tensor of the model matches 'lstm*'",
    }.items():  # fmt: skip
        arguments = ["model=mlp", f"travels={travels}", f"hydra.run.dir={tmp_path / 'run'}"]
        assert main(arguments) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_policy_may_be_a_class_of_ones_own_and_a_run_goes_on_with_it(tmp_path: Path) -> None:
    target = "travels={_target_: fedpdm.models.policy.Named, patterns: ['conv*', 'fc*']}"
    whole = simulate(tmp_path / "whole", target, "site=detroit", THREE[0])
    simulate(tmp_path / "parts", target, "site=detroit", THREE[0], "rounds=1")
    assert main([f"resume={tmp_path / 'parts'}", "rounds=2"]) == 0
    parts = json.loads((tmp_path / "parts" / "summary.json").read_text())
    assert parts["test"] == whole["test"]
    files = [(tmp_path / name / "rounds" / "000002.safetensors") for name in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_objective_of_ones_own_runs_from_data_to_scores(tmp_path: Path) -> None:
    target = "objective={_target_: tests.client.test_objective.Personal}"
    more = ["model=mlp", "site=detroit,houston", *THREE[:2], "baselines.max_plants=1",
            "baselines.controls=[alone,pooled]"]  # fmt: skip
    summary = simulate(tmp_path, target, *more)
    assert summary["test"]["baselines"]["pooled"] is not None
    with pytest.raises(ConfigError, match="objective=tests.client.test_objective.Personal"):
        load_predictor(tmp_path, site="detroit")
    scores = [
        load_predictor(tmp_path, site=site, objective=Personal()).score(readings(tmp_path))["risk"]
        for site in ("detroit", "houston")
    ]
    assert (scores[0] - scores[1]).abs().max() > 1e-6


def test_the_method_of_the_page_on_personal_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[2] / "docs" / "personalisation.md"
    listing = re.search(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert listing is not None
    (tmp_path / "listed_last.py").write_text(listing[1], "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ("imports=[listed_last]", "personal={_target_: listed_last.Last}", "model=mlp")
    try:
        found = simulate(tmp_path / "run", *own, "site=detroit,houston", *THREE[:2])
    finally:
        METHODS.pop("mylab-last", None)
    assert found["personal"]["shared"] != found["test"]

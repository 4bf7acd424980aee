"""How many sites evaluate, and that a resume keeps to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fedpdm import simulate
from fedpdm.errors import ConfigError
from fedpdm.runs import evaluation
from fedpdm.runs.evaluation import evaluated_share


@pytest.mark.parametrize(
    ("asked", "sites", "sampled", "share"),
    [
        ("auto", 6, 2, 1.0),
        ("auto", 50, 1, 1.0),
        ("auto", 400, 400, 1.0),
        ("auto", 1000, 10, 0.05),
        ("auto", 1000, 100, 0.2),
        (0.3, 1000, 100, 0.3),
    ],
)
def test_few_sites_all_evaluate_and_of_many_some(
    asked: object, sites: int, sampled: int, share: float
) -> None:
    cfg = OmegaConf.create({"evaluate": {"fraction": asked}})
    assert evaluated_share(cfg, sites, sampled) == share


@pytest.mark.parametrize("asked", ["most", 0, 1.5, True, None])
def test_what_is_no_share_is_refused(asked: object) -> None:
    with pytest.raises(ConfigError, match="evaluate.fraction="):
        evaluated_share(OmegaConf.create({"evaluate": {"fraction": asked}}), 6, 6)


def test_the_choice_is_said_kept_and_obeyed_by_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluation, "FEW", 1)
    monkeypatch.setattr(evaluation, "TIMES", 1)
    run = tmp_path / "run"
    words = ["site=detroit,houston", "replicas=2", "rounds=1", "model=mlp", "data.days=120",
             "strategy.fraction_train=0.5", "training.local_epochs=1", "baselines.max_plants=0",
             "evaluate.bootstrap=0"]  # fmt: skip
    assert simulate.main([*words, "--out", str(run)]) == 0
    assert "2 of 4 sites evaluate" in capsys.readouterr().out
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["evaluate"] == {"fraction": 0.5}
    first = json.loads((run / "summary.json").read_text())["test"]["per_site"]
    monkeypatch.setattr(evaluation, "FEW", 50)  # as a later version might choose
    assert simulate.main([f"resume={run}", "rounds=2"]) == 0
    second = json.loads((run / "summary.json").read_text())["test"]["per_site"]
    assert len(first) == 2 and set(second) == set(first)

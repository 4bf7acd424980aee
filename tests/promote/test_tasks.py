"""Runs of every kind of task: promoted, judged by the gates, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fedpdm.errors import ModelError
from fedpdm.models import ModelFactory
from fedpdm.promote.__main__ import main
from fedpdm.promote.export import export_model, parity, scorer_of
from fedpdm.simulate import main as simulate
from fedpdm.tasks import Anomaly, Program

SMALL = ["rounds=1", "training.local_epochs=1", "engine=serial", "baselines.max_plants=0",
         "evaluate.bootstrap=0"]  # fmt: skip
FLEET = ["site=detroit", "sites.detroit.machines=8", "data.days=150", "data.window=12"]


@pytest.mark.parametrize(
    ("words", "said"),
    [([*FLEET, "task=reconstruction"], "init=")],
)
def test_what_gives_no_risk_is_refused_and_nothing_is_written(
    words: Sequence[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert simulate([*words, *SMALL, f"hydra.run.dir={run}"]) == 0
    capsys.readouterr()
    assert main([str(run), "--to", str(tmp_path / "store")]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error and not (tmp_path / "store").exists()


def test_a_score_of_anomalies_is_exported_to_onnx() -> None:
    model = ModelFactory.create_model("masked_autoencoder", 3, 1, sequence_length=12).module
    x = np.random.default_rng(0).normal(size=(7, 12, 3)).astype(np.float32)
    exported = export_model(model, Anomaly(7.0), x[0])
    assert exported.format == "onnx" and exported.scorer == "unlikeness"
    assert parity(exported, model.eval(), Anomaly(7.0), x) < 1e-5


def test_written_lines_are_no_risk_and_say_so() -> None:
    with pytest.raises(ModelError, match=r"task=program.*fedpdm\.predict"):
        scorer_of(Program())

"""Anomaly detection: no label trains it or chooses its round, and labels only measure it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedpdm.errors import ConfigError
from fedpdm.history import History
from fedpdm.history.record import RoundRecord
from fedpdm.server.monitor import MonitorSettings
from fedpdm.server.round_metrics import best_round, judged
from fedpdm.simulate import main
from fedpdm.tasks import Anomaly, Failure

SMALL = [
    "task=anomaly", "sites.detroit.machines=8", "sites.houston.machines=8", "data.days=150",
    "rounds=2", "training.local_epochs=1", "engine=serial", "baselines.processes=0",
    "evaluate.bootstrap=0", "baselines.controls=[trivial,isolation_forest]",
    "model.config.decoder_hidden=16", "+model.config.settings.hidden_size=8",
]  # fmt: skip


def run(folder: Path, *words: str) -> dict[str, Any]:
    assert main([*SMALL, *words, f"hydra.run.dir={folder}"]) == 0
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def test_the_score_keeps_the_order_of_errors() -> None:
    error = torch.tensor([[0.0], [0.5], [3.0]])
    scores = Anomaly(7.0).scores(error)
    np.testing.assert_allclose(scores, 1 - np.exp(-error[:, 0].double().numpy()))
    assert (np.diff(scores) > 0).all() and scores[0] == 0


def test_labels_train_nothing_and_choose_no_round(tmp_path: Path) -> None:
    """With other labels the weights and the chosen round are the same."""
    one, other = run(tmp_path / "one"), run(tmp_path / "other", "shuffle_labels=windows")
    assert one["best_round"] == other["best_round"]
    weights = []
    for name in ("one", "other"):
        with History.open(tmp_path / name) as history:
            weights.append(history.weights(one["best_round"]))
    for name, values in weights[0].items():
        np.testing.assert_array_equal(values, weights[1][name])
    test = one["test"]
    assert test["baselines"]["isolation_forest"]["global"]["average_precision"] > 0
    assert test["global"]["average_precision"] != other["test"]["global"]["average_precision"]


def test_labels_judge_no_round() -> None:
    """A fall of labelled average precision is no reason to go back, nor its rise to stay."""
    rounds = [
        RoundRecord(number, 0, (), {"average_precision": ap, "validation_loss": loss}, {},
                    bytes_up=0, bytes_down=0, seconds=0.0, events=(), started="")
        for number, ap, loss in ((1, 0.9, 0.5), (2, 0.1, 0.3), (3, 0.2, 0.4))
    ]  # fmt: skip
    assert best_round(rounds, Anomaly(7.0)) == 2 and best_round(rounds, Failure(7.0)) == 1
    for task, found in ((Anomaly(7.0), None), (Failure(7.0), 0.1)):
        now, before = (judged(r.round, r.metrics, task) for r in (rounds[1], rounds[0]))
        assert now.metric == found and now.loss == 0.3
        assert (MonitorSettings().judge(now, [before], True) is None) == (found is None)


def test_a_record_without_failures_will_do(tmp_path: Path) -> None:
    quiet = [f"sites.{site}.life_days=100000" for site in ("detroit", "houston")]
    summary = run(tmp_path, *quiet)
    assert summary["test"]["global"]["average_precision"] is None
    assert 0 < summary["test"]["global"]["threshold"] < 1


def test_another_model_is_refused() -> None:
    from fedpdm.config.compose import compose
    from fedpdm.runs.experiment import build

    with pytest.raises(ConfigError, match="masked_autoencoder"):
        build(compose(["task=anomaly", "model=lstm"]))

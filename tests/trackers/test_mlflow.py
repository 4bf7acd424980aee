"""What MLflow reads back of a run, from the data base in the run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedpdm.simulate import main
from tests.trackers.small import SMALL

tracking = pytest.importorskip(
    "mlflow.tracking", reason="mlflow is not installed: pip install fedpdm[mlflow]"
)
# MLflow's own imports warn about other packages; that is not ours to mend.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def only_run(uri: str) -> tuple[Any, Any]:
    client = tracking.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("fedpdm")
    (run,) = client.search_runs([experiment.experiment_id])
    return client, run


def test_rounds_settings_and_results_are_read_back_and_a_resume_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main([*SMALL, "rounds=2", "tracker=mlflow", f"hydra.run.dir={folder}"]) == 0
    assert main([f"resume={folder}", "rounds=3"]) == 0
    client, run = only_run(f"sqlite:///{folder / 'mlflow.db'}")
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    assert run.data.params["model.model_type"] == "mlp" and run.data.params["seed"] == "42"
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert [metric.step for metric in history] == [1, 2, 3], "one run, each round once"
    site = client.get_metric_history(run.info.run_id, "sites/detroit/validation_loss")
    assert [metric.step for metric in site] == [1, 2, 3]
    summary = json.loads((folder / "summary.json").read_text())
    expected = summary["test"]["global"]["average_precision"]
    assert run.data.metrics["test/average_precision"] == pytest.approx(expected)
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert files == {"summary.json", "metrics.csv", "report.html"}
    assert not (Path.cwd() / "mlruns").exists()

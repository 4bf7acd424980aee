"""``experiment=hvac`` in seconds: what a run with several horizons keeps and says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedpdm.config.compose import compose
from fedpdm.data.rows import Split
from fedpdm.errors import DataError
from fedpdm.evaluation.thresholds import choose_thresholds
from fedpdm.predict import load_predictor
from fedpdm.runs.experiment import build
from fedpdm.runs.look import look_at_data
from fedpdm.runs.run import Run

FLEET = [
    "debug=quick", "engine=serial", "site=[detroit,houston]", "sites.detroit.machines=8",
    "sites.houston.machines=8", "data.stride=40", "task=horizons", "features=both",
    "model=mixer_hybrid", "model.config.patch=4", "model.config.width=16",
    "model.config.num_layers=1", "model.config.hidden_size=16", "objective=focal",
    "objective.alpha=0.75", "baselines.controls=[trivial]", "baselines.processes=0",
]  # fmt: skip
ADAPTERS = ["model.config.freeze_encoder=true", "travels=adapters"]


@pytest.mark.parametrize("more", [[], ADAPTERS], ids=["all", "adapters"])
def test_a_run_keeps_every_horizons_threshold_and_its_risks_are_nested(
    tmp_path: Path, more: list[str]
) -> None:
    cfg = compose([*FLEET, *more])
    experiment = build(cfg)
    sensors = len(experiment.federation.source.features)
    assert experiment.model["config"]["sensors"] == sensors
    assert experiment.model["input_dim"] == sensors * 29
    run = Run(experiment, cfg, tmp_path / "run")
    summary = run.execute()
    card = json.loads((tmp_path / "run" / "model.json").read_text())
    named = [f"{horizon:g}" for horizon in experiment.task.horizons]  # type: ignore[attr-defined]
    assert list(card["threshold_by_risk"]) == named
    assert card["threshold_by_risk"][named[0]] == card["threshold"]
    for name in named:
        assert summary["test"]["global"][f"threshold_{name}"] == card["threshold_by_risk"][name]
        assert summary["test"]["global"][f"average_precision_{name}"] is not None
    trial: Any = run._trial
    for site in trial.predictions.values():
        assert (np.diff(site[Split.TEST], axis=1) >= 0).all()
    # Chosen on validation windows: without the others they are the same.
    weights = {site.name: np.ones(len(site.validation)) for site in trial.sites}
    again = choose_thresholds(
        experiment.protocol.policy, trial.predictions, trial.sites, experiment.task, weights
    )
    assert dict(again.common) == card["threshold_by_risk"]
    frame = pd.DataFrame(
        experiment.federation.rows("detroit").values,
        columns=list(experiment.federation.source.features),
    )
    rows = experiment.federation.rows("detroit")
    frame.insert(0, "time", rows.time)
    frame.insert(0, "machine", rows.machine)
    scored = load_predictor(tmp_path / "run", site="detroit" if more else None).score(frame)
    risks = scored[[column for column in scored if str(column).startswith("risk")]].to_numpy()
    assert risks.shape[1] == len(named) and (np.diff(risks, axis=1) >= 0).all()
    assert 0 <= risks.min() and risks.max() <= 1 and len(np.unique(risks[:, 0])) > 10


def test_statistics_are_needed_for_what_fuses_them() -> None:
    from fedpdm.errors import ModelError

    with pytest.raises(ModelError, match="features=both without limits"):
        build(compose([*FLEET, "features=raw", "model.config.fusion=cross_attention"]))


def test_without_the_data_it_says_how_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fedpdm.data fetch cmapss"):
        look_at_data(build(compose(["experiment=hvac", f"data.path={tmp_path}"])))


def test_the_experiment_in_seconds(tmp_path: Path, data_folder: Path) -> None:
    cfg = compose([
        "experiment=hvac", "rounds=1", "partition.sites=2", "data.stride=40", "features=raw",
        "model.config.num_layers=1", "training.local_epochs=1", "baselines.controls=[trivial]",
        "baselines.processes=0", "evaluate.bootstrap=0", f"data.path={data_folder}",
    ])  # fmt: skip
    summary = Run(build(cfg), cfg, tmp_path / "run").execute()
    assert summary["task"] == "horizons" and summary["model"] == "mixer_hybrid"
    assert (tmp_path / "run" / "report.html").exists()
    found = summary["test"]["global"]
    assert found["average_precision"] > found["prevalence"]

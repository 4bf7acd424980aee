"""Features of windows and resampling through a whole run, and in what is done with it later."""

from __future__ import annotations

import functools
import json
import operator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from fedpdm.config.compose import compose
from fedpdm.data.features import WindowFeatures
from fedpdm.data.rows import Split
from fedpdm.data.sources.dialect import Dialect
from fedpdm.data.sources.mapping import SiteMapping
from fedpdm.errors import ConfigError, ModelError
from fedpdm.federation import Federation
from fedpdm.models import ModelFactory
from fedpdm.predict import load_predictor
from fedpdm.runs.experiment import build
from fedpdm.runs.predictor import Predictor
from fedpdm.runs.run import Run
from fedpdm.storage import read_tensors
from fedpdm.tasks import Failure
from fedpdm.testing.tiny import TinySource
from fedpdm.training.objective import outputs

QUICK = [
    "debug=quick", "engine=serial", "site=[detroit,houston]", "sites.detroit.machines=4",
    "sites.houston.machines=4", "data.days=200", "data.stride=8",
    "baselines.controls=[trivial,hgb]", "baselines.processes=0",
]  # fmt: skip


@pytest.mark.parametrize(("mode", "model", "words"), [
    ("statistics", "mlp", []), ("both", "lstm", ["model.config.hidden_size=8"]),
])  # fmt: skip
def test_a_run_with_features_can_be_predicted_with(
    tmp_path: Path, mode: str, model: str, words: list[str]
) -> None:
    cfg = compose([*QUICK, f"features={mode}", f"model={model}", *words])
    experiment = build(cfg)
    sensors = len(experiment.federation.source.features)
    computed = 28 * sensors
    inputs = computed if mode == "statistics" else sensors + computed
    assert experiment.model["input_dim"] == inputs == len(experiment.federation.inputs)
    assert (experiment.model["sequence_length"] is None) is (mode == "statistics")
    summary = Run(experiment, cfg, tmp_path / "run").execute()
    assert summary["test"]["baselines"]["hgb"]["global"]["average_precision"] is not None
    scaler = read_tensors(tmp_path / "run" / "scaler.safetensors")
    assert scaler["federated/mean"].shape == (1, sensors + computed)
    card = json.loads((tmp_path / "run" / "model.json").read_text())
    assert card["inputs"] == {"mode": mode, "limits": {}} and len(card["features"]) == sensors
    rows = experiment.federation.rows("detroit")
    frame = pd.DataFrame(rows.values, columns=list(rows.features))
    frame.insert(0, "time", rows.time)
    frame.insert(0, "machine", rows.machine)
    scored = load_predictor(tmp_path / "run").score(frame)
    assert scored["risk"].between(0, 1).all() and scored["risk"].nunique() > 10


@pytest.mark.parametrize("mode", ["statistics", "both"])
def test_new_rows_are_seen_as_in_training(mode: str) -> None:
    source = TinySource({"a": {"machines": 5}})
    built = Federation(source, Failure(4.0), features=WindowFeatures(mode, {"a": [-1, 1]}))
    scaler = built.moments("a").scaler()
    test = built.site("a", scaler).test
    model = ModelFactory.create_model(
        "mlp", len(built.inputs), 2, sequence_length=built.input_length
    )
    expected = built.task.scores(outputs(model.module, torch.from_numpy(test.x)))
    predictor = Predictor(
        run=Path("run"), round=1, model=model, task=built.task,
        mapping=SiteMapping("", (), "machine", "time", {f: f for f in "abc"}, dialect=Dialect()),
        scaler=scaler, window=8, conditions=1, time_unit="hours", threshold=None,
        features=built.features,
    )  # fmt: skip
    rows = built.rows("a")
    risk: dict[tuple[str, float], float] = {}
    tested = rows.split == Split.TEST
    for life in np.unique(rows.life[tested]):
        part = rows.take(tested & (rows.life == life))
        frame = pd.DataFrame(part.values, columns=list("abc"))
        frame.insert(0, "time", part.time)
        frame.insert(0, "machine", part.machine)
        scored = predictor.score(frame)
        risk |= dict(zip(zip(scored["machine"], scored["time"], strict=True), scored["risk"],
                         strict=True))  # fmt: skip
    found = [risk[(str(m), float(t))] for m, t in zip(test.machine, test.time, strict=True)]
    assert len(found) > 20 and found == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_model_of_sequences_refuses_rows_of_statistics_and_says_the_way_out() -> None:
    with pytest.raises(ModelError, match="use model=mlp or model=cnn, or features=both"):
        build(compose(["features=statistics", "model=lstm"]))


def test_single_rows_have_no_statistics_over_time() -> None:
    with pytest.raises(ConfigError, match="data=ai4i has single rows: leave features=raw"):
        build(compose(["data=ai4i", "features=both", f"data.path={Path(__file__).parent}"]))


def test_a_config_from_before_there_were_features_means_readings() -> None:
    cfg = compose(["engine=serial"])
    old: Any = cfg.copy()
    OmegaConf.set_struct(old, False)
    del old["features"], old["training"]["resample"]
    del old["baselines"]["controls"], old["baselines"]["minirocket"]
    before, now = build(old), build(cfg)
    assert before.model == now.model and before.baselines == now.baselines
    assert before.federation.resampler is None and not before.federation.features.active


def test_resampling_reaches_training_and_only_training(tmp_path: Path) -> None:
    pytest.importorskip("imblearn")
    plain = build(compose([*QUICK])).federation
    evened = build(compose([*QUICK, "training.resample=oversample"])).federation
    for split in (Split.TRAIN, Split.VALIDATION, Split.TEST):
        before, after = (
            f.site("detroit", f.moments("detroit").scaler()).windows[split] for f in (plain, evened)
        )
        assert (len(after) > len(before)) is (split == Split.TRAIN)
    with pytest.raises(ConfigError, match="resample=magic is unknown; choose smote, oversample"):
        build(compose(["training.resample=magic"]))


def test_scales_of_real_features_are_those_of_the_pooled_windows(data_folder: Path) -> None:
    """A ratio near 1 varies by 7e-6: the variance from sums was wrong there by 1e-5 of itself."""
    federation = build(compose(["data=cmapss", "features=both"])).federation
    sums = functools.reduce(operator.add, [federation.moments(s) for s in federation.sites])
    rows = [federation.rows(site) for site in federation.sites]
    readings = np.concatenate([r.values[r.split == Split.TRAIN] for r in rows])
    features = np.concatenate([federation._features(s)[Split.TRAIN] for s in federation.sites])
    right = np.concatenate(
        [part.astype(np.longdouble).std(axis=0) for part in (readings, features)]
    )
    scale = sums.scaler().scale[0]
    assert len(scale) == 406
    np.testing.assert_allclose(scale, right.astype(np.float64), rtol=4e-6, atol=1e-13)
    ratios = [14 + 28 * k + 14 for k in range(14)]
    tiny = [k for k in ratios if 0 < right[k] < 1e-5]
    assert len(tiny) == 2
    np.testing.assert_allclose(scale[tiny], right[tiny].astype(np.float64), rtol=1e-10)

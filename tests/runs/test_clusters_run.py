"""A run whose sites are in clusters, from the command line to new data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedpdm.errors import ConfigError
from fedpdm.evaluation.clusters import found_clusters
from fedpdm.history import History
from fedpdm.predict import load_predictor
from fedpdm.runs.reopened import reopen
from fedpdm.server.base import models_of
from fedpdm.simulate import main
from fedpdm.testing.federated import same

SMALL = [
    "model=mlp", "model.config.hidden=[8]", "rounds=3", "replicas=2", "site=detroit,houston",
    "baselines.max_plants=0", "evaluate.bootstrap=0", "engine=serial", "training.local_epochs=2",
    "data.days=200", "sites.detroit.machines=6", "sites.houston.machines=6",
    "server=flhc", "server.after=1", "task=rul",
]  # fmt: skip
SITES = ["detroit-001", "detroit-002", "houston-001", "houston-002"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clusters") / "run"
    assert main([*SMALL, f"hydra.run.dir={folder}"]) == 0
    return folder


def summary_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def test_the_summary_sets_clusters_beside_the_known_kinds(finished: Path) -> None:
    found = summary_of(finished)["clusters"]
    assert list(found["members"]) == SITES and found["count"] == 2
    assert found["families"] == {
        site: "automotive" if site.startswith("d") else found["families"]["houston-001"]
        for site in SITES
    }
    assert -1 <= found["adjusted_rand_index"] <= 1
    page = (finished / "report.html").read_text()
    assert '<h2 id="clusters">' in page and "adjusted Rand index" in page


def test_each_site_is_tested_with_the_model_of_its_cluster(finished: Path) -> None:
    opened = reopen(finished)
    with History.open(finished) as history:
        models, members = models_of(history, opened.chosen)
    assert set(members.values()) == set(models) and len(models) == 2
    assert not same(*models.values()), "they have gone on apart"
    for site in SITES:
        state = opened.models(site).state_dict()
        assert all(np.array_equal(state[n].numpy(), a) for n, a in models[members[site]].items())
    again = opened.test().parts["test"]
    assert again is not None
    for site, scores in summary_of(finished)["test"]["per_site"].items():
        assert scores["rmse"] == again["per_site"][site]["rmse"]


def test_predict_takes_the_model_of_the_site_that_is_named(finished: Path) -> None:
    card = json.loads((finished / "model.json").read_text())
    random = np.random.default_rng(0)
    frame = pd.DataFrame({name: random.normal(size=60) for name in card["features"]})
    frame = frame.assign(machine="m", time=np.arange(60.0))
    members, scores = summary_of(finished)["clusters"]["members"], {}
    for site in SITES:
        scores[site] = load_predictor(finished, site=site).score(frame)["remaining_life"].to_numpy()
    for site in SITES:
        alike = [np.array_equal(scores[site], scores[other]) for other in SITES]
        assert alike == [members[site] == members[other] for other in SITES]
    with pytest.raises(ConfigError, match="2 clusters.*--site"):
        load_predictor(finished)


def test_a_run_goes_on_with_its_clusters(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main([*SMALL, "rounds=1", f"hydra.run.dir={folder}"]) == 0
    assert main([f"resume={folder}", "rounds=3"]) == 0
    assert summary_of(folder)["clusters"] == summary_of(finished)["clusters"]
    assert summary_of(folder)["test"] == summary_of(finished)["test"]


def test_groupings_are_compared_by_pairs() -> None:
    members = {"a": "cluster-1", "b": "cluster-1", "c": "cluster-2", "d": "cluster-2"}
    equal = found_clusters(members, {"a": "x", "b": "x", "c": "y", "d": "y"})
    assert equal["adjusted_rand_index"] == 1.0 and equal["count"] == 2
    crossed = found_clusters(members, {"a": "x", "b": "y", "c": "x", "d": "y"})
    # No pair is together in both; two pairs of six in each: (0 - 4/6) / (2 - 4/6) = -1/2.
    assert crossed["adjusted_rand_index"] == pytest.approx(-0.5)
    nobody_knows = found_clusters(members, {})
    assert nobody_knows["families"] is None and nobody_knows["adjusted_rand_index"] is None
    assert found_clusters(members, dict.fromkeys(members, "x"))["adjusted_rand_index"] is None
    assert found_clusters(members, {s: s for s in members})["adjusted_rand_index"] is None

"""``python -m fedpdm.ablate``: from one command to table, CSV and page; what it refuses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedpdm.ablate.__main__ import main
from fedpdm.ablate.variants import variants_of
from fedpdm.data.sources.without import WithoutSource
from fedpdm.errors import ConfigError
from fedpdm.predict import load_predictor
from fedpdm.simulate import main as simulate
from fedpdm.testing.tiny import TinySource
from tests import axe
from tests.promote.toy_sites import SETTINGS, new_rows, write_sites

MILLING = (
    "data=milling", "task=operation", "model=sensor_encoder", "data.shops=2", "data.runs=6",
    "data.lines=3", "data.window=8", "data.channels=1", "rounds=1", "training.local_epochs=1",
    "model.config={width:4,hidden_size:4,num_layers:1,dropout_rate:0.0}",
    "baselines.controls=[trivial]", "baselines.processes=0", "engine=serial",
)  # fmt: skip
GROUPS = ("--groups", "motion=accel_x+accel_y", "--groups", "states")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of a setting, ablated and trained again without each of two groups."""
    out = tmp_path_factory.mktemp("ablate") / "out"
    words = [*MILLING, "seed=0,1", *GROUPS, "--retrain", "--out", str(out)]
    assert main(words) == 0
    return out


def content(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_setting_is_trained_ablated_and_written(done: Path) -> None:
    table = pd.read_csv(done / "ablation.csv")
    assert len(table) == 2 * 3 * 2 * 3, "seeds, all and each of two sites, groups, ways"
    assert set(table["how"]) == {"permute", "mean", "zero"}
    np.testing.assert_allclose(table["fall"], table["intact"] - table["without"])
    for seed in (0, 1):
        summary = json.loads((done / "reference" / str(seed) / "summary.json").read_text())
        own = table[table["seed"] == seed]
        whole, one = own[own["site"] == "all"], own[own["site"] == "shop-1"]
        assert whole["intact"].unique() == pytest.approx([summary["test"]["global"]["macro_f1"]])
        score = summary["test"]["per_site"]["shop-1"]["macro_f1"]
        assert one["intact"].unique() == pytest.approx([score])
    ranking = pd.read_csv(done / "ranking.csv")
    assert ranking["low"].isna().all(), "two seeds give no interval"
    page = (done / "ablation.html").read_text()
    assert "motion" in page and "there is no interval" in page and "<script" not in page


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_fits_phones_and_screens_and_breaks_no_rule_of_accessibility(
    done: Path, width: int
) -> None:
    assert axe.violations((done / "ablation.html").read_text("utf-8"), width) == []


def test_training_without_a_group_is_paired_with_the_reference(done: Path) -> None:
    pairs = pd.read_csv(done / "variants" / "pairs.csv")
    judged = pairs[pairs["kind"] == "reference"]
    assert set(judged["second"]) == {"without=[]"} and (judged["seeds"] == 2).all()
    assert len(judged) == 2
    card = json.loads((done / "without-states" / "0" / "model.json").read_text())
    before = json.loads((done / "reference" / "0" / "model.json").read_text())
    gone = set(before["features"]) - set(card["features"])
    assert gone == {"spindle", "coolant", "tool", "reference"}
    assert len(card["features"]) == card["input_dim"] == before["input_dim"] - 4
    assert not any(card["config"]["levels"]), "the codes are gone, and so are their embeddings"


def test_finished_runs_are_left_as_they_are_and_give_the_same_again(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [done / "reference" / seed for seed in "01"]
    before = content(done)
    assert main([*map(str, runs), *GROUPS, "--out", str(tmp_path)]) == 0
    assert content(done) == before
    again = (tmp_path / "ablation.csv").read_text()
    assert again == (done / "ablation.csv").read_text()
    assert "missed most" in capsys.readouterr().out
    assert main([str(runs[0]), "--groups", "states", "--how", "zero"]) == 0
    assert (done / "reference" / "ablation" / "ablation.html").exists(), "beside the run"


def test_mistakes_are_one_sentence_and_train_nothing(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = str(done / "reference" / "0"), tmp_path / "out"
    wrong = {
        (run, "--groups", "x=nope"): "nope is no sensor",
        (run, "--how", "shuffle"): "--how shuffle is unknown",
        (run, "--retrain"): "--retrain trains again",
        (run, "seed=1"): "not both",
        (str(tmp_path / "nowhere"),): "is no folder of runs",
        (str(done),): "settings",
        (*MILLING, "--groups", "acel_x"): "did you mean accel_x",
        (*MILLING, "--variants", "data.noise=1"): "changes the data",
        (*MILLING, "--variants", "gamma"): "must be KEY=VALUE",
        (*MILLING, "--variants", "rounds.no=1"): "rounds",
        (*MILLING, "without=[nope]"): "without: nope is no sensor",
    }
    for words, said in wrong.items():
        assert main([*words, "--out", str(out)]) == 2, words
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and said in error
    assert not out.exists()


def test_variants_are_single_values_or_combinations() -> None:
    assert variants_of(["objective.gamma=0,1", "objective=focal objective.alpha=0.5,0.9"]) == [
        ("objective.gamma=0",),
        ("objective.gamma=1",),
        ("objective=focal", "objective.alpha=0.5"),
        ("objective=focal", "objective.alpha=0.9"),
    ]
    assert variants_of(["travels=[a,b]"]) == [("travels=[a,b]",)]


def test_sensors_are_left_out_of_rows_and_of_what_is_said_of_them() -> None:
    inner = TinySource({"north": {}}, window=8)
    inner.groups = {"pair": ("a", "c"), "one": ("b",)}
    inner.levels = {"c": 3}
    whole, less = inner.rows("north"), WithoutSource(inner, ["pair"])
    assert (less.features, less.groups, less.levels) == (("b",), {"one": ("b",)}, {})
    rows = less.rows("north")
    np.testing.assert_array_equal(rows.values, whole.values[:, [1]])
    np.testing.assert_array_equal(rows.split, whole.split)
    with pytest.raises(ConfigError, match="every sensor"):
        WithoutSource(inner, ["pair", "b"])
    inner.categorical, inner.levels = ("a", "c"), {}
    with pytest.raises(ConfigError, match="a part of pair"):
        WithoutSource(inner, ["a"])


def test_predict_needs_no_column_that_was_left_out(tmp_path: Path) -> None:
    sites, run = write_sites(tmp_path / "sites", ["north", "south"]), tmp_path / "run"
    assert simulate([
        "--config-dir", str(sites), f"data.path={sites}", "site=north,south", *SETTINGS,
        "rounds=1", "training.local_epochs=1", "baselines.controls=[]", "without=[s3,s0]",
        f"hydra.run.dir={run}",
    ]) == 0  # fmt: skip
    scored = load_predictor(run).score(new_rows().drop(columns=["s0", "s3"]))
    assert len(scored) and scored["risk"].between(0, 1).all()


@pytest.mark.long
def test_the_planted_groups_are_first_and_last_in_every_seed(tmp_path: Path) -> None:
    words = ["experiment=gcode", "seed=0,1,2,3,4", "baselines.controls=[trivial]"]
    assert main([*words, "--how", "permute", "--out", str(tmp_path)]) == 0
    ranking = pd.read_csv(tmp_path / "ranking.csv", index_col="group")
    whole = ranking[ranking["site"] == "all"]
    assert whole.loc["proximity", "first"] == 5 and whole.loc["proximity", "low"] > 0.1
    assert whole.loc["motor_current", "last"] == 5

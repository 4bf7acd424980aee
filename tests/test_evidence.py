"""How numbers about predictions are gathered: means, goals, tables. Nothing is trained here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from benchmarks import recheck
from benchmarks.predictions import against_alone, runs, tables, targets
from benchmarks.predictions.cells import settings
from benchmarks.predictions.collect import at, collect, sites_covered, spread
from benchmarks.predictions.experiments import CHOICE, EXPERIMENTS, FEDCMAPSS
from benchmarks.predictions.runs import Job
from fedpdm.config.compose import compose

ROOT = Path(__file__).resolve().parents[1]
ARMS = {"federated": 0.8, "pooled": 0.83}


def summary(rmse: float) -> dict[str, Any]:
    return {
        "sites": ["a", "b"],
        "gain": {"a": 1.0, "b": None},
        "validation": {"best": 9.0},
        "seconds": {"total": 5.0},
        "test": {
            "global": {"rmse": rmse},
            "mean_site": {"rmse": rmse + 1},
            "baselines": {"pooled": {"global": {"rmse": 7.0}, "mean_site": {"rmse": None}}},
            "intervals": {
                "global": {"coverage": 0.9},
                "per_site": {
                    "a": {"coverage_interval": [0.7, 0.97]},
                    "b": {"coverage_interval": [0.2, 0.8]},
                },
            },
        },
    }


def test_seeds_become_mean_deviation_and_values() -> None:
    found = collect([summary(10.0), summary(14.0)], "rmse", {"cover": "test.intervals.global.no"})
    assert found["global"]["federated"] == {
        "mean": 12.0, "sd": pytest.approx(2.8284, abs=1e-4), "values": [10.0, 14.0],
    }  # fmt: skip
    assert found["mean_site"]["pooled"] == {"mean": None, "sd": None, "values": [None, None]}
    assert found["gain_over_alone"]["a"]["mean"] == 1.0
    assert found["also"]["cover"]["values"] == [None, None]
    assert found["plants_covered"]["mean"] == sites_covered(summary(1.0)) == 0.5
    assert at({"a": {"b": 1}}, "a.b.c") is None and spread([3.0])["sd"] is None


def test_a_goal_is_reached_on_its_own_side_only() -> None:
    lower = targets.Target("rmse", 13.0, 12.9, highest=True)
    upper = targets.Target("ap", 0.9, 0.89, highest=False)
    inside = targets.Target("coverage", (0.86, 0.95), 0.96, None)
    unknown = targets.Target("rmse", 13.0, None, highest=True)
    assert [t.reached for t in (lower, upper, inside, unknown)] == [True, False, False, None]
    assert "not measured" in targets.as_markdown({})


def test_goals_read_what_was_stored() -> None:
    stored = {
        "fedcmapss_a": {"global": {"federated": {"mean": 11.5}}},
        "ai4i": {"global": {arm: {"mean": value} for arm, value in ARMS.items()}},
        "failure_fd001": {
            "global": {"federated": {"mean": 0.9}},
            "also": {"false_alarm_rate": {"values": [0.05, 0.11]}},
        },
    }
    found = [(t.what, t.measured) for t in targets.targets(stored)]
    known = {what: value for what, value in found if value is not None}
    assert known["FedCMAPSS A, RMSE"] == 11.5
    assert known["AI4I, forward, federated AP"] == 0.8
    assert known["FD001, false alarms over budget, mean"] == pytest.approx(1.6)
    assert ("… gap to pooled", pytest.approx(0.03)) in found
    assert ("… worst seed", pytest.approx(2.2)) in found


def test_lines_of_another_command_are_left_out() -> None:
    name = "fedcmapss_a"
    found = {**collect([summary(10.0)], "rmse", {}), "seeds": [0]}
    command = " ".join(("python -m fedpdm.simulate", *FEDCMAPSS[name].overrides))
    assert "10.00" in tables.scores({name: {**found, "command": command}})
    assert "10.00" not in tables.scores({name: {**found, "command": command + " rounds=3"}})


def test_a_run_is_known_by_its_whole_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "KEPT", tmp_path)
    job, same = (Job("x", ("site=detroit", *more), 3) for more in ((), ("seed=42",)))
    other = Job("x", ("site=detroit", "rounds=3"), 3)
    assert job.folder == same.folder != other.folder and not job.finished
    assert job.command[-1] == f"hydra.run.dir={job.folder}"
    job.folder.mkdir()
    (job.folder / "manifest.json").write_text(json.dumps({"git_commit": "abc+"}))
    assert job.command[3:] == [f"resume={job.folder}"] and job.commit == "abc+"


UNTRAINED = ("baselines", "evaluate", "debug", "shuffle_labels", "sites")
"""Blocks that train nothing of the federation, and the sites that it is made of.
debug=shuffled_labels is a check of the yaml's own settings on wrong labels; it sets
``shuffle_labels``."""
PARTS_OF_DATA = ("data.subset", "data.fold", "data.split")
"""Which part of the data: a yaml names one, and the table has a line for each."""


def test_a_printed_experiment_is_what_its_yaml_says() -> None:
    stored = json.loads((ROOT / "benchmarks/results/evidence.json").read_text())
    compared = 0
    for name, found in stored.items():
        words = found["command"].split()[3:]
        chosen = [word for word in words if word.startswith("experiment=")]
        if not chosen:
            continue
        command, yaml = (trained(overrides) for overrides in (words, chosen))
        differ = {key for key in command | yaml if command.get(key) != yaml.get(key)}
        assert not differ, f"{name}: {found['command']} is not its yaml"
        if "settings" in found:
            assert found["settings"] == settings(words), f"{name}: its yaml has changed since"
        if name.startswith("fedcmapss_"):
            assert command["rounds"] <= 100, f"{name}: the benchmark has 100 rounds"
        compared += 1
    assert compared >= 10


def test_the_seed_that_chooses_is_shown_nowhere() -> None:
    assert all(CHOICE not in experiment.seeds for experiment in EXPERIMENTS.values())


def trained(overrides: list[str]) -> dict[str, Any]:
    """Return what a command composes to without what does not train."""
    cfg = OmegaConf.to_container(compose(overrides))
    assert isinstance(cfg, dict)
    for key in PARTS_OF_DATA:
        block, _, name = key.partition(".")
        cfg[block].pop(name, None)
    return {str(key): value for key, value in cfg.items() if key not in UNTRAINED}


def test_the_check_by_other_code_is_quoted_as_it_came_out() -> None:
    kept = json.loads((ROOT / "benchmarks/results/recheck.json").read_text())
    evidence = json.loads((ROOT / "benchmarks/results/evidence.json").read_text())
    assert kept["rescored"]["runs"] == 35 and kept["rescored"]["farthest_apart"] < 1e-5
    subsets = ["FD001", "FD002", "FD003", "FD004"]
    lines = {"fedpdm, pooled": [
        evidence[f"rul_{subset.lower()}"]["global"]["pooled"]["mean"] for subset in subsets
    ]}  # fmt: skip
    for model in ("trees", "network"):
        for kind, words in (("with_age", "with the engine's age"), ("without_age", "without it")):
            lines[f"scikit-learn, {model}, {words}"] = [
                float(np.mean(kept["retrained"]["rmse"][subset][kind][model])) for subset in subsets
            ]
    page = (ROOT / "docs/evidence.md").read_text()
    for name, values in lines.items():
        assert f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |" in page


def test_windows_and_scaling_of_the_check_are_those_of_plain_arithmetic() -> None:
    values, engines = np.arange(5.0).reshape(5, 1), np.array([1, 1, 2, 2, 2])
    ends = recheck.last_windows(values, engines, 3)
    assert ends[:, :, 0].tolist() == [[0, 0, 1], [2, 3, 4]]
    rows = pd.DataFrame({"x": [2.0, 7.0], "condition": [0, 1]})
    scaled = recheck.scaled(rows, ["x"], np.array([[1.0], [5.0]]), np.array([[0.5], [0.0]]))
    assert scaled.tolist() == [[2.0], [0.0]]
    line = np.tile(np.arange(80.0)[:, None] * 3, (1, 1, 1))
    assert np.allclose(recheck.summarised(line)[0, 1::2], 3.0), "slopes"


def test_a_table_has_a_column_for_each_predictor_that_somebody_has() -> None:
    def line(name: str, **arms: float) -> dict[str, Any]:
        command = " ".join(("python -m fedpdm.simulate", *EXPERIMENTS[name].overrides))
        part = {arm: {"mean": value, "sd": None} for arm, value in arms.items()}
        return {"global": part, "mean_site": part, "metric": "average_precision",
                "seeds": [0], "command": command}  # fmt: skip

    fold = line("ai4i_fold_0", federated=0.8, rules=0.85)
    stored = {"ai4i_fold_0": fold, "fleet": line("fleet", federated=0.5, best_alone=0.45)}
    head, _, *rows = tables.scores(stored).splitlines()
    assert head == "| experiment | best alone | federated | rules | seeds |"
    assert [row.split(" | ")[1:] for row in rows] == [
        *[["0.450", "**0.500**", "–", "1 |"]] * 2, ["–", "**0.800**", "0.850", "1 |"],
    ]  # fmt: skip
    every = {f"ai4i_fold_{k}": line(f"ai4i_fold_{k}", federated=0.8, pooled=0.8) for k in range(5)}
    found = {t.what: t.note for t in targets.targets(every)}
    assert found["AI4I, stratified 5-fold, federated AP"] == "", "older results have no rules"


def measured(federated: list[float], **arms: list[float]) -> dict[str, Any]:
    """An experiment as it is stored, with the same scores over all rows and as mean of sites."""
    part = {arm: {"values": values} for arm, values in {"federated": federated, **arms}.items()}
    return {"metric": "average_precision", "global": part, "mean_site": part,
            "gain_over_alone": {"a": {"values": [-0.1]}, "b": {"values": [None]}}}  # fmt: skip


def test_a_federation_behind_the_strongest_alone_gets_a_reason_and_one_ahead_none() -> None:
    behind = measured([0.5, 0.6], alone=[0.5, 0.5], hgb_alone=[0.7, 0.7], pooled=[0.6, 0.6])
    ahead = measured([0.9] * 4 + [0.8], alone=[0.5] * 5, best_alone=[0.6] * 5)
    found = against_alone.table(
        {"fleet_all": behind, "failure_fd001": ahead, "failure_fd002": measured([0.5]),
         "shuffled_fleet": behind}
    ).splitlines()  # fmt: skip
    reasons = {line.split("|")[1].strip(): line.split("|")[5].strip() for line in found[2:6]}
    assert len(found) == 8 and len(reasons) == 4
    for title, reason in reasons.items():
        assert bool(reason) == title.startswith("generated"), title
    behind_line, ahead_line = found[2], found[4]
    assert "trees alone 0.700 | −0.150 (2 seeds)" in behind_line
    assert "pooled rows is not ahead" in behind_line and "a −0.100" in behind_line
    assert "best alone 0.600 | +0.280 (+0.224 to +0.336)" in ahead_line
    assert EXPERIMENTS["failure_fd002"].title in found[-1]


def test_folds_are_pairs_of_one_experiment() -> None:
    fold = measured([0.5], alone=[0.4])
    found = against_alone.folded({"ai4i_fold_0": fold, "ai4i_fold_1": fold})
    assert list(found) == ["ai4i_folds"]
    assert found["ai4i_folds"]["global"]["alone"]["values"] == [0.4, 0.4]
    assert fold["global"]["alone"]["values"] == [0.4]

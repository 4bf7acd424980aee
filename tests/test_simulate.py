"""The command from end to end, on generated sites."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedpdm.data.normalise import Scaler
from fedpdm.history import History
from fedpdm.runs.assembly import shared_scaler
from fedpdm.runs.experiment import Experiment
from fedpdm.simulate import main
from fedpdm.storage import read_tensors

SMALL = ["model=mlp", "rounds=3", "data.days=200", "data.step_hours=12", "evaluate.bootstrap=50",
         "baselines.minirocket.features=84", "sites.houston.machines=8",
         "sites.detroit.machines=8"]  # fmt: skip


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    assert main([*arguments, f"hydra.run.dir={folder}"]) == 0
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulate") / "run"
    run(folder, "site=detroit,houston", *SMALL)
    return folder


def summary_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def test_the_run_folder_holds_what_is_promised(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        "summary.json", "metrics.csv", "report.html", "manifest.json", "history.sqlite",
        "config.yaml", "model.json", "scaler.safetensors", "rounds",
    }  # fmt: skip
    rounds = {path.name for path in (finished / "rounds").glob("*[0-9].safetensors")}
    assert rounds == {f"{n:06d}.safetensors" for n in range(4)}
    assert not list(finished.rglob("*.tmp"))


ARMS = {"trivial", "alone", "pooled", "hgb", "hgb_alone", "best_alone", "minirocket"}


def test_the_summary_has_the_stable_keys(finished: Path) -> None:
    summary = summary_of(finished)
    assert summary["schema"] == 1 and summary["sites"] == ["detroit", "houston"]
    assert (summary["task"], summary["model"], summary["strategy"], summary["engine"]) == (
        "failure", "mlp", "FedAvg", "serial",
    )  # fmt: skip
    assert summary["rounds"] == 3 and summary["best_round"] in (1, 2, 3) and summary["seed"] == 42
    assert set(summary["bytes"]) == {"up", "down"} and summary["bytes"]["up"] > 0
    assert {"name", "sha256"} <= set(summary["data"]) and len(summary["data"]["sha256"]) == 64
    test = summary["test"]
    assert set(test["baselines"]) == ARMS
    for arm in (test, *test["baselines"].values()):
        assert set(arm["per_site"]) == {"detroit", "houston"}
        assert {"average_precision", "roc_auc", "brier", "ece", "prevalence"} <= set(arm["global"])
    assert {"f1", "mcc", "recall", "threshold"} <= set(test["global"])
    for site in summary["sites"]:
        gain = test["per_site"][site]["average_precision"]
        gain -= test["baselines"]["best_alone"]["per_site"][site]["average_precision"]
        assert summary["gain"][site] == pytest.approx(gain)


def test_a_constant_scores_its_prevalence(finished: Path) -> None:
    trivial = summary_of(finished)["test"]["baselines"]["trivial"]
    for values in (trivial["global"], *trivial["per_site"].values()):
        assert values["average_precision"] == pytest.approx(values["prevalence"])
        assert values["roc_auc"] == pytest.approx(0.5)


def test_all_arms_are_tested_on_the_same_windows(finished: Path) -> None:
    test = summary_of(finished)["test"]
    for arm in test["baselines"].values():
        for site, values in arm["per_site"].items():
            for name in ("n", "positives"):
                assert values[name] == test["per_site"][site][name]


def test_same_seed_same_bytes_and_another_seed_differs(finished: Path, tmp_path: Path) -> None:
    """Baselines are worked out in processes beside the first run, and within the second."""
    again = run(tmp_path / "again", "site=detroit,houston", *SMALL, "baselines.processes=0")
    first = summary_of(finished)
    for summary in (first, again):
        spent, worked = summary.pop("seconds"), summary.pop("processor_seconds")
        assert 0 < worked["training"] < spent["training"] + 0.1, "one thread"
    assert first == again
    for number in range(4):
        name = f"rounds/{number:06d}.safetensors"
        assert (finished / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    other = run(tmp_path / "other", "site=detroit,houston", *SMALL, "seed=7",
                "baselines.max_plants=0")  # fmt: skip
    assert other["test"]["global"] != first["test"]["global"]
    name = "rounds/000003.safetensors"
    assert (finished / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


def test_alone_does_not_depend_on_the_other_sites(finished: Path, tmp_path: Path) -> None:
    single = run(tmp_path / "run", "site=houston", *SMALL[:-1], "baselines.controls=[alone]")
    pair = summary_of(finished)["test"]["baselines"]["alone"]["per_site"]["houston"]
    assert single["test"]["baselines"]["alone"]["per_site"]["houston"] == pair
    assert single["sites"] == ["houston"]


def test_the_stages_are_parts_of_the_time(finished: Path) -> None:
    seconds = summary_of(finished)["seconds"]
    stages = seconds["stages"]
    assert set(stages) == {"build", "start", "send", "train", "aggregate", "evaluate", "commit"}
    assert 0 < stages["train"] and sum(stages.values()) <= seconds["setup"] + seconds["training"]


def test_metrics_csv_has_a_line_per_round_and_site(finished: Path) -> None:
    table = pd.read_csv(finished / "metrics.csv")
    assert len(table) == 3 * 3 and sorted(table["round"].unique()) == [1, 2, 3]
    with History.open(finished) as history:
        last = history.rounds()[-1]
    whole = table[table["site"].isna()].iloc[-1]
    assert whole["average_precision"] == pytest.approx(last.metrics["average_precision"])


def test_the_test_set_is_scored_with_the_round_chosen_on_validation(finished: Path) -> None:
    with History.open(finished) as history:
        values = {r.round: r.metrics["average_precision"] for r in history.rounds() if r.round}
    assert summary_of(finished)["best_round"] == max(values, key=lambda n: (values[n], -n))


def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    folder, words = tmp_path / "longer", [*SMALL, "baselines.controls=[alone]"]
    run(folder, "site=detroit,houston", *words)
    assert main([f"resume={folder}", "rounds=5", "engine.ahead=2"]) == 2
    assert main([f"resume={folder}", "rounds=5", "engine.workers=2"]) == 0
    whole = run(tmp_path / "whole", "site=detroit,houston", *words, "rounds=5")
    assert summary_of(folder)["test"] == whole["test"]
    name = "rounds/000005.safetensors"
    assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_events_reach_history_summary_and_report(tmp_path: Path) -> None:
    summary = run(
        tmp_path / "run", "site=detroit,houston", *SMALL, "rounds=5", "baselines.max_plants=0",
        "faults.nan=houston@2", "faults.poison=houston@4", "monitor.rollback=true",
    )  # fmt: skip
    kinds = [event["kind"] for event in summary["events"]]
    assert kinds.count("refused") == 1 and kinds.count("rollback") == 1
    assert summary["rounds"] == 5 and summary["test"]["baselines"] == {}
    report = (tmp_path / "run" / "report.html").read_text()
    assert "houston" in report and "rolled back" in report.lower() and "refused" in report.lower()
    with History.open(tmp_path / "run") as history:
        assert {e["kind"] for e in history.events()} >= {"refused", "rollback"}


def test_replicas_are_sampled_and_the_scaler_is_kept(tmp_path: Path) -> None:
    summary = run(
        tmp_path / "run", "site=detroit,pune", "model=mlp", "rounds=2", "replicas=4",
        "strategy.fraction_train=0.5", "baselines.max_plants=2", "evaluate.fraction=0.5",
        "baselines.controls=[alone]", "data.days=200",
    )  # fmt: skip
    assert len(summary["sites"]) == 8
    assert len(summary["test"]["per_site"]) == 4
    assert len(summary["test"]["baselines"]["alone"]["per_site"]) == 2
    scaler = read_tensors(tmp_path / "run" / "scaler.safetensors")
    assert scaler["federated/mean"].shape == (1, 10) and np.all(scaler["federated/scale"] > 0)


@pytest.mark.parametrize("task", ["rul", "horizons"])
def test_other_tasks(task: str, tmp_path: Path) -> None:
    summary = run(tmp_path / "run", *SMALL, "rounds=2", f"task={task}")
    metric = summary["validation"]["metric"]
    arms = {name: arm["global"][metric] for name, arm in summary["test"]["baselines"].items()}
    assert set(arms) == ARMS
    assert all(value is not None and np.isfinite(value) for value in arms.values())
    values = pd.read_csv(tmp_path / "run" / "metrics.csv").groupby("round")["train_loss"].mean()
    assert values.iloc[-1] < values.iloc[0]


def test_a_sweep_makes_a_run_per_combination_and_survives_a_bad_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = main(["-m", "strategy=fedavg,bulyan,fedprox", "site=detroit,houston", *SMALL,
                 "baselines.max_plants=0", "rounds=1"])  # fmt: skip
    told = capsys.readouterr()
    assert code == 2 and told.err.count("\n") == 1
    assert told.err.startswith("error: 2/3  strategy=bulyan: strategy Bulyan")
    assert [line[:22] for line in told.out.splitlines()[:2]] == [
        "1/3  strategy=fedavg  ", "3/3  strategy=fedprox "
    ]  # fmt: skip
    assert "FedProx and FedAvg" in told.out.replace("\n", " ")
    strategies = {
        json.loads(path.read_text())["strategy"] for path in tmp_path.glob("runs/*/*/summary.json")
    }
    assert strategies == {"FedAvg", "FedProx"}


def test_a_shared_scaler_of_other_rows_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def of_other_rows(experiment: Experiment) -> Scaler:
        honest = shared_scaler(experiment)
        assert honest is not None
        return Scaler(honest.mean + 0.01 * honest.scale, honest.scale)

    monkeypatch.setattr("fedpdm.runs.assembly.shared_scaler", of_other_rows)
    assert main(["site=houston", *SMALL[:-1], f"hydra.run.dir={tmp_path / 'run'}"]) == 2
    assert "the shared scaler has mean" in capsys.readouterr().err


def test_real_data_with_natural_sites(data_folder: Path, tmp_path: Path) -> None:
    summary = run(
        tmp_path / "run", "data=ai4i", f"data.path={data_folder}", "model=mlp", "rounds=2",
        "baselines.controls=[alone,rules]", "evaluate.bootstrap=50",
    )  # fmt: skip
    assert summary["sites"] == ["L", "M", "H"]
    assert summary["test"]["per_site"]["H"]["average_precision"] is None, "H has no test failure"
    assert summary["gain"]["H"] is None
    rules = summary["test"]["baselines"]["rules"]["global"]
    assert rules["average_precision"] > 0.7
    with_failures = [summary["test"]["per_site"][s]["average_precision"] for s in ("L", "M")]
    assert summary["test"]["mean_site"]["average_precision"] == pytest.approx(
        np.mean(with_failures)
    )


def test_the_protocol_of_published_windows(data_folder: Path, tmp_path: Path) -> None:
    summary = run(
        tmp_path / "run", "data=cmapss", f"data.path={data_folder}", "model=mlp", "rounds=1",
        "data.window=50", "data.stride=10", "training.local_epochs=1", "baselines.max_plants=0",
    )  # fmt: skip
    full = summary["test"]["full_windows"]
    assert full["n"] == 8255 and len(full["short_machines"]) == 7
    assert summary["test"]["global"]["n"] == 8262
    assert full["prevalence"] == pytest.approx(0.040, abs=5e-4)


def test_nothing_but_our_lines_reaches_the_screen(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "fedpdm.simulate", "site=houston", "debug=quick", "model=mlp",
         "data.days=150", "sites.houston.machines=6", f"hydra.run.dir={tmp_path}/run"],
        cwd=root, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == ""
    assert "flwr" not in done.stdout and "WARNING" not in done.stdout
    assert "round 1/2" in done.stdout and "summary.json" in done.stdout

"""Each gate refuses what it is there for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import precision_recall_curve
from torch import Tensor, nn

from fedpdm.data.rows import Split
from fedpdm.evaluation.final_test import FinalTest, run_final_test
from fedpdm.history import History
from fedpdm.promote import intervals
from fedpdm.promote.__main__ import main
from fedpdm.promote.evidence import Evidence
from fedpdm.promote.export import Exported, export_model
from fedpdm.promote.gates import GATES, Candidate, Found, ask_all
from fedpdm.promote.intervals import gain_over_constant
from fedpdm.promote.thresholds import load_thresholds

Ask = Callable[..., Found]


@pytest.fixture
def ask(evidence: Evidence, exported: Exported) -> Ask:
    """Ask a gate about the good run, with something changed."""

    def asked(name: str, changed: Evidence = evidence, file: Exported = exported) -> Found:
        found = GATES[name].ask(Candidate(changed, file, {}, load_thresholds()))
        assert found is not None
        return found

    return asked


def with_models(evidence: Evidence, model_of: Callable[[str], nn.Module]) -> Evidence:
    """The same run with other models."""
    experiment = evidence.experiment
    test = run_final_test(model_of, evidence.sites, experiment.federation, torch.device("cpu"),
                          experiment.protocol)  # fmt: skip
    return replace(evidence, test=test)


def test_a_good_model_passes_every_gate_that_can_be_asked(
    evidence: Evidence, exported: Exported
) -> None:
    gates = ask_all(Candidate(evidence, exported, {}, load_thresholds()), {})
    status = {gate.name: gate.status for gate in gates}
    skipped = ["stability", "augmentation"]
    asked = [name for name in GATES if name != "quality"]  # nothing is asked of task=failure
    assert status == {name: "skipped" if name in skipped else "passed" for name in asked}
    assert list(GATES)[:3] == ["data", "splits", "trivial"] and list(GATES)[-1] == "parity"


class Majority(nn.Module):
    """Says the same of every window."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([[2.0, -1.0]]).repeat(len(x), 1)


def test_the_majority_predictor_is_refused(evidence: Evidence, ask: Ask) -> None:
    found = ask("trivial", with_models(evidence, lambda site: Majority()))
    assert found.passed is False
    assert found.numbers["value"] == pytest.approx(0)
    assert ask("trivial").numbers["low"] > 0.3


def test_the_interval_of_any_metric_is_that_of_the_fast_one(evidence: Evidence) -> None:
    """Of average precision both are known, so the slow one can be compared."""
    fast = gain_over_constant(evidence, 1000)
    slow = intervals._jackknife(evidence, constants(evidence))
    assert slow["value"] == pytest.approx(fast["value"])
    assert slow["low"] == pytest.approx(fast["low"], abs=0.05)
    assert slow["high"] == pytest.approx(fast["high"], abs=0.05)
    assert slow["machines"] == fast["machines"]
    one = replace(evidence, sites=[replace(s, windows={Split.TEST: s.test.take(
        s.test.machine == s.test.machine[0])}) for s in evidence.sites])  # fmt: skip
    assert intervals._jackknife(one, constants(one))["low"] is None


def test_the_jackknife_of_a_mean_knows_that_sites_are_drawn_apart() -> None:
    values = np.array([1.0, 2, 4, 9, 30, 33, 31])
    machines = np.split(np.arange(7), [4])
    found = intervals.leaving_out(lambda kept: float(values[kept].mean()), machines)
    parts = [len(p) * p.var(ddof=1) for p in np.split(values, [4])]
    half = stats.t.ppf(0.975, 5) * np.sqrt(sum(parts)) / 7
    assert found["value"] == pytest.approx(values.mean())
    assert found["high"] - found["value"] == pytest.approx(half)


def constants(evidence: Evidence) -> dict[str, dict[Split, Any]]:
    return {s.name: {Split.TEST: np.full(len(s.test), 0.1)} for s in evidence.sites}


def test_without_an_interval_nothing_beats_a_constant(evidence: Evidence, ask: Ask) -> None:
    alone = evidence.sites[0]
    one = alone.test.machine == alone.test.machine[0]
    scores = evidence.test.predictions[alone.name]
    predictions = {alone.name: {**scores, Split.TEST: scores[Split.TEST][one]}}
    site = replace(alone, windows={**alone.windows, Split.TEST: alone.test.take(one)})
    changed = replace(evidence, sites=[site], test=replace(evidence.test, predictions=predictions))
    assert ask("trivial", changed).passed is None


def resealed(run: Path, folder: Path, name: str, **changes: Any) -> Path:
    """A copy of a run whose file says something else, sealed as if the run had written it."""
    shutil.copytree(run, folder)
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with History.open(folder) as history:
        history.sealed.seal(name)
    return folder


def best_on_test(test: FinalTest, evidence: Evidence) -> float:
    """The threshold that a cheat takes: that of the greatest F1 on test windows."""
    target = np.concatenate([site.test.y for site in evidence.sites])
    scores = np.concatenate([test.predictions[s.name][Split.TEST] for s in evidence.sites])
    precision, recall, levels = precision_recall_curve(target, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(levels[np.argmax(f1[:-1])])


def test_a_threshold_chosen_on_test_windows_is_refused(
    run: Path, evidence: Evidence, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cheat = best_on_test(evidence.test, evidence)
    assert cheat != pytest.approx(evidence.test.threshold, rel=1e-3)
    folder = resealed(run, tmp_path / "run", "model.json", threshold=cheat)
    assert main([str(folder), "--to", str(tmp_path / "store")]) == 1
    record = json.loads(next((tmp_path / "store").rglob("decision.json")).read_text())
    assert record["decision"] == "refused" and record["refused_by"] == ["splits"]
    assert "threshold" in capsys.readouterr().out
    assert not list((tmp_path / "store").rglob("model.onnx"))


def test_an_edited_file_and_a_made_up_score_are_refused(
    run: Path, tmp_path: Path, evidence: Evidence, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    card = tmp_path / "run" / "model.json"
    card.write_text(card.read_text().replace('"best_round": ', '"best_round":  '))
    assert main([str(tmp_path / "run"), "--to", str(tmp_path / "store")]) == 2
    assert "checksum" in capsys.readouterr().err and not (tmp_path / "store").exists()
    summary = json.loads(json.dumps(evidence.summary))
    summary["test"]["global"]["average_precision"] += 0.01
    assert ask("data", replace(evidence, summary=summary)).passed is False
    assert ask("data", replace(evidence, data_sha256="0" * 64)).passed is False
    assert ask("data").passed is True


def test_a_run_whose_windows_are_elsewhere_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = {"name": "flower", "settings": {}, "reason": ""}
    folder = resealed(run, tmp_path / "run", "manifest.json", engine=engine)
    assert main([str(folder), "--to", str(tmp_path / "store")]) == 2
    assert "deployed" in capsys.readouterr().err


def test_a_leak_and_another_round_are_refused(evidence: Evidence, ask: Ask) -> None:
    assert ask("splits", replace(evidence, leak="north: a window looks ahead")).passed is False
    assert ask("splits", replace(evidence, chosen=evidence.chosen - 1)).passed is False


def test_a_model_that_harms_one_site_is_refused(evidence: Evidence, ask: Ask) -> None:
    """The mean over sites may still rise: only one of three is harmed."""
    good = evidence.predictor.model.module

    class Reversed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = -good(x)
            return output

    changed = with_models(evidence, lambda site: Reversed() if site == "west" else good)
    found = ask("sites", changed)
    assert found.passed is False
    assert [name for name, lead in found.numbers.items() if lead < -0.05] == ["west"]


def test_a_site_is_harmed_that_has_a_better_model_by_itself(evidence: Evidence, ask: Ask) -> None:
    """The network alone may be worse, and other models alone better."""
    summary = json.loads(json.dumps(evidence.summary))
    baselines, metric = summary["test"]["baselines"], evidence.task.primary
    baselines["best_alone"] = json.loads(json.dumps(baselines["alone"]))
    baselines["best_alone"]["per_site"]["west"][metric] = 1.2
    changed = replace(evidence, summary=summary)
    assert ask("sites", changed).passed is True, "a run from before: against the network"
    summary["gain_against"] = "best_alone"
    found = ask("sites", changed)
    assert found.passed is False
    assert [name for name, lead in found.numbers.items() if lead < -0.05] == ["west"]


def test_an_export_that_differs_is_refused(evidence: Evidence, ask: Ask) -> None:
    module = evidence.predictor.model.module
    state = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.no_grad():
        module.output.weight[0, 0] += 1e-2  # type: ignore[union-attr, index, operator]
    try:
        other = export_model(module, evidence.task, evidence.windows(1)[0])
    finally:
        module.load_state_dict(state)
    found = ask("parity", file=other)
    assert found.passed is False and found.numbers["difference"] > 1e-5
    assert ask("parity").numbers["difference"] < 1e-6


def test_risks_that_mean_nothing_drifted_features_and_slow_models_are_refused(
    evidence: Evidence, exported: Exported
) -> None:
    strict = load_thresholds().model_copy(
        update={"calibration_error": 0.001, "drift": 0.001, "milliseconds": 0.0}
    )
    status = {g.name: g for g in ask_all(Candidate(evidence, exported, {}, strict), {})}
    assert all(status[name].status == "failed" for name in ("calibration", "drift", "latency"))
    assert not status["drift"].refuses and status["latency"].refuses


def without(evidence: Evidence, baseline: str) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(json.dumps(evidence.summary))
    del summary["test"]["baselines"][baseline]
    return summary


def test_a_critical_gate_that_is_skipped_refuses_unless_a_person_accepts_it(
    evidence: Evidence, quick: Callable[..., int], tmp_path: Path
) -> None:
    summary = without(evidence, "minirocket")
    assert quick(summary=summary) == 1
    assert quick("--accept", "minirocket=rows are too few for it", summary=summary) == 0
    folder = tmp_path / "store" / "failure-trend" / "1"
    record = json.loads((folder / "decision.json").read_text())
    (gate,) = (gate for gate in record["gates"] if gate["gate"] == "minirocket")
    assert gate["status"] == "accepted"
    assert gate["accepted_because"] == "rows are too few for it"
    assert any("rows are too few for it" in risk for risk in record["risks"])
    assert "rows are too few for it" in (folder / "decision.md").read_text()


def test_an_accepted_gate_that_is_passed_stays_passed(
    evidence: Evidence, exported: Exported
) -> None:
    gates = ask_all(Candidate(evidence, exported, {}, load_thresholds()), {"trees": "never mind"})
    assert {gate.name: gate.status for gate in gates}["trees"] == "passed"


@pytest.mark.parametrize("name", ["data", "splits", "trivial", "augmentation", "parity"])
def test_nobody_accepts_numbers_that_are_not_true(
    name: str, quick: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert quick("--accept", f"{name}=we are in a hurry") == 2
    assert f"--accept {name}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--accept", "trees"], "reason"),
        (["--accept", "forest=dark"], "no gate forest"),
        (["--name", "../up"], "--name"),
    ],
)
def test_mistakes_of_the_command_line(
    words: list[str], said: str, quick: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert quick(*words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [("drift: -1", "drift"), ("drifts: 1", "drifts"), ("critical: [forest]", "forest"), ("[", "")],
)
def test_thresholds_of_ones_own_are_checked(
    text: str, said: str, tmp_path: Path, quick: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "own.yaml").write_text(text)
    assert quick("--gates", str(tmp_path / "own.yaml")) == 2
    assert said in capsys.readouterr().err


def test_thresholds_of_ones_own_take_the_place_of_ours(
    tmp_path: Path, quick: Callable[..., int]
) -> None:
    (tmp_path / "own.yaml").write_text("calibration_error: 0.0001\n")
    assert quick("--gates", str(tmp_path / "own.yaml")) == 1
    kept = "critical: [data, splits, trivial, parity]"
    (tmp_path / "own.yaml").write_text(f"{kept}\ncalibration_error: 0.0001\n")
    assert quick("--gates", str(tmp_path / "own.yaml")) == 0
    for name in ("data", "splits", "trivial", "parity"):
        fewer = kept.replace(f"{name}, ", "").replace(f", {name}", "")
        (tmp_path / "own.yaml").write_text(f"{fewer}\n")
        assert quick("--gates", str(tmp_path / "own.yaml")) == 2, name


def test_quality_asks_for_least_values(evidence: Evidence, exported: Exported) -> None:
    def asked(**least: float) -> Found:
        thresholds = load_thresholds().model_copy(update={"quality": {"failure": least}})
        found = GATES["quality"].ask(Candidate(evidence, exported, {}, thresholds))
        assert found is not None
        return found

    value = evidence.value()
    assert value is not None
    assert asked(average_precision=value).passed is True
    assert asked(average_precision=value, roc_auc=1.1).passed is False
    assert asked(average_precision=value, accuracy=0.1).passed is None  # not of this task


def test_stability_over_seeds(evidence: Evidence, exported: Exported) -> None:
    def asked(scores: dict[str, float]) -> Found:
        candidate = Candidate(evidence, exported, scores, load_thresholds())
        found = GATES["stability"].ask(candidate)
        assert found is not None
        return found

    assert asked({"a": 0.8, "b": 0.81}).passed is True
    assert asked({"a": 0.8, "b": 0.6}).passed is False
    assert asked({"a": 0.8, "b": 0.6}).numbers["spread"] == pytest.approx(0.2 / 2**0.5)
    assert asked({"a": 0.8}).passed is None


def test_runs_of_other_settings_are_no_other_seeds(
    run: Path, tmp_path: Path, evidence: Evidence, quick: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert quick("--seeds", str(run)) == 2
    assert "named twice" in capsys.readouterr().err
    config = json.loads(json.dumps(evidence.manifest["config"]))
    config["training"]["local_epochs"] += 1
    other = resealed(run, tmp_path / "other", "manifest.json", config=config | {"seed": 7})
    assert quick("--seeds", str(other)) == 2
    assert "training" in capsys.readouterr().err
    config["training"]["local_epochs"] -= 1
    twin = resealed(run, tmp_path / "twin", "manifest.json", config=config | {"seed": 8})
    assert quick("--seeds", str(twin)) == 0
    record = json.loads(next((tmp_path / "store").rglob("decision.json")).read_text())
    (gate,) = (gate for gate in record["gates"] if gate["gate"] == "stability")
    assert gate["status"] == "passed" and len(gate["numbers"]["scores"]) == 2

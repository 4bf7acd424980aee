"""The four experiments of the source systems, small: a report, a decision record, sane numbers."""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from fedpdm.promote.gates import GATES
from fedpdm.simulate import main

PLANTS = "detroit", "houston", "leeds", "nagoya"
SMALL = {
    "moola": ["baselines.controls=[trivial,alone]", "data.days=120", "training.local_epochs=1",
              "site=detroit,houston", "model.config.hidden_size=8", "sites.detroit.machines=8",
              "sites.houston.machines=8"],
    "homeiq": ["baselines.controls=[trivial,alone,hgb]", "data.days=80",
               "model.config.hidden_size=8", "training.local_epochs=1",
               *(f"sites.{name}.machines=8" for name in PLANTS)],
    "gcode": ["data.shops=2", "data.runs=5", "data.lines=5", "data.window=8", "data.stride=4",
              "data.channels=1", "training.local_epochs=1"],
    "hvac": ["partition.sites=2", "data.stride=60", "data.validation_fraction=0.1",
             "model.config.patch=5", "data.window=10", "training.local_epochs=1",
             "baselines.controls=[trivial,alone]", "baselines.rounds=1"],
}  # fmt: skip
METRIC = {"moola": "average_precision", "homeiq": "macro_f1", "gcode": "exact_match",
          "hvac": "average_precision"}  # fmt: skip
EXPORTED = set(SMALL) - {"gcode"}  # its decoder writes token by token


def small(name: str, folder: Path, *more: str) -> dict[str, Any]:
    """Run a small version of an experiment; return its summary."""
    assert main([
        f"experiment={name}", *SMALL[name], "rounds=1", "baselines.processes=0",
        "evaluate.bootstrap=20", *more, f"hydra.run.dir={folder}",
    ]) == 0  # fmt: skip
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


@pytest.mark.parametrize("name", SMALL)
def test_an_experiment_ends_with_a_report_and_a_decision_record(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name == "hvac":
        request.getfixturevalue("data_folder")
    folder = tmp_path / name
    summary = small(name, folder)
    metric = METRIC[name]
    assert summary["validation"]["metric"] == metric and summary["rounds"] == 1
    tested = summary["test"]["global"]
    assert 0 <= tested[metric] <= 1 and tested["n"] > 0
    assert {"trivial", "alone"} <= set(summary["test"]["baselines"])
    page = (folder / "report.html").read_text()
    assert all(site in page for site in summary["sites"])

    said = json.loads((folder / "promotion/decision.json").read_text())
    gates = {gate["gate"]: gate for gate in said["gates"]}
    assert [g for g in GATES if g in gates] == list(gates) and {*GATES} - {*gates} <= {"quality"}
    assert gates["data"]["status"] == gates["splits"]["status"] == "passed"
    assert said["test"] == pytest.approx(tested[metric], abs=1e-4)
    assert said["run"] == name and said["version"] is None
    stopping = [n for n, g in gates.items() if g["critical"] and g["status"] != "passed"]
    assert said["refused_by"] == stopping
    assert said["decision"] == ("refused" if stopping else "ready")
    file = gates["parity"]
    assert file["status"] == ("passed" if name in EXPORTED else "skipped")
    assert name in EXPORTED or "cannot be exported" in file["result"]
    written = (folder / "promotion/decision.md").read_text()
    assert all(f"| {gate}" in written for gate in gates)
    manifest = json.loads((folder / "promotion/manifest.json").read_text())
    for file_name, found in manifest["files"].items():
        assert sha256((folder / "promotion" / file_name).read_bytes()).hexdigest() == found


def test_without_the_packages_of_the_extra_the_record_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # an import of it fails
    folder = tmp_path / "run"
    small("homeiq", folder, "baselines.max_plants=0")
    said = json.loads((folder / "promotion/decision.json").read_text())
    gates = {gate["gate"]: gate for gate in said["gates"]}
    for name in ("latency", "parity"):
        assert gates[name]["status"] == "skipped" and name in said["refused_by"]
        assert "fedpdm[onnx]" in gates[name]["result"]
    assert said["format"] is None
    assert "skipped" in capsys.readouterr().out


def test_what_cannot_be_tested_again_leaves_the_run_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where each site scales by itself, a record needs to know whose model it is about."""
    folder = tmp_path / "run"
    small("homeiq", folder, "baselines.max_plants=0", "scaling=plant")
    assert "no decision record: " in capsys.readouterr().out
    assert (folder / "report.html").exists() and not (folder / "promotion").exists()

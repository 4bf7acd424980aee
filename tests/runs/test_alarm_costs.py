"""What alarms cost through a whole run: in summary.json, in the report and on the screen."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from fedpdm.config.compose import compose
from fedpdm.report.table import print_summary
from fedpdm.runs.experiment import build
from fedpdm.runs.run import Run
from tests.runs.test_features_run import QUICK

BASELINES = "baselines.controls=[trivial,alone,hgb]"


@pytest.mark.parametrize("missed", [1, 300])
def test_a_run_says_what_its_alarms_cost_and_what_costs_less(tmp_path: Path, missed: int) -> None:
    cfg = compose([
        *QUICK, "features=statistics", "model=mlp", BASELINES, "evaluate.threshold=cost",
        f"evaluate.costs.missed={missed}", "sites.houston.costs.inspection=2",
    ])  # fmt: skip
    folder = tmp_path / "run"
    summary = Run(build(cfg), cfg, folder).execute()
    costs, prices = summary["test"]["costs"], summary["test"]["thresholds"]["costs"]
    assert prices["houston"] == {"missed": missed, "false_alarm": 1.0, "inspection": 2.0}
    assert costs["counted"] == "episodes"
    assert costs["validation"]["level"] <= costs["validation"]["never"] + 1e-9
    assert costs["validation"]["level"] <= costs["validation"]["always"] + 1e-9
    for name, found in summary["test"]["alarms"]["per_site"].items():
        late = found["failures"] - found["lead_time"]["known"]
        cost = missed * late + found["false_episodes"]
        cost += prices[name]["inspection"] * found["episodes"]
        assert costs["per_site"][name]["level"] * found["exposure"] / 30 == pytest.approx(cost)
    whole = costs["global"]
    assert set(whole) == {"level", "never", "always", "trivial", "alone", "hgb"}
    less = [n for n in ("never", "always", "alone", "hgb") if whole[n] < whole["level"] - 1e-9]
    screen = io.StringIO()
    print_summary(summary, folder, Console(file=screen, width=400))
    for said in (screen.getvalue(), (folder / "report.html").read_text()):
        assert ("Cheaper would be" in said) is bool(less)
        words = {"never": "never an alarm (", "always": "an alarm all the time ("}
        assert [n for n in words if words[n] in said] == [n for n in words if n in less]

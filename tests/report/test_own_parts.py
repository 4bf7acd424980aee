"""A user's own baseline, task with its own metric, and report section: all in one run."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from fedpdm.baselines.inputs import BaselineInputs, predicted
from fedpdm.baselines.registry import BASELINES, RUNS, Baseline, register_baseline
from fedpdm.data.rows import Floats
from fedpdm.errors import ConfigError
from fedpdm.evaluation.scoring import Predictions
from fedpdm.evaluation.wording import Metric, describe, primary_metric
from fedpdm.report.report import render
from fedpdm.report.sections import SECTIONS, Page, register_section
from fedpdm.report.table import print_summary
from fedpdm.simulate import main
from fedpdm.tasks import TASKS, Failure, Metrics
from tests.report.example_details import failure_run

describe(Metric("absolute_gap", "mean gap", "gap", False, 4, "How far risks lie from {cases}."))


class Gaps(Failure):
    """Failure, judged by the mean distance of risks from what happened."""

    name = "gaps"
    primary = "absolute_gap"
    higher_is_better = False

    def metrics(self, target: NDArray[np.generic], truth: Floats, scores: Floats) -> Metrics:
        gap = float(np.abs(scores - target).mean()) if len(target) else None
        return super().metrics(target, truth, scores) | {"absolute_gap": gap}


@pytest.fixture(scope="module", autouse=True)
def own() -> Any:
    @register_baseline("coin", Baseline("Coin", "a coin that is tossed", subject="A coin"))
    def coin(inputs: BaselineInputs) -> Predictions:
        return predicted(inputs.sites(), lambda windows: np.full(len(windows), 0.5))

    @register_section(
        "wear",
        template="<section><h2 id='wear'>Wear</h2><p>{{ worst }} <{{ tag }}></p></section>",
        links={"wear": "How it wears"},
    )
    def wear(page: Page) -> dict[str, Any]:
        return {"worst": f"worst of {len(page.table.rows)}", "tag": "<b>"}

    yield
    del BASELINES["coin"], RUNS["coin"], SECTIONS["wear"]
    TASKS.pop("gaps", None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, own: None) -> Path:
    folder = tmp_path_factory.mktemp("own") / "run"
    assert main([
        "site=detroit,houston", "model=mlp", "rounds=2", "sites.detroit.machines=8",
        "sites.houston.machines=8", f"task._target_={__name__}.Gaps", "baselines.processes=0",
        "data.days=200", "baselines.minirocket.features=84", "evaluate.bootstrap=50",
        f"hydra.run.dir={folder}",
    ]) == 0  # fmt: skip
    return folder


def test_all_of_them_are_in_summary_table_and_report(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    coin = summary["test"]["baselines"]["coin"]["global"]
    assert coin["absolute_gap"] == pytest.approx(0.5)
    assert primary_metric(summary).digits == 4 and not primary_metric(summary).higher_is_better
    screen = Console(file=io.StringIO(), width=120)
    print_summary(summary, run, screen)
    printed = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "Coin" in printed and "0.5000" in printed
    assert "mean gap, lower is better" in printed
    page = (run / "report.html").read_text()
    assert "a coin that is tossed" in page and "A coin would reach mean gap 0.5000" in page
    assert "How far risks lie from windows." in page
    assert "worst of 2 <&lt;b&gt;>" in page and '<a href="#wear">How it wears</a>' in page


def test_its_summary_is_understood_where_nothing_of_it_is_imported(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    coin, section = BASELINES.pop("coin"), SECTIONS.pop("wear")
    try:
        page = render(summary, [], {}, [])
    finally:
        BASELINES["coin"], SECTIONS["wear"] = coin, section
    assert "Coin" in page and "mean gap" in page and "How it wears" not in page


def test_a_narrow_screen_does_without_columns_that_only_some_runs_have(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    screen = Console(file=io.StringIO(), width=60)
    print_summary(summary, run, screen)
    printed = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "Coin" in printed.split("in report.html")[0].splitlines()[-1]
    assert "Federated" in printed and "Alone" in printed


def test_two_sections_with_one_name_for_a_value_are_refused() -> None:
    register_section("again", template="{{ table }}")(lambda page: {"table": 1})
    try:
        with pytest.raises(ConfigError, match="'table'"):
            render(**failure_run(2))
    finally:
        del SECTIONS["again"]

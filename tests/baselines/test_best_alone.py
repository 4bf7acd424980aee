"""The best model alone: chosen on validation windows, and what the gain is measured against."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fedpdm.baselines.best_alone import best_alone, kinds_alone, reference_alone
from fedpdm.baselines.inputs import BaselineInputs
from fedpdm.baselines.registry import BASELINES, RUNS, Baseline, register_baseline
from fedpdm.comparison.runs import read_run
from fedpdm.comparison.scores import standing_of
from fedpdm.comparison.settings import Setting
from fedpdm.data.rows import Split
from fedpdm.evaluation.scoring import SPLITS, Predictions
from fedpdm.evaluation.wording import primary_metric
from fedpdm.federation import Federation, Site
from fedpdm.report.gain_table import gain_table
from fedpdm.report.report import render
from fedpdm.report.summary_text import hindsight
from fedpdm.report.table import print_summary
from fedpdm.simulate import main
from fedpdm.tasks import Failure, RemainingLife, Task
from fedpdm.testing.tiny import TinySource

OTHER = "other_alone"
KNOWS = {"detroit"}
"""Sites at which the stand-in knows the future; at others it is wrong in everything."""


@pytest.fixture(scope="module", autouse=True)
def stand_in() -> Iterator[None]:
    """A second kind of model that a site has by itself."""

    @register_baseline(OTHER, Baseline("Other", "a stand-in", per_site=True, interval=True))
    def other(inputs: BaselineInputs, name: str) -> Predictions:
        own = inputs.own_site(name).windows
        return {name: {s: answers(own[s].y, name in KNOWS) for s in SPLITS}}

    yield
    del BASELINES[OTHER], RUNS[OTHER]


def answers(truth: Any, right: bool) -> Any:
    """Return scores that rise, or fall, with 0/1 labels; none are equal."""
    order = np.linspace(0, 0.1, len(truth))
    return order + 0.8 * (truth if right else 1 - truth)


def sites_of(task: Task) -> list[Site]:
    source = TinySource({"a": {"machines": 6}, "b": {"machines": 6}}, window=12)
    built = Federation(source, task)
    scaler = (built.moments("a") + built.moments("b")).scaler()
    return [built.site(name, scaler) for name in ("a", "b")]


def test_each_site_takes_the_kind_that_its_validation_windows_choose() -> None:
    task = Failure(4.0)
    sites = sites_of(task)

    def made(validation: dict[str, bool], test: dict[str, bool]) -> Predictions:
        say = {Split.VALIDATION: validation, Split.TEST: test, Split.HELDOUT: test}
        return {
            s.name: {split: answers(s.windows[split].y, say[split][s.name]) for split in SPLITS}
            for s in sites
        }

    # On test windows the other kind of a site is right: they must choose nothing.
    alone = made({"a": True, "b": False}, {"a": False, "b": True})
    other = made({"a": False, "b": True}, {"a": True, "b": False})
    found = best_alone({OTHER: other, "alone": alone, "pooled": made(*[dict(a=True, b=True)] * 2)},
                       sites, task)  # fmt: skip
    assert found is not None
    predictions, chosen = found
    assert chosen == {"a": "alone", "b": OTHER}
    assert predictions["a"] is alone["a"] and predictions["b"] is other["b"]
    same = best_alone({OTHER: alone, "alone": made(*[{"a": True, "b": False}] * 2)}, sites, task)
    assert same is not None and set(same[1].values()) == {"alone"}, "equal: the network"


def test_errors_are_compared_the_other_way_round_and_the_unknown_chooses_the_network() -> None:
    task = RemainingLife(9)
    sites = sites_of(task)
    near, far = (
        {s.name: {split: s.windows[split].truth + by for split in SPLITS} for s in sites}
        for by in (1.0, 3.0)
    )
    found = best_alone({"alone": far, OTHER: near}, sites, task)
    assert found is not None and set(found[1].values()) == {OTHER}

    class Unknown(Failure):
        def metrics(self, target: Any, truth: Any, scores: Any) -> Any:
            return super().metrics(target, truth, scores) | {self.primary: None}

    unknown = best_alone({"alone": far, OTHER: near}, sites_of(Unknown(4.0)), Unknown(4.0))
    assert unknown is not None and set(unknown[1].values()) == {"alone"}


def test_of_one_kind_there_is_no_best_and_the_gain_is_against_it() -> None:
    sites, task = sites_of(Failure(4.0)), Failure(4.0)
    one = {s.name: {split: np.zeros(len(s.windows[split])) for split in SPLITS} for s in sites}
    assert best_alone({"alone": one, "hgb": one}, sites, task) is None
    assert kinds_alone([OTHER, "hgb", "alone"]) == ("alone", OTHER)
    assert reference_alone(["pooled", OTHER]) == OTHER
    assert reference_alone(["alone", "hgb"]) == "alone"
    assert reference_alone(["alone", OTHER, "best_alone"]) == "best_alone"
    assert reference_alone(["pooled"]) is None
    some = best_alone({"alone": one, OTHER: {"a": one["a"]}}, sites, task)
    assert some is not None and set(some[0]) == {"a", "b"}, "not all kinds ran everywhere"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, stand_in: None) -> Path:
    folder = tmp_path_factory.mktemp("best") / "run"
    assert main([
        "site=detroit,houston", "model=mlp", "rounds=2", "sites.detroit.machines=12",
        "sites.houston.machines=12", "baselines.processes=0", "evaluate.threshold=cost",
        f"baselines.controls=[trivial,alone,{OTHER}]", f"hydra.run.dir={folder}",
    ]) == 0  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def summary(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "summary.json").read_text()))


def test_a_run_measures_its_gain_against_the_best_alone(summary: dict[str, Any]) -> None:
    tested = summary["test"]
    baselines, metric = tested["baselines"], "average_precision"
    best = baselines["best_alone"]
    assert summary["gain_against"] == "best_alone"
    assert best["chosen"] == {"detroit": OTHER, "houston": "alone"}
    for site, kind in best["chosen"].items():
        assert best["per_site"][site] == baselines[kind]["per_site"][site]
        assert (
            summary["heldout"]["baselines"]["best_alone"]["per_site"][site]
            == (summary["heldout"]["baselines"][kind]["per_site"][site])
        )
        ours, theirs = tested["per_site"][site][metric], best["per_site"][site][metric]
        assert summary["gain"][site] == pytest.approx(ours - theirs)
        assert tested["bootstrap"]["gain"]["best_alone"]["per_site"][site]["value"] == (
            pytest.approx(ours - theirs)
        )
        # Each site's own models have a threshold of the site's own.
        costs = tested["costs"]["per_site"][site]
        assert costs["best_alone"] == costs[kind]
    assert tested["spread"]["gain"]["worse"] >= 1 and summary["gain"]["detroit"] < 0


def test_a_kind_that_turns_out_better_on_test_data_is_named() -> None:
    def part(**values: float) -> dict[str, Any]:
        return {"per_site": {site: {"rmse": value} for site, value in values.items()}}

    baselines = {"alone": part(a=12.0, b=20.0), OTHER: part(a=15.0, b=13.0)}
    baselines["best_alone"] = part(a=12.0, b=20.0) | {"chosen": {"a": "alone", "b": "alone"}}
    summary = {
        "sites": ["a", "b"], "gain_against": "best_alone", "validation": {"metric": "rmse"},
        "test": part(a=10.0, b=12.0) | {"baselines": baselines},
    }  # fmt: skip
    said = hindsight(gain_table(summary))
    assert said is not None and "other at b (13.00)" in said and "at a" not in said
    assert "+1.50" in said, "the mean of 12 - 10 and 13 - 12"
    baselines[OTHER] = part(a=15.0, b=21.0)
    assert hindsight(gain_table(summary)) is None
    assert hindsight(gain_table(summary | {"gain_against": "alone"})) is None


def test_table_page_and_comparison_take_it_too(run: Path, summary: dict[str, Any]) -> None:
    table = gain_table(summary)
    names = list(table.columns)
    assert names[names.index("alone") :][:4] == ["alone", OTHER, "best_alone", "federated"]
    assert {row.name: row.gain for row in table.rows} == pytest.approx(summary["gain"])
    assert table.rows[0].interval is not None or table.rows[0].unsure
    screen = Console(file=io.StringIO(), width=70)
    print_summary(summary, run, screen)
    printed = screen.file.getvalue()  # type: ignore[attr-defined]
    head = next(line for line in printed.splitlines() if line.startswith("Site"))
    assert "Best alone" in head and "Other" not in head, "what a narrow screen does without"
    assert "other at detroit" in printed.replace("\n", " ")
    page = (run / "report.html").read_text()
    assert page.count(">Best alone</th>") >= 3 and "other at detroit" in page
    read = read_run(run)
    standing = standing_of(Setting({}, {0: read}), "global", primary_metric(summary), "seconds")
    best = summary["test"]["baselines"]["best_alone"]["per_site"]
    assert standing.alone["detroit"] == {0: best["detroit"]["average_precision"]}


def test_a_run_from_before_is_read_as_it_was(summary: dict[str, Any]) -> None:
    old = json.loads(json.dumps(summary))
    del old["gain_against"], old["test"]["baselines"]["best_alone"]
    del old["test"]["bootstrap"]["gain"]["best_alone"], old["test"]["costs"]
    table = gain_table(old)
    assert table.against == "alone" and "best_alone" not in table.columns
    alone = old["test"]["baselines"]["alone"]["per_site"]["detroit"]["average_precision"]
    assert table.rows[0].values["alone"] == alone
    assert table.rows[0].gain == pytest.approx(
        old["test"]["per_site"]["detroit"]["average_precision"] - alone
    )
    page = render(old, [], {}, [])
    assert "Best alone" not in page and ">Alone</th>" in page
    odd = gain_table(old | {"gain_against": "no such predictor"})
    assert odd.against == "alone"
    assert replace(table.rows[0], against="nobody").verdict == "unknown"

"""Training a finished run again: replayed to the bit, and without each site."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from fedpdm.config.compose import compose
from fedpdm.contribution.__main__ import main
from fedpdm.contribution.again import Without, replayed, retrained, told
from fedpdm.history import History
from fedpdm.simulate import simulate
from fedpdm.testing.federated import federate, same

WORDS = [
    "model=mlp", "rounds=2", "seed=100", "site=detroit,houston", "data.days=200", "data.stride=8",
    "baselines.controls=[]", "evaluate.bootstrap=0", "engine=serial",
]  # fmt: skip


def test_without_a_site_the_others_train_as_if_its_update_were_refused(tmp_path: Path) -> None:
    without = federate(tmp_path / "without", rounds=1, server=partial(Without, "p1"))
    refused = federate(tmp_path / "refused", rounds=1, faults={"nan": "p1@1"})
    assert same(without.weights(), refused.weights())
    first, second = (run.history.rounds()[1] for run in (without, refused))
    assert first.metrics["average_precision"] == second.metrics["average_precision"]
    assert first.sampled == ("p0", "p2") and "validation" in first.sites["p1"]


def test_a_round_of_the_missing_site_alone_changes_nothing(tmp_path: Path) -> None:
    sites = {"a": {"machines": 3}}
    run = federate(tmp_path, sites=sites, rounds=1, server=partial(Without, "a"))
    assert same(run.weights(0), run.weights(1))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    simulate(compose(WORDS), folder / "plain")
    simulate(compose([*WORDS, "contribution=shapley"]), folder / "asked")
    return folder / "plain", folder / "asked"


def test_a_replay_values_as_the_run_itself_would_have(runs: tuple[Path, Path]) -> None:
    plain, asked = (replayed(run) for run in runs)
    assert plain["same"] and {**plain, "run": ""} == {**asked, "run": ""}
    assert "Shapley" in told(plain) and "differ" not in told(plain)


def test_retraining_leaves_each_site_out_once_and_goes_on(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs[0]
    found = retrained(run)
    summary = json.loads((run / "summary.json").read_text())
    assert found["end"] == summary["validation"]["best"]
    for place, own in enumerate(found["sites"].values()):
        assert own["value"] == found["end"] - own["without"]
        with History.open(run / "contribution" / f"without-{place:03d}") as history:
            records = history.rounds()
        assert max(r.metrics["average_precision"] or 0 for r in records) == own["without"]
        assert all(len(r.sampled) == 1 for r in records[1:])
    capsys.readouterr()
    assert main([str(run), "--retrain", "--out", str(tmp_path / "a.json")]) == 0
    assert "round 1/" not in capsys.readouterr().out  # nothing is trained a second time
    assert json.loads((tmp_path / "a.json").read_text()) == found


def test_a_mistake_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1

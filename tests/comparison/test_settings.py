"""Runs become settings by what differs, and only what is comparable is compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedpdm.comparison.runs import find_runs, read_curve
from fedpdm.comparison.settings import Setting, families, obstacle, references_of, settings_of
from fedpdm.errors import ConfigError, HistoryError
from tests.comparison.example_comparison import make_run


def settings(folder: Path) -> list[Setting]:
    runs, left_out = find_runs([folder])
    assert left_out == []
    return settings_of(runs)[0]


def grid(folder: Path, runs: list[dict[str, Any]], seeds: int = 2) -> list[Setting]:
    for index, run in enumerate(runs):
        for seed in range(seeds):
            make_run(folder / f"{index}-{seed}", seed, **run)
    return settings(folder)


def test_runs_that_differ_in_seed_and_paths_alone_are_one_setting(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 0, config={"data.path": "/one", "baselines.max_plants": 0})
    make_run(tmp_path / "b", 1, config={"data.path": "/two", "tracker.uri": "x"})
    (only,) = settings(tmp_path)
    assert list(only.runs) == [0, 1] and only.parts == {}


def test_an_option_names_all_that_comes_with_it(tmp_path: Path) -> None:
    found = grid(tmp_path, [{"strategy": "FedAvg"}, {"strategy": "FedProx"}])
    assert [s.name for s in found] == ["FedAvg", "FedProx"]


def test_what_lacks_an_option_of_the_others_is_named_by_its_strategy(tmp_path: Path) -> None:
    ditto = {"config": {"personal._target_": "fedpdm.Ditto", "personal.weight": 0.1}}
    found = grid(tmp_path / "a", [ditto, {}])
    assert [s.name for s in found] == ["Ditto", "FedAvg"]
    assert references_of(found, None) == ({"Ditto": "FedAvg"}, [])
    runs = [{**run, "model": model} for model in ("lstm", "cnn") for run in (ditto, {})]
    found = grid(tmp_path / "b", runs)
    assert references_of(found, None)[0] == {"lstm Ditto": "lstm FedAvg", "cnn Ditto": "cnn FedAvg"}


def test_two_values_of_one_option_are_said(tmp_path: Path) -> None:
    found = grid(
        tmp_path,
        [{}, *({"strategy": "FedProx", "config": {"strategy.proximal_mu": m}} for m in (0.1, 1.0))],
    )
    assert [s.name for s in found] == [
        "FedAvg",
        "FedProx proximal_mu=0.1",
        "FedProx proximal_mu=1.0",
    ]


def test_what_a_model_brings_along_is_not_said_but_what_was_changed_is(tmp_path: Path) -> None:
    found = grid(tmp_path / "a", [{"model": "lstm"}, {"model": "cnn"}])
    assert [s.name for s in found] == ["lstm", "cnn"]
    found = grid(tmp_path / "b", [{}, {"config": {"training.rate": 0.1}}])
    assert [s.name for s in found] == ["rate=0.0005", "rate=0.1"]


def test_training_that_follows_the_strategy_is_a_remark(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 0)
    make_run(tmp_path / "b", 0, strategy="FedDyn", config={"training.optimizer": "sgd"})
    found, remarks = settings_of(find_runs([tmp_path])[0])
    assert [s.name for s in found] == ["FedAvg", "FedDyn"]
    assert any("training.optimizer" in remark for remark in remarks)


def test_differences_in_several_groups_are_all_said(tmp_path: Path) -> None:
    found = grid(tmp_path, [{}, {"strategy": "FedProx", "rounds": 9}])
    assert [s.name for s in found] == ["FedAvg rounds=5", "FedProx rounds=9"]


def test_of_one_setting_and_seed_the_later_folder_counts(tmp_path: Path) -> None:
    make_run(tmp_path / "2026-01-01", 0, score=0.1)
    make_run(tmp_path / "2026-01-02", 0, score=0.2)
    (only,), remarks = settings_of(find_runs([tmp_path])[0])
    assert only.runs[0].folder.name == "2026-01-02"
    assert len(remarks) == 1 and "same setting and seed" in remarks[0]


# What is read -----------------------------------------------------------------------------


def test_unfinished_and_damaged_runs_are_named_and_left_out(tmp_path: Path) -> None:
    make_run(tmp_path / "good", 0)
    make_run(tmp_path / "begun", 1, finished=False)
    make_run(tmp_path / "longer", 2, summary={"rounds": 3})
    (make_run(tmp_path / "torn", 3) / "summary.json").write_text('{"schema": 1, "tes')
    runs, left_out = find_runs([tmp_path])
    assert [run.folder.name for run in runs] == ["good"]
    told = "\n".join(left_out)
    assert f"{tmp_path / 'begun'} is not finished" in told and "resume=" in told
    assert "3 rounds, 5 were asked for" in told and "torn" in told


def test_folders_are_found_at_any_depth_once_and_in_the_order_of_numbers(tmp_path: Path) -> None:
    for number in (0, 2, 10):
        make_run(tmp_path / "sweep" / str(number), number)
    (tmp_path / "sweep" / "2" / "baselines").mkdir()
    runs, _ = find_runs([tmp_path, tmp_path / "sweep" / "2"])
    assert [run.folder.name for run in runs] == ["0", "2", "10"]


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="holds no run"):
        find_runs([tmp_path])
    with pytest.raises(HistoryError, match="is not a folder"):
        find_runs([tmp_path / "never"])


def test_the_curve_adds_up_megabytes_and_skips_rounds_without_a_score(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(
        "round,site,ap,bytes_up,bytes_down\n1,,0.1,1e6,2e6\n1,detroit,0.5,,\n2,,,1e6,2e6\n"
        "3,,0.3,1e6,2e6\n"
    )
    assert read_curve(path, "ap") == ((3.0, 0.1), (9.0, 0.3))
    assert read_curve(tmp_path / "none.csv", "ap") == ()


# What can be compared ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"metric": "rmse"}, "the metric"),
        ({"summary": {"task": "rul"}}, "the task"),
        ({"config": {"task.horizon": 30}}, "horizon=30"),
        ({"sha": "other", "config": {"data.days": 100}}, "data.days"),
        ({"sites": ("detroit", "houston")}, "sites that were evaluated"),
    ],
)
def test_what_cannot_be_compared_says_what_differs(
    tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    found = grid(tmp_path, [{}, {"strategy": "FedProx", **changed}])
    assert len(found) == 2
    reason = obstacle(*found)
    assert reason is not None and says in reason
    with pytest.raises(ConfigError, match="nothing can be compared") as refused:
        families(found)
    assert says in str(refused.value) and refused.value.exit_code == 2


def test_other_test_windows_of_the_same_rows_are_noticed(tmp_path: Path) -> None:
    found = grid(tmp_path, [{}, {"strategy": "FedProx"}], seeds=1)
    path = tmp_path / "1-0" / "summary.json"
    summary = json.loads(path.read_text())
    summary["test"]["per_site"]["pune"]["n"] = 450.0
    path.write_text(json.dumps(summary))
    found = settings(tmp_path)
    assert obstacle(*found) == "their test windows"


def test_seeds_that_do_not_meet_cannot_be_paired(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 0)
    make_run(tmp_path / "b", 1, strategy="FedProx")
    with pytest.raises(ConfigError, match="none in common"):
        families(settings(tmp_path))


def test_one_setting_alone_is_refused_with_the_way_out(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 0)
    with pytest.raises(ConfigError, match="one setting only"):
        families(settings(tmp_path))


def test_data_sets_make_families_of_their_own(tmp_path: Path) -> None:
    found = grid(
        tmp_path,
        [
            {"strategy": s, "partition": p}
            for p in ("Iid", "Dirichlet")
            for s in ("FedAvg", "FedDyn")
        ],
    )
    assert [[s.name for s in family] for family in families(found)] == [
        ["IID FedAvg", "IID FedDyn"], ["Dirichlet FedAvg", "Dirichlet FedDyn"],
    ]  # fmt: skip

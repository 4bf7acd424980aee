"""What a comparison says of its runs, on screen, page and in Markdown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.comparison.example_comparison import compared, make_run, words, written


def test_runs_of_different_code_are_remarked_with_their_settings(tmp_path: Path) -> None:
    one, two = "1a2b3c4d5e6f", "9f8e7d6c5b4a"
    for seed in range(2):
        make_run(tmp_path / f"a{seed}", seed, commit=one)
        make_run(tmp_path / f"b{seed}", seed, strategy="FedProx", commit=two if seed else one)
        make_run(tmp_path / f"c{seed}", seed, strategy="FedNova", commit=None)
    (remark,) = written(tmp_path, *compared(tmp_path))
    assert "different code" in remark
    assert "1a2b3c4d5e for FedAvg and FedProx; " in remark and "9f8e7d6c5b for FedProx" in remark
    assert "unknown for FedNova" in remark


def test_uncommitted_code_is_remarked_even_of_one_commit(tmp_path: Path) -> None:
    for seed in range(2):
        make_run(tmp_path / f"a{seed}", seed, commit="1a2b3c4d5e6f")
        make_run(tmp_path / f"b{seed}", seed, strategy="FedProx", commit="1a2b3c4d5e6f+")
    (remark,) = written(tmp_path, *compared(tmp_path))
    assert remark.startswith("uncommitted code ran in FedProx:")


def test_of_one_commit_or_none_known_nothing_is_remarked(tmp_path: Path) -> None:
    for index, commit in enumerate((None, "1a2b3c4d5e6f")):
        for seed in range(2):
            for strategy in ("FedAvg", "FedProx"):
                make_run(tmp_path / f"{index}" / f"{strategy}{seed}", seed, strategy=strategy,
                         commit=commit, split=f"split-{seed}")  # fmt: skip
        assert compared(tmp_path / f"{index}")[0].remarks == ()


def test_gains_over_different_baselines_are_remarked(tmp_path: Path) -> None:
    for seed in range(2):
        for name, against in (("FedAvg", None), ("FedProx", "best_alone")):
            folder = tmp_path / f"{name}{seed}"
            make_run(folder, seed, strategy=name, split=f"split-{seed}")
            made = json.loads((folder / "summary.json").read_text())
            alone = {"per_site": made["test"]["per_site"]}
            made["test"]["baselines"] = {"alone": alone, "best_alone": alone}
            made |= {} if against is None else {"gain_against": against}
            (folder / "summary.json").write_text(json.dumps(made))
    (remark,) = compared(tmp_path)[0].remarks
    assert "alone for FedAvg; best alone for FedProx" in remark


def test_other_splits_of_the_same_data_are_no_strict_pairs(tmp_path: Path) -> None:
    for seed in range(3):
        make_run(tmp_path / f"a{seed}", seed, split=f"split-{seed}")
        other = "moved" if seed == 1 else f"split-{seed}"
        make_run(tmp_path / f"b{seed}", seed, strategy="FedProx", split=other)
        make_run(tmp_path / f"c{seed}", seed, strategy="FedNova")  # from before split files
    (remark,) = written(tmp_path, *compared(tmp_path))
    assert remark.startswith("FedAvg and FedProx have different splits of the same data at seed 1 ")
    assert "not strictly paired" in remark


SHARED = (
    "seeds share their test data: p speaks of training again on the same machines, not of other "
    "machines"
)


def test_seeds_that_share_their_test_data_are_remarked(tmp_path: Path) -> None:
    for seed in range(3):
        for strategy in ("FedAvg", "FedProx"):
            make_run(tmp_path / f"{strategy}{seed}", seed, strategy=strategy, sha="same")
    assert written(tmp_path, *compared(tmp_path)) == [SHARED]
    text = words((tmp_path / "comparison" / "comparison.html").read_text(encoding="utf-8"))
    assert "where seeds share their test data" in text, "the glossary says it as well"


@pytest.mark.parametrize("moved", [None, "machine", "last"])
def test_the_same_machines_dealt_to_other_sites_are_the_same_test_data(
    tmp_path: Path, moved: str | None
) -> None:
    for seed in range(2):
        parts = []
        for number in range(6):
            site = ("detroit", "houston", "pune")[(number + seed * (number % 2)) % 3]
            machine, last = f"test-{number}", 9.0 + number
            if seed and number == 5:
                machine = "test-9" if moved == "machine" else machine
                last += moved == "last"
            parts.append((site, machine, last, "test"))
            parts.append((site, f"train-{seed}{number}", 30.0, "train"))
        for strategy in ("FedAvg", "FedProx"):
            make_run(tmp_path / f"{strategy}{seed}", seed, strategy=strategy, parts=parts)
    assert compared(tmp_path)[0].remarks == ((SHARED,) if moved is None else ())


def test_some_seeds_on_the_same_test_data_are_counted_and_other_data_are_not_looked_up(
    tmp_path: Path,
) -> None:
    for seed in range(4):
        for strategy in ("FedAvg", "FedProx"):
            make_run(tmp_path / "a" / f"{strategy}{seed}", seed, strategy=strategy,
                     sha=f"{seed // 2}")  # fmt: skip
            sites = ("detroit", "houston", "pune")[: 1 + seed % 3]
            make_run(tmp_path / "b" / f"{strategy}{seed}", seed, strategy=strategy, sites=sites)
    (remark,) = compared(tmp_path / "a")[0].remarks
    assert remark.startswith("4 seeds share 2 sets of test data: p speaks ")
    for path in (tmp_path / "b").glob("*/"):
        (path / "split.csv.gz").write_text("damaged")
    assert compared(tmp_path / "b")[0].remarks == ()


def test_baselines_beside_some_trainings_only_are_remarked(tmp_path: Path) -> None:
    def baselines(processes: int, sites: int) -> dict[str, object]:
        return {"baselines.processes": processes, "baselines.max_plants": sites,
                "baselines.controls": ["trivial", "alone"]}  # fmt: skip

    for seed in range(2):
        for index, strategy in enumerate(("FedAvg", "FedProx", "FedNova", "FedDyn")):
            options = [baselines(2, 50), baselines(2, 40), baselines(0, 50), baselines(2, 0)][index]
            make_run(tmp_path / f"{index}-{seed}", seed, strategy=strategy, config=options)
    (remark,) = written(tmp_path, *compared(tmp_path))
    assert remark == (
        "baselines did not run alike beside the training, and slow it: seconds cannot be compared "
        "(trivial and alone of 3 sites in 2 processes for FedAvg and FedProx; none for FedNova "
        "and FedDyn)"
    )
    own = {"processor_seconds": {"setup": 0.5, "training": 4.0, "evaluation": 0.5}}
    for index in (2, 3):
        for seed in range(2):
            folder = tmp_path / f"{index}-{seed}" / "summary.json"
            folder.write_text(json.dumps(json.loads(folder.read_text()) | own))
    assert len(compared(tmp_path)[0].remarks) == 1, "not every run has a clock of its own"
    for path in tmp_path.glob("*/summary.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | own))
    assert compared(tmp_path)[0].remarks == (), "other processes do not count"
    for path in tmp_path.glob("*/summary.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"processor_seconds": None}))
    for index in (2, 3):
        for seed in range(2):
            shutil.rmtree(tmp_path / f"{index}-{seed}")
    found, _ = compared(tmp_path)
    assert found.remarks == (), "at most 40 and at most 50 of three sites are the same"
    text = words((tmp_path / "comparison" / "comparison.html").read_text(encoding="utf-8"))
    assert "whatever else ran on the machine" in text and "baselines not counted" not in text

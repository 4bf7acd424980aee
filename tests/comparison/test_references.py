"""Whom a setting is judged against."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fedpdm.errors import ConfigError
from tests.comparison.example_comparison import compared, make_run, sweep, written


def test_the_reference_can_be_chosen_by_name_and_must_exist(tmp_path: Path) -> None:
    found, _ = compared(sweep(tmp_path), against="fednova")
    assert {pair.second for pair in found.against} == {"FedNova"}
    with pytest.raises(ConfigError, match="there is no such setting; there are FedAvg, FedNova"):
        compared(tmp_path, against="FedSGD")


def test_in_a_grid_each_setting_is_judged_against_its_twin(tmp_path: Path) -> None:
    for seed in range(2):
        for model in ("cnn", "lstm"):
            for partition in ("Iid", "Dirichlet"):
                for strategy in ("FedAvg", "FedDyn"):
                    make_run(tmp_path / f"{model}{partition}{strategy}{seed}", seed, model=model,
                             partition=partition, strategy=strategy)  # fmt: skip
    found, shown = compared(tmp_path)
    assert [family.name for family in found.families] == ["IID", "Dirichlet"]
    for family in found.families:
        assert [(p.first, p.second) for p in family.against] == [
            ("cnn FedDyn", "cnn FedAvg"), ("lstm FedDyn", "lstm FedAvg"),
        ]  # fmt: skip
        assert len(family.pairs) == 6
    assert found.overall is not None and found.overall[1].blocks == 2, "two seeds, not four"
    assert "Against FedAvg" in shown


def test_a_twin_agrees_in_all_that_both_settings_have(tmp_path: Path) -> None:
    for seed in range(8):
        for strategy in ("FedAvg", "FedProx"):
            for fraction in (1.0, 0.5):
                score = (0.5 if fraction == 1.0 else 0.4) + 1e-4 * seed
                make_run(tmp_path / f"{strategy}{fraction}{seed}", seed, strategy=strategy,
                         score=score, config={"strategy.fraction_train": fraction})  # fmt: skip
    found, shown = compared(tmp_path)
    assert found.families[0].references == {
        f"FedProx fraction_train={f}": f"FedAvg fraction_train={f}" for f in (1.0, 0.5)
    }, "FedProx's own proximal_mu does not matter; FedAvg is judged in the pairs"
    assert all(pair.verdict == "open" for pair in found.against) and not found.remarks
    assert shown.startswith(
        " No setting can be told from its twin with FedAvg; 4 of all 6 pairs differ."
    )


def test_a_setting_without_a_twin_of_its_own_is_judged_against_none_and_said(
    tmp_path: Path,
) -> None:
    options: list[tuple[str, dict[str, float]]] = [
        ("FedAvg", {"rounds": 5}), ("FedAvg", {"rounds": 7}), ("FedDyn", {"rounds": 7}),
        ("FedNova", {"rounds": 9}),
    ]  # fmt: skip
    for seed in range(2):
        for index, (strategy, config) in enumerate(options):
            make_run(tmp_path / f"{index}{seed}", seed, strategy=strategy, config=config,
                     summary={"rounds": config["rounds"]})  # fmt: skip
    found, shown = compared(tmp_path)
    assert found.families[0].references == {"FedDyn rounds=7": "FedAvg rounds=7"}
    (remark,) = written(tmp_path, found, shown)
    assert remark == (
        "FedNova rounds=9 has no twin with FedAvg that is else the same, and is compared in all "
        "pairs only"
    )
    found, _ = compared(tmp_path, against="FedNova")
    assert set(found.families[0].references.values()) == {"FedNova rounds=9"}, "it is the only one"
    assert any("there is no twin with FedNova" in remark for remark in found.remarks)


def test_of_several_twins_none_is_taken_silently(tmp_path: Path) -> None:
    for seed in range(2):
        for fraction in (1.0, 0.5):
            for mu in (None, 0.1, 1.0) if fraction == 1.0 else (None, 0.1):
                config = {"strategy.fraction_train": fraction}
                config |= {} if mu is None else {"strategy.proximal_mu": mu}
                make_run(tmp_path / f"{fraction}{mu}{seed}", seed, config=config,
                         strategy="FedAvg" if mu is None else "FedProx")  # fmt: skip
    found, shown = compared(tmp_path, against="FedProx")
    assert found.families[0].references == {
        "FedAvg fraction_train=0.5": "FedProx fraction_train=0.5 proximal_mu=0.1"
    }
    (remark,) = written(tmp_path, found, shown)
    assert remark.startswith("FedAvg fraction_train=1.0 has several twins with FedProx (FedProx ")
    assert len(compared(tmp_path)[0].against) == 3, "each has one twin with FedAvg"
    for path in tmp_path.glob("0.5*"):
        shutil.rmtree(path)
    with pytest.raises(ConfigError, match=r"proximal_mu=0.1 and FedProx proximal_mu=1.0.*in full"):
        compared(tmp_path, against="FedProx")

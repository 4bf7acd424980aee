"""``python -m fedpdm.compare``: what it says, what it refuses, what it leaves behind."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fedpdm.compare import compare_folders, default_folder, main
from fedpdm.errors import ConfigError
from fedpdm.evaluation.comparison_result import Comparison
from tests import chromium
from tests.evaluation.example_comparison import make_run


def sweep(folder: Path, seeds: int = 8, shift: float = 0.03, noise: float = 0.01) -> Path:
    """FedProx better than FedAvg in every seed, FedNova different by chance only."""
    draw = np.random.default_rng(0)
    for seed in range(seeds):
        base = float(draw.normal(0.45, 0.05))
        for strategy, by in (("FedAvg", 0.0), ("FedNova", None), ("FedProx", shift)):
            own = noise * (-1) ** seed if by is None else by + float(draw.normal(0, noise / 10))
            make_run(folder / f"{strategy}-{seed}", seed, strategy=strategy, score=base + own)
    return folder


def compared(folder: Path, **options: object) -> tuple[Comparison, str]:
    """Compare and return what an 80-column terminal shows."""
    shown = io.StringIO()
    console = Console(file=shown, width=80, highlight=False, force_terminal=False)
    found = compare_folders([folder], console=console, **options)  # type: ignore[arg-type]
    return found, re.sub(r"\s+", " ", shown.getvalue())


def words(page: str) -> str:
    text = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))


def test_a_planted_difference_is_found_and_one_by_chance_is_not(tmp_path: Path) -> None:
    found, shown = compared(sweep(tmp_path))
    nova, prox = found.against
    assert (prox.first, prox.second, prox.verdict) == ("FedProx", "FedAvg", "better")
    assert prox.effect.mean == pytest.approx(0.03, abs=2e-3) and prox.better == 8
    assert prox.p == 2 / 2**8 and prox.corrected == 2 * prox.p, "Holm over two comparisons"
    assert nova.verdict == "open" and nova.corrected == nova.p
    assert len(found.pairs) == 3
    assert shown.startswith(" FedProx is better than FedAvg by 0.030; FedNova cannot be told")
    assert "FedProx 8 " in shown and "8/8" in shown and "0.016 better" in shown


def test_a_smaller_error_is_better(tmp_path: Path) -> None:
    for seed in range(7):
        make_run(tmp_path / f"a{seed}", seed, metric="rmse", score=14.0 + seed)
        make_run(
            tmp_path / f"b{seed}", seed, metric="rmse", score=13.0 + seed / 2, strategy="FedDyn"
        )
    found, shown = compared(tmp_path)
    (pair,) = found.against
    assert pair.verdict == "better" and pair.effect.mean == pytest.approx(1 + 3 / 2)
    assert "FedDyn is better than FedAvg: RMSE 14.50 against 17.00" in shown
    assert found.families[0].best.name == "FedDyn"
    worst = found.families[0].get("FedDyn").scores["worst"].mean
    assert worst == pytest.approx(14.5 + 0.1), "the plant with the largest error"


def test_with_fewer_than_six_pairs_it_says_that_nothing_can_be_significant(tmp_path: Path) -> None:
    found, shown = compared(sweep(tmp_path, seeds=5))
    assert all(pair.verdict == "open" for pair in (*found.against, *found.pairs))
    assert "2/2^5 = 0.0625" in shown and "no pair of settings can be significant at 0.05" in shown
    assert "at least 7 are needed" in shown, "two comparisons: 2/2^6 doubled is above .05"
    assert "6 blocks" in shown, "ranks are not tested either"


def test_many_comparisons_need_more_seeds_and_it_says_how_many(tmp_path: Path) -> None:
    for seed in range(6):
        for number in range(4):
            make_run(tmp_path / f"{seed}-{number}", seed, score=0.4 + 0.02 * number,
                     config={"strategy.fraction_train": 1 - number / 10})  # fmt: skip
    _, shown = compared(tmp_path)
    assert "6 seeds cannot be significant; it takes 7" in shown
    assert "it takes 8" in shown, "six pairs: 12 / 2^8"


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
    assert found.overall is not None and found.overall[1].blocks == 4, "two seeds of two data sets"
    assert "Against FedAvg" in shown


def test_plants_that_lose_are_named(tmp_path: Path) -> None:
    for seed in range(2):
        make_run(tmp_path / f"a{seed}", seed, score=0.4)
        folder = make_run(tmp_path / f"b{seed}", seed, strategy="FedDyn", score=0.5)
        text = (folder / "summary.json").read_text()
        (folder / "summary.json").write_text(text.replace("0.4,", "0.25,").replace("0.4}", "0.25}"))
    found, shown = compared(tmp_path)
    changes = {c.site: c.against for c in found.families[0].changes("FedDyn")}
    assert changes["detroit"] == pytest.approx(-0.05) and changes["pune"] == pytest.approx(0.1)
    assert "higher at 2 of 3 plants, lower at detroit by 0.050" in shown


def test_costs_are_per_megabyte_and_second_above_guessing(tmp_path: Path) -> None:
    found, _ = compared(sweep(tmp_path, seeds=2))
    standing = found.families[0].get("FedAvg")
    assert standing.megabytes == 10.0 and standing.seconds == 5.0, "without the baselines' time"
    above = standing.scores["global"].mean - 0.1  # type: ignore[operator]
    assert standing.above_guess == pytest.approx(above)
    assert standing.per_megabyte == pytest.approx(above / 10)
    assert standing.per_second == pytest.approx(above / 5)


def test_seeds_that_one_setting_lacks_are_left_out_of_its_pairs_and_said(tmp_path: Path) -> None:
    sweep(tmp_path, seeds=7)
    (tmp_path / "FedProx-6" / "summary.json").unlink()
    found, shown = compared(tmp_path)
    prox = next(pair for pair in found.against if pair.first == "FedProx")
    assert prox.effect.pairs == 6 and prox.p == 2 / 2**6
    assert found.families[0].ranking.blocks == 6
    unbroken = shown.replace(" ", "")  # a long path is broken anywhere
    assert "FedProxhasnoscoreforseed6" in unbroken and "FedProx-6isnotfinished" in unbroken


def test_what_cannot_be_compared_ends_with_2_and_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "a", 0, partition="Iid")
    make_run(tmp_path / "b", 0, partition="Dirichlet")
    assert main([str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "nothing can be compared" in told and "partition._target_" in told
    assert main([str(tmp_path / "never")]) == 2
    assert not (tmp_path / "comparison").exists()


def test_other_inputs_have_another_folder_and_what_is_replaced_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("sw", "iid", "b")
    for seed, name in enumerate(names):
        for strategy in ("FedAvg", "FedDyn"):
            make_run(tmp_path / name / strategy, seed, strategy=strategy)
    one, two, three = (tmp_path / name for name in names)
    first = default_folder([one, two])
    assert first == default_folder([two, one, one]) and first.parent == tmp_path
    assert re.fullmatch("comparison-[0-9a-f]{8}", first.name)
    assert default_folder([one, three]) != first != default_folder([one, two, three])
    assert default_folder([one]) == default_folder([one, one]) == one / "comparison"
    assert default_folder([one / "FedAvg"]) == one / "comparison", "one run: beside it"
    assert default_folder([one, one / "FedAvg"]).parent == tmp_path
    assert main([str(one), str(two)]) == 0 and (first / "comparison.html").exists()
    assert "earlier comparison" not in capsys.readouterr().out
    assert main([str(two), str(one)]) == 0
    assert "takes the place of an earlier comparison" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {*names, first.name}


def test_a_setting_on_other_data_is_left_out_and_named(tmp_path: Path) -> None:
    sweep(tmp_path, seeds=2)
    make_run(tmp_path / "z", 0, sha="others", config={"data.days": 100})
    found, shown = compared(tmp_path)
    assert len(found.families) == 1
    assert "Left out:" in shown and "data.days" in shown


def test_the_files_hold_the_same_numbers(tmp_path: Path) -> None:
    found, shown = compared(sweep(tmp_path), out=tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"comparison.html", "comparison.md", "settings.csv", "scores.csv", "pairs.csv",
                     "plants.csv"}  # fmt: skip
    with (tmp_path / "out" / "pairs.csv").open() as file:
        lines = list(csv.DictReader(file))
    prox = next(x for x in lines if x["kind"] == "reference" and x["first"] == "FedProx")
    assert float(prox["p_holm"]) == found.against[1].corrected and prox["verdict"] == "better"
    with (tmp_path / "out" / "scores.csv").open() as file:
        scores = list(csv.DictReader(file))
    assert len(scores) == 24 and Path(scores[0]["run"]).is_dir()
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    assert "| FedProx | FedAvg | +0.030 |" in markdown and "better than FedAvg" in markdown
    assert re.sub(r"\s", "", str(tmp_path / "out" / "comparison.html")) in shown.replace(" ", "")


# The page ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    compared(sweep(folder))
    return folder / "comparison" / "comparison.html"


def test_the_page_stands_alone_and_says_the_conclusion_first(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"(?i)https?:|//[a-z]|@import|url\((?!#)|<script", text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(ids)
    said = words(text)
    order = ["FedProx is better than FedAvg by 0.030", "Average precision asks", "Settings over",
             "Is the difference more than chance?", "Who gains, who loses", "What the words mean",
             "Sign-flip permutation test"]  # fmt: skip
    places = [said.index(part) for part in order]
    assert places == sorted(places)
    assert text.count('<svg viewBox="0 0 420') == 4, "scores, differences, ranks, megabytes"


@pytest.mark.parametrize("width", [360, 1280])
def test_chromium_shows_it_without_complaint_and_nothing_sticks_out(page: Path, width: int) -> None:
    chromium.require()
    shown = chromium.fit(page, width)
    assert shown.console == [] and shown.overflow == 0


def written(folder: Path, found: Comparison, shown: str) -> list[str]:
    """Return the remarks, having checked that screen, page and Markdown show them all."""
    texts = [shown, words((folder / "comparison" / "comparison.html").read_text(encoding="utf-8"))]
    texts += [
        re.sub(r"\s+", " ", path.read_text(encoding="utf-8"))
        for path in (folder / "comparison").glob("*.md")
    ]
    assert len(texts) == 3
    for remark in found.remarks:
        assert all(remark[1:] in text for text in texts), remark
    return list(found.remarks)


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


def test_other_splits_of_the_same_data_are_no_strict_pairs(tmp_path: Path) -> None:
    for seed in range(3):
        make_run(tmp_path / f"a{seed}", seed, split=f"split-{seed}")
        other = "moved" if seed == 1 else f"split-{seed}"
        make_run(tmp_path / f"b{seed}", seed, strategy="FedProx", split=other)
        make_run(tmp_path / f"c{seed}", seed, strategy="FedNova")  # from before split files
    (remark,) = written(tmp_path, *compared(tmp_path))
    assert remark.startswith("FedAvg and FedProx have different splits of the same data at seed 1 ")
    assert "not strictly paired" in remark

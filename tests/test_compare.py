"""``python -m fedpdm.compare``: what it says, what it refuses, what it leaves behind."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from fedpdm.compare import default_folder, main
from tests import axe
from tests.comparison.example_comparison import compared, make_run, sweep, words


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
    assert worst == pytest.approx(14.5 + 0.1), "the site with the largest error"


def test_with_fewer_than_six_pairs_it_says_that_nothing_can_be_significant(tmp_path: Path) -> None:
    found, shown = compared(sweep(tmp_path, seeds=5))
    assert all(pair.verdict == "open" for pair in (*found.against, *found.pairs))
    assert "but with 5 seeds no single difference" in shown
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


def test_sites_that_lose_are_named(tmp_path: Path) -> None:
    for seed in range(2):
        make_run(tmp_path / f"a{seed}", seed, score=0.4)
        folder = make_run(tmp_path / f"b{seed}", seed, strategy="FedDyn", score=0.5)
        text = (folder / "summary.json").read_text()
        (folder / "summary.json").write_text(text.replace("0.4,", "0.25,").replace("0.4}", "0.25}"))
    found, shown = compared(tmp_path)
    changes = {c.site: c.against for c in found.families[0].changes("FedDyn")}
    assert changes["detroit"] == pytest.approx(-0.05) and changes["pune"] == pytest.approx(0.1)
    assert "higher at 2 of 3 sites, lower at detroit by 0.050" in shown


def test_costs_are_per_megabyte_and_second_above_guessing(tmp_path: Path) -> None:
    found, _ = compared(sweep(tmp_path, seeds=2))
    standing = found.families[0].get("FedAvg")
    assert standing.megabytes == 10.0 and standing.seconds == 5.0, "without the baselines' time"
    above = standing.scores["global"].mean - 0.1  # type: ignore[operator]
    assert standing.above_guess == pytest.approx(above)
    assert standing.per_megabyte == pytest.approx(above / 10)
    assert standing.per_second == pytest.approx(above / 5)


def test_time_is_the_processor_s_where_every_run_has_it(tmp_path: Path) -> None:
    worked = {"processor_seconds": {"setup": 0.5, "training": 1.0, "evaluation": 0.5}}
    for seed in range(2):
        make_run(tmp_path / f"a{seed}", seed, summary=worked)
        make_run(tmp_path / f"b{seed}", seed, strategy="FedDyn", summary=worked)
    found, _ = compared(tmp_path)
    assert [s.seconds for s in found.families[0].gain_table] == [2.0, 2.0]
    make_run(tmp_path / "c", 2, strategy="FedDyn", summary={"processor_seconds": None})
    found, _ = compared(tmp_path)
    assert [s.seconds for s in found.families[0].gain_table] == [5.0, 5.0], "one clock for all"


def test_guessing_on_the_worst_site_is_guessing_on_that_site(tmp_path: Path) -> None:
    trivial = {
        "mean_site": {"average_precision": 0.26},
        "per_site": {"a": {"average_precision": 0.5}, "b": {"average_precision": 0.02}},
    }
    for strategy, score in (("FedAvg", 0.10), ("FedProx", 0.12)):
        test = {
            "global": {"average_precision": 0.6}, "mean_site": {"average_precision": 0.5},
            "per_site": {
                "a": {"average_precision": 0.9, "prevalence": 0.5, "n": 9.0},
                "b": {"average_precision": score, "prevalence": 0.02, "n": 9.0},
            },
            "baselines": {"trivial": trivial} if strategy == "FedAvg" else {},
        }  # fmt: skip
        make_run(tmp_path / strategy, 0, strategy=strategy, summary={"test": test})
    found, _ = compared(tmp_path, view="worst")
    above = {s.name: s.above_guess for s in found.families[0].gain_table}
    assert above == {"FedAvg": pytest.approx(0.08), "FedProx": pytest.approx(0.10)}


def test_a_mean_of_exactly_zero_is_a_score_like_any_other(tmp_path: Path) -> None:
    for strategy, score in (("FedAvg", -0.2), ("FedProx", 0.0)):
        make_run(tmp_path / strategy, 0, strategy=strategy, score=score, metric="mcc")
    assert compared(tmp_path)[0].families[0].best.name == "FedProx"
    for strategy, score in (("FedAvg", 0.2), ("FedProx", 0.0)):
        make_run(tmp_path / "e" / strategy, 0, strategy=strategy, score=score, metric="rmse")
    assert compared(tmp_path / "e")[0].families[0].best.name == "FedProx"


def test_data_sets_of_one_seed_are_one_block(tmp_path: Path) -> None:
    for seed in range(6):
        for partition in ("Iid", "Dirichlet") if seed != 5 else ("Iid",):
            for number, strategy in enumerate(("FedAvg", "FedDyn", "FedNova")):
                # On Dirichlet the last two change places: their mean ranks are the same.
                by = (0, 1, 2)[number] if partition == "Iid" else (0, 2, 1)[number]
                make_run(tmp_path / f"{partition}{strategy}{seed}", seed, strategy=strategy,
                         partition=partition, score=0.4 + 0.05 * by + 0.001 * seed)  # fmt: skip
    found, shown = compared(tmp_path)
    assert found.overall is not None
    names, result = found.overall
    assert names == ("FedAvg", "FedDyn", "FedNova") and result.mean == (3.0, 1.5, 1.5)
    assert (result.blocks, result.p_value, result.critical) == (5, None, None), "of both: 5 seeds"
    assert "All data sets together. No critical difference: it takes 6 blocks (seeds)" in shown
    for number, strategy in enumerate(("FedAvg", "FedDyn", "FedNova")):
        make_run(tmp_path / f"late{strategy}", 5, strategy=strategy, partition="Dirichlet",
                 score=0.4 + 0.05 * number)  # fmt: skip
    overall = compared(tmp_path)[0].overall
    assert overall is not None and overall[1].blocks == 6 and overall[1].p_value is not None


def test_only_pairs_with_too_few_seeds_are_said_to_have_too_few(tmp_path: Path) -> None:
    for strategy, seeds, score in (("FedAvg", 10, 0.5), ("FedProx", 10, 0.6), ("FedDyn", 3, 0.5)):
        for seed in range(seeds):
            make_run(tmp_path / f"{strategy}{seed}", seed, strategy=strategy,
                     score=score + 0.001 * seed)  # fmt: skip
    found, shown = compared(tmp_path)
    assert found.against[1].verdict == "better"
    assert shown.startswith(" FedProx is better than FedAvg") and "no pair" not in shown
    assert (
        "Too few seeds to be significant at 0.05, whatever they show: FedDyn and FedAvg (3) and "
        "FedProx and FedDyn (3). The smallest possible p-value is 2/2^3 = 0.25; it takes 6 seeds "
        "or more." in shown
    )


def test_pairs_of_few_seeds_do_not_speak_for_those_of_many(tmp_path: Path) -> None:
    # No difference at all, and the reference has few seeds: the others still have enough.
    for strategy, seeds in (("FedAvg", 3), ("FedProx", 8), ("FedDyn", 8)):
        for seed in range(seeds):
            make_run(tmp_path / f"{strategy}{seed}", seed, strategy=strategy)
    _, shown = compared(tmp_path)
    assert shown.startswith(" No setting can be told from another: the differences may be chance")


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
                     "sites.csv"}  # fmt: skip
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
             "Paired test"]  # fmt: skip
    places = [said.index(part) for part in order]
    assert places == sorted(places)
    assert text.count('<svg viewBox="0 0 420') == 4, "scores, differences, ranks, megabytes"


@pytest.mark.parametrize("width", [390, 1200])
def test_it_fits_phones_and_screens_and_breaks_no_rule_of_accessibility(
    page: Path, width: int
) -> None:
    assert axe.violations(page.read_text("utf-8"), width) == []

"""The report's sections: what each says, and what it says where a run has no numbers for it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fedpdm.evaluation.locales import written_in
from fedpdm.report.gain_table import gain_table
from fedpdm.report.report import render
from fedpdm.report.sections import training
from fedpdm.report.sections.alarms import dearer, how_chosen, silence
from fedpdm.report.summary_text import certainty
from tests.comparison.example_runs import failure_run
from tests.report.example_details import (
    detailed_failure,
    detailed_horizons,
    detailed_life,
    interval,
    silent_site,
)
from tests.report.test_report import outline, page_of, words

Json = dict[str, Any]

SECTIONS = "gain sites alarms calibration life rounds events cost data again more terms".split()


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {
        "failure": page_of("failure, 2 sites"),
        "horizons": render(**detailed_horizons(2)),
        "life": page_of("life, 10 sites"),
        "bare": render(**failure_run(2, faults=False)),
    }


def section(page: str, name: str) -> str:
    """Return the HTML of one section."""
    begin = page.index(f'<section aria-labelledby="{name}">')
    return page[begin : page.index("</section>", begin)]


def cells(html: str) -> list[list[str]]:
    return [
        [re.sub(r"\s+", " ", cell) for cell in row] for row in outline(html + "</section>").rows
    ]


LEFT_OUT = {
    "failure": ["life"],
    "horizons": ["life"],
    "life": ["alarms", "calibration", "events"],
    "bare": ["alarms", "calibration", "life", "events"],
}
"""By page, the sections that it has nothing for."""


@pytest.mark.parametrize("name", LEFT_OUT)
def test_every_section_says_something_and_what_has_nothing_to_say_is_left_out(
    pages: dict[str, str], name: str
) -> None:
    there = re.findall('<section aria-labelledby="([^"]+)">', pages[name])
    assert [key for key in SECTIONS if key not in there] == LEFT_OUT[name]
    for key in there:
        assert len(words(section(pages[name], key)).split()) > 12, key
    assert set(re.findall(r'<a href="#(\w+)"', pages[name])) <= set(there)


def test_a_run_without_intervals_or_split_says_so(pages: dict[str, str]) -> None:
    assert "cannot be said" in words(section(pages["bare"], "gain"))
    assert "kept no split file" in words(section(pages["bare"], "again"))


def test_rows_that_stand_alone_have_a_confusion_but_no_episodes() -> None:
    run = detailed_failure(2)
    run["summary"]["test"]["alarms"] = {"reason": "rows stand alone: no machine is followed"}
    alarms = section(render(**run), "alarms")
    assert "1 111 caught" in words(alarms)
    assert "cannot be counted: rows stand alone: no machine is followed." in words(alarms)


def test_every_plot_has_a_name_a_caption_and_a_word_on_how_to_read_it(
    pages: dict[str, str],
) -> None:
    for page in pages.values():
        figures = re.findall(r"<figure>(.*?)</figure>", page, flags=re.DOTALL)
        assert len(figures) >= 5
        for figure in figures:
            assert re.search(r'role="img" aria-label="[^"]{10,}"', figure)
            assert re.search(r"<figcaption>[^<]{4,}</figcaption>", figure)
            assert 'class="note"' in figure or 'class="legend"' in figure


@pytest.mark.parametrize(
    ("low", "high", "said", "shown"),
    [
        (0.001, 0.2, "This is sure at both sites.", "better, sure"),
        (-0.001, 0.2, "This could be chance at both sites.", "could be chance"),
    ],
)
def test_a_gain_is_sure_if_the_bootstrap_says_so(
    low: float, high: float, said: str, shown: str
) -> None:
    run = detailed_failure(2)
    for part in run["summary"]["test"]["bootstrap"]["gain"]["alone"]["per_site"].values():
        part |= {"low": low, "high": high, "sure": low > 0}
    page = render(**run)
    assert said in words(page)
    detroit = next(row for row in cells(section(page, "gain")) if row[0] == "detroit")
    assert detroit[5] == shown
    assert detroit[4] == f"{low:+.3f} to {high:+.3f}".replace("-", "\u2212")


def test_sites_that_lose_surely_and_sites_without_an_interval_are_told_apart() -> None:
    summary = detailed_failure(3)["summary"]
    drawn = summary["test"]["bootstrap"]["gain"]["alone"]["per_site"]
    alone = summary["test"]["baselines"]["alone"]["per_site"]
    alone["houston"]["average_precision"] = 0.9
    for site, (low, high) in {"detroit": (0.01, 0.1), "houston": (-0.5, -0.1),
                              "seattle": (-0.01, 0.1)}.items():  # fmt: skip
        drawn[site] |= {"low": low, "high": high, "sure": site != "seattle"}
    said = certainty(gain_table(summary))
    assert said == (
        "This is sure: better at detroit and worse at houston; at seattle it could be chance."
    )
    drawn["detroit"] |= interval(None, 0.0)
    assert certainty(gain_table(summary)) == (
        "This is sure: worse at houston; at seattle it could be chance; 1 site cannot be judged."
    )
    del summary["test"]["bootstrap"]
    assert certainty(gain_table(summary)) is None


FEW = {"sure": None, "failing": 4, "reason": "only 4 machines failed: too few to be sure"}


def test_too_few_failures_are_no_verdict_but_their_interval_is_shown() -> None:
    run = detailed_failure(2)
    drawn = run["summary"]["test"]["bootstrap"]["gain"]["alone"]
    drawn["per_site"]["detroit"] |= {"low": 0.001, "high": 0.2, **FEW}
    drawn["per_site"]["houston"] |= {"low": 0.001, "high": 0.2, "sure": True}
    said = certainty(gain_table(run["summary"]))
    assert said == "This is sure at houston; too few failures to say at detroit."
    page = section(render(**run), "gain")
    detroit = next(row for row in cells(page) if row[0] == "detroit")
    assert detroit[4:6] == ["+0.001 to +0.200", FEW["reason"]]
    drawn["per_site"]["houston"] |= FEW
    drawn["mean_site"] |= {"sure": True}
    assert certainty(gain_table(run["summary"])) == (
        "Too few failures to say whether this is chance; on average over the sites the gain is "
        "sure."
    )
    drawn["mean_site"] |= FEW
    drawn["global"] |= FEW
    assert certainty(gain_table(run["summary"])) == (
        "Too few failures to say whether this is chance."
    )
    assert "95 % interval, too narrow: only 4 machines failed" in words(render(**run))


@pytest.mark.parametrize(
    ("mean", "every", "said"),
    [
        (True, False, "and could be chance: a risk at one site does not mean the same"),
        (False, True, "every site's own model stand in one list"),
    ],
)
def test_where_mean_and_list_of_all_disagree_the_mean_is_believed(
    mean: bool, every: bool, said: str
) -> None:
    run = detailed_failure(2)
    drawn = run["summary"]["test"]["bootstrap"]["gain"]["alone"]
    drawn["mean_site"] |= {"low": 0.01, "high": 0.2, "sure": mean}
    drawn["global"] |= {"low": 0.01, "high": 0.2, "sure": every}
    assert said in words(render(**run))
    drawn["global"] |= {"sure": mean}
    assert said not in words(render(**run))


def test_of_a_run_that_did_not_count_failures_nothing_is_called_sure() -> None:
    summary = detailed_failure(2, half=0.001)["summary"]
    drawn = summary["test"]["bootstrap"]["gain"]["alone"]
    for part in (*drawn["per_site"].values(), drawn["global"], drawn["mean_site"]):
        del part["sure"], part["failing"]
    table = gain_table(summary)
    assert all(row.sure is None and row.interval for row in (*table.rows, table.mean))
    assert "not counted" in (certainty(table) or "")


def test_alarms_are_counted_as_summary_json_counts_them(pages: dict[str, str]) -> None:
    run = detailed_failure(2)
    rows = cells(section(pages["failure"], "alarms"))
    assert rows[1][1:] == ["1 111 caught", "333 missed"]
    assert rows[2][1:] == ["2 222 false alarms", "4 444 rightly quiet"]
    houston = [row for row in rows if row[0] == "houston"]
    assert houston[0][1:5] == ["1 113", "335", "2 224", "4 446"]
    processes = run["summary"]["test"]["alarms"]["per_site"]["houston"]
    assert houston[1][1:4] == ["13", "12", "92 %"]
    assert houston[1][4] == f"{processes['lead_time']['median']:.1f}"
    assert houston[1][-1] == f"{processes['false_per_period']:.2f}"


def test_the_aim_of_the_threshold_is_explained() -> None:
    base = {"common": {"7": 0.2}, "per_site": {}, "validation": {}}
    price = {"missed": 50.0, "false_alarm": 1.0, "inspection": 0.0}
    found = {"false_alarm_rate": 0.08}
    said = {
        aim: " ".join(how_chosen(base | {"aim": aim, **more}, found, "7", "windows"))
        for aim, more in (
            ("f1", {}), ("false_alarms", {"budget": 0.05}),
            ("cost", {"costs": {"a": price, "b": price}}),
        )
    }  # fmt: skip
    assert "greatest F1" in said["f1"]
    assert "at most 5.0\u00a0% of the healthy windows" in said["false_alarms"]
    assert "a missed failure costs 50, a false alarm episode 1" in said["cost"]
    assert all("8.0\u00a0% raise a false alarm" in text for text in said.values())
    own = {"a": price, "b": price | {"missed": 99.0}}
    assert "each site by its own costs" in " ".join(
        how_chosen(base | {"aim": "cost", "costs": own}, {}, "7", "windows")
    )


SILENT = (
    "At houston no alarm is raised: 0 of 6 failures are warned of. "
    "evaluate.threshold_scope=plant gives each site a level of its own."
)


def test_a_site_that_never_gets_an_alarm_is_named_in_the_findings(pages: dict[str, str]) -> None:
    assert "threshold_scope" not in pages["failure"]
    run = silent_site(detailed_failure(3), "houston")
    assert SILENT in words(section(render(**run), "gain"))
    tested = run["summary"]["test"]
    tested["alarms"] = {"reason": "rows stand alone"}
    assert "no alarm is raised: 0 of 184 windows before a failure raise one." in str(
        silence(run["summary"], "windows")
    )
    tested["per_site"]["houston"]["false_alarms"] = 3.0
    assert "At houston no alarm comes before a failure" in str(silence(run["summary"], "windows"))
    tested["thresholds"]["scope"] = "plant"
    assert silence(run["summary"], "windows") is None


def test_a_silent_site_without_failures_is_not_blamed_and_many_are_counted() -> None:
    run = detailed_failure(10)
    for index in range(1, 6):
        silent_site(run, f"plant-{index:03d}", failures=1)
    assert "At plant-001, plant-002, plant-003 and 2 more no alarm is raised: 0 of 5" in str(
        silence(run["summary"], "windows")
    )
    for index in range(1, 6):
        run["summary"]["test"]["per_site"][f"plant-{index:03d}"]["missed"] = 0.0
    assert silence(run["summary"], "windows") is None


def priced_run(**whole: float) -> Json:
    """Return a run of two sites with costs, and ``whole`` what alarms cost over both."""
    run = detailed_failure(2)
    tested = run["summary"]["test"]
    tested["thresholds"] |= {
        "aim": "cost",
        "costs": {
            "detroit": {"missed": 10.0, "false_alarm": 1.0, "inspection": 0.5},
            "houston": {"missed": 99.0, "false_alarm": 0.0, "inspection": 2.0},
        },
    }
    tested["costs"] = {
        "risk": "7", "counted": "episodes", "period": "machine-month of 30 days",
        "validation": {"level": 3.0, "never": 9.0, "always": 8.0}, "global": whole,
        "per_site": {"detroit": whole | {"never": 0.25}, "houston": whole | {"always": 0.75}},
    }  # fmt: skip
    return run


def test_what_would_cost_less_is_said_beside_the_level_and_among_the_findings() -> None:
    assert "costs" not in detailed_failure(2)["summary"]["test"]
    run = priced_run(level=5.5, never=30.0, always=4.0, alone=7.0, hgb=3.25, rules=3.5, pooled=1.0)
    page = render(**run)
    alarms = section(page, "alarms")
    shown = cells(alarms)
    head = next(row for row in shown if "A miss" in row)
    assert head[4:] == ["At the alarm level", "Never an alarm", "Always an alarm", "Alone", "Trees"]
    rows = {row[0]: row[1:] for row in shown[shown.index(head) + 1 :][:3]}
    assert rows["detroit"] == ["10", "1", "0.50", "5.50", "0.25", "4.00", "7.00", "3.25"]
    assert rows["All sites"] == ["", "", "", "5.50", "30.00", "4.00", "7.00", "3.25"]
    said = (
        "On test data alarms at the chosen level cost 5.50 per machine-month of 30 days. "
        "Cheaper would be: boosted trees (3.25) and an alarm all the time (4.00)."
    )
    assert said in words(alarms) and said in words(section(page, "gain"))
    assert "At detroit it would have been cheaper never to raise an alarm." in words(alarms)
    assert "At houston it would have been cheaper to be in alarm all the time." in words(alarms)


def test_that_never_or_always_was_chosen_is_said_beside_the_level() -> None:
    run = priced_run(level=4.0, never=30.0, always=4.0)
    assert "No level is sure" not in words(section(render(**run), "alarms"))
    run["summary"]["test"]["costs"]["validation"]["level"] = 8.0
    said = words(section(render(**run), "alarms"))
    assert "No level is sure to cost less than to be in alarm all the time" in said


def test_a_level_that_pays_is_not_held_against_doing_without_it() -> None:
    run = priced_run(level=2.0, never=30.0, always=4.0, alone=2.0)
    run["summary"]["test"]["costs"]["per_site"] = {}
    assert dearer(run["summary"]) is None
    assert "What the alarms cost" in section(render(**run), "alarms")
    assert dearer(failure_run(2)["summary"]) is None


def test_the_parts_of_the_time_add_up_to_the_total() -> None:
    rows = training.seconds({"seconds": {"setup": 1.0, "training": 15.4, "total": 17.6}})
    assert [name for name, _, _ in rows] == ["training", "setup", "other", "total"]
    assert sum(spent for _, spent, _ in rows[:-1]) == pytest.approx(17.6)
    rows = training.seconds({"seconds": {"setup": 1.0, "total": 1.04}})
    assert [name for name, _, _ in rows] == ["setup", "total"]


@pytest.mark.parametrize(
    ("window", "label"),
    [
        (32, "Windows before a failure in the test part"),
        (None, "Rows with a failure in the test part"),
    ],
)
def test_windows_before_a_failure_are_not_called_failures(window: int | None, label: str) -> None:
    run = failure_run(2)
    run["summary"]["data"]["window"] = window
    measures = [row[0] for row in cells(section(render(**run), "more"))]
    assert label in measures
    assert "Failures in the test part" not in measures


def test_grey_is_explained_for_lines_that_do_not_cross_zero(pages: dict[str, str]) -> None:
    said = words(section(pages["failure"], "gain"))
    assert "wherever the line crosses 0" not in said
    assert "also where few machines failed or several sites are judged at once" in said


def test_horizons_have_a_row_each_and_sites_their_own_alarm_level(pages: dict[str, str]) -> None:
    rows = cells(section(pages["horizons"], "alarms"))
    seven, fourteen = (next(r for r in rows if r[0] == f"{h} days") for h in (7, 14))
    assert (seven[1], fourteen[1]) == ("7.0 %", "14.0 %")
    assert (seven[6:9], fourteen[6:9]) == (["107", "27", "37"], ["114", "34", "44"])
    assert fourteen[9] == "89 %"
    assert next(r for r in rows if r[0] == "houston")[7] == "0.300"
    assert "from 0.200 to 0.300 on" in words(section(pages["horizons"], "alarms"))


def test_calibration_is_shown_before_and_after(pages: dict[str, str]) -> None:
    part = section(pages["failure"], "calibration")
    assert cells(part)[1] == ["Risk within 7 days", "0.0912", "0.0654", "8.1 %", "2.3 %"]
    assert "about 82 windows" in words(part)


def test_intervals_of_remaining_life_are_held_against_their_promise(pages: dict[str, str]) -> None:
    part = section(pages["life"], "life")
    assert "it held 93 % (86.1 % to 97.1 %" in words(part)
    assert "as promised" in words(part)
    rows = cells(part)
    assert {"RMSE", "RMSE uncapped", "NASA"} <= set(rows[0])
    first = next(row for row in rows if row[0] == "machines-01")
    assert first[-4:] == ["80 %", "44 % to 98 %", "40.0", "10"]


def test_bytes_are_those_of_summary_json(pages: dict[str, str]) -> None:
    run = detailed_failure(2)
    total = run["summary"]["bytes"]
    rows = {row[0]: row[1:] for row in cells(section(pages["failure"], "cost"))}
    assert rows["In total"][0] == f"{total['up'] / 1e6:.1f} MB"
    assert rows["Per round, all sites"][:2] == ["447.0 kB", "447.6 kB"]
    assert rows["Per round and site"] == ["223.5 kB", "223.8 kB", "447.3 kB"]


def test_how_to_run_it_again_names_the_split_and_runs() -> None:
    said = words(section(page_of("failure, 2 sites"), "again"))
    assert "split=20260114-101500-a1b2c3" in said
    assert "77aa" * 16 in said
    code = said[said.index("from pathlib") : said.index("Another")]
    assert "OmegaConf.load('20260114-101500-a1b2c3/config.yaml')" in code


def test_shuffled_labels_are_said_before_anything_else() -> None:
    run = detailed_failure(2)
    run["summary"]["test"]["shuffled"] = {
        "global": {"value": 0.05, "low": 0.04, "high": 0.06, "within": True}
    }
    said = words(render(**run))
    assert "shuffled on purpose" in said and "no leak of this kind shows" in said
    assert said.index("shuffled on purpose") < said.index("Average precision asks")


def test_pages_stay_light_and_long_tables_are_folded() -> None:
    ten, hundred = page_of("life, 10 sites"), page_of("failure, 100 sites")
    assert len(ten.encode()) < 500_000
    assert len(hundred.encode()) < 1_000_000
    assert hundred.count("<details>") >= ten.count("<details>") + 4
    unfolded = re.sub(r"<details>.*?</details>", "", hundred, flags=re.DOTALL)
    assert max(len(re.findall(r"<tr>", table)) for table in unfolded.split("<table")) <= 20


def test_paper_is_white_whatever_the_screen(pages: dict[str, str]) -> None:
    style = pages["failure"][: pages["failure"].index("</style>")]
    assert re.findall(r"@media ([^{]*prefers-color-scheme: dark[^{]*) \{", style) == [
        "screen and (prefers-color-scheme: dark)"
    ]


@pytest.mark.parametrize(
    "run", [detailed_failure(2, faults=False), detailed_life(10)], ids=["failure", "life"]
)
def test_a_german_report_has_no_decimal_point_and_an_english_one_no_comma(run: Any) -> None:
    with written_in("de"):
        german = render(**run)
    for page, mark in ((german, "."), (render(**run), ",")):
        shown = re.sub(r"(?s)<pre>.*?</pre>|<table class=\"keys\">.*?</table>", "", page)
        found = re.findall(rf"[^ ]*\d{re.escape(mark)}\d[^ ]*", words(shown))
        assert found == []
    with_commas = re.findall(r"<text[^>]*>[^<]*\d,\d[^<]*</text>", german)
    assert with_commas  # the plots too

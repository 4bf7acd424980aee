"""The final table, on wide, narrow and missing terminals."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedpdm.data.sources.base import WrappedSource
from fedpdm.evaluation.wording import Metric
from fedpdm.report.gain_table import GainRow, gain_table
from fedpdm.report.report import render
from fedpdm.report.summary_text import headline
from fedpdm.report.table import events_line, print_summary
from fedpdm.testing.tiny import TinySource
from tests.comparison.example_runs import failure_run, life_run
from tests.report.example_details import detailed_failure, silent_site


def printed(summary: dict[str, Any], folder: Path = Path("runs/x"), **console: Any) -> str:
    file = io.StringIO()
    print_summary(summary, folder, Console(file=file, **({"width": 100} | console)))
    return file.getvalue()


def row_of(text: str, name: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.startswith(name))


def test_every_site_has_its_numbers_and_its_verdict() -> None:
    summary = failure_run(2)["summary"]
    text = printed(summary)
    tested = summary["test"]
    for site in ("detroit", "houston"):
        federated = tested["per_site"][site]["average_precision"]
        alone = tested["baselines"]["alone"]["per_site"][site]["average_precision"]
        expected = [
            *(
                f"{tested['baselines'][name]['per_site'][site]['average_precision']:.3f}"
                for name in ("trivial", "alone")
            ),
            f"{federated:.3f}",
            f"+{federated - alone:.3f}",
            "better",
        ]
        assert row_of(text, site)[1:6] == expected
    assert "Mean of sites" in text
    assert row_of(text, "All test data")[3:6] == ["0.041", "0.430", "0.534"]


def test_a_site_that_loses_is_called_worse_for_errors_too() -> None:
    text = printed(life_run(10)["summary"])
    row = row_of(text, "machines-03")
    assert row[4].startswith("\u2212") and row[5] == "worse"
    assert "RMSE, lower is better" in text


@pytest.mark.parametrize(("width", "room"), [(72, False), (80, True)])
def test_a_narrow_screen_does_without_minirocket_and_says_so(width: int, room: bool) -> None:
    summary = failure_run(2)["summary"]
    summary["test"]["baselines"]["minirocket"] = summary["test"]["baselines"]["hgb"]
    text = printed(summary, width=width)
    head = next(line for line in text.splitlines() if line.startswith("Site"))
    assert ("Rocket" in head) is room and "Trees" in head
    assert ("Rocket: in report.html, there is no room here" in text) is not room
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "Mean of sites" in text


def test_data_that_cannot_have_minirocket_or_rules_has_no_columns_for_them() -> None:
    text = printed(failure_run(2)["summary"])
    assert "Rocket" not in text and "Rules" not in text


def test_missing_values_are_dashes_with_the_reason() -> None:
    summary = failure_run(2)["summary"]
    summary["test"]["per_site"]["houston"] |= {"average_precision": None, "positives": 0.0}
    text = printed(summary, width=200)
    assert row_of(text, "houston")[3:5] == ["\u2013", "\u2013"]
    assert "at houston: no failure in this site's test part" in text


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("run", [failure_run(2), life_run(10), failure_run(100)])
def test_no_line_is_wider_than_the_screen_and_no_number_is_cut(
    width: int, run: dict[str, Any]
) -> None:
    summary = run["summary"]
    summary["test"]["baselines"]["rules"] = summary["test"]["baselines"]["hgb"]
    text = printed(summary, width=width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    head = next(line for line in text.splitlines() if line.startswith("Site"))
    for heading in ("Trivial", "Alone", "Federated", "Gain", "Pooled", "Trees", "Rules"):
        assert heading in head
    start = text.splitlines().index(head)
    body = [line for line in text.splitlines()[start + 2 : start + 4]]
    for line in body:
        assert "…" not in line[24:]
        assert len(line.replace("better", "").replace("worse", "").split()) >= 8


def test_of_many_sites_losers_and_winners_are_shown_and_the_rest_counted() -> None:
    summary = failure_run(100)["summary"]
    text = printed(summary)
    assert len(text.splitlines()) < 40
    assert "80 sites more" in text
    assert text.count(" worse") >= 5  # all sites that lose


def test_the_path_is_whole_even_if_it_is_long_and_has_brackets(tmp_path: Path) -> None:
    folder = tmp_path / "a [bold]folder[/bold] with a long name" / ("x" * 90)
    folder.mkdir(parents=True)
    (folder / "summary.json").touch()
    text = printed(failure_run(2)["summary"], folder, width=80)
    assert f"Run folder: {folder}\n" in text
    assert "with summary.json\n" in text


def test_a_console_without_unicode_gets_ascii() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    summary = life_run(10)["summary"]
    print_summary(summary, Path("runs/x"), Console(file=file, width=100))
    file.flush()
    assert " -2.12 worse" in raw.getvalue().decode("ascii")


def test_nothing_but_text_reaches_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(failure_run(2)["summary"], Path("runs/x"))
    out, err = capsys.readouterr()
    assert "\x1b" not in out
    assert err == ""
    assert "helps both sites" in out


def test_events_are_counted_in_one_line() -> None:
    events = [
        {"kind": "refused", "site": "houston"},
        {"kind": "refused", "site": "houston"},
        {"kind": "rollback", "site": None},
    ]
    assert events_line(events) == "Events: update refused 2 times (houston); rolled back 1 time"
    assert events_line([]) == ""
    assert "Events" not in printed(life_run(3)["summary"])


def test_whether_it_is_sure_is_said_below_the_headline() -> None:
    lines = printed(detailed_failure(2, half=0.001)["summary"]).strip().splitlines()
    assert "This is sure at both sites." in lines[1:3]


def test_a_site_that_never_gets_an_alarm_is_named() -> None:
    assert "threshold_scope" not in printed(detailed_failure(3)["summary"])
    text = " ".join(printed(silent_site(detailed_failure(3), "houston")["summary"]).split())
    assert "At houston no alarm is raised: 0 of 6 failures are warned of." in text
    assert "evaluate.threshold_scope=plant gives each site a level of its own." in text


def test_facts_of_generated_data_stand_below_the_headline(tmp_path: Path) -> None:
    summary = failure_run(2)["summary"]
    without = printed(summary, tmp_path, width=300)
    summary["data"]["facts"] = [f"site-{i} changes on day <{100 + i}> [red]" for i in range(8)]
    lines = printed(summary, tmp_path, width=600).splitlines()
    place = next(i for i, line in enumerate(lines) if "site-0 changes on day <100> [red]" in line)
    assert "The shared model" in "".join(lines[:place]) and "Test data" in "".join(lines[place:])
    assert "site-5" in lines[place] and "site-6" not in lines[place] and "2 more" in lines[place]
    assert "Of the data" not in without
    page = render(summary, [], {}, [])
    assert "site-0 changes on day &lt;100&gt;" in page.split("<nav")[0]
    assert headline(gain_table(summary)) in page

    class Told(TinySource):
        facts = ("its mean rises",)

    assert WrappedSource(Told({"a": {}})).facts == ("its mean rises",), "wrappers tell it, too"


def test_a_gain_is_not_sure_where_another_kind_alone_turned_out_as_good() -> None:
    metric = Metric("average_precision", "average precision", "AP", True, 3, "")
    values = {"federated": 0.6, "best_alone": 0.5, "alone": 0.5, "hgb_alone": 0.55}
    row = GainRow("a", metric, values, beyond_chance=True, against="best_alone")
    assert row.sure
    assert replace(row, values=values | {"hgb_alone": 0.6}).sure is False
    assert replace(row, values=values | {"federated": 0.4}).sure, "a loss is one all the same"

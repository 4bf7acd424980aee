"""The report: what it says, that it stands alone, and how a browser shows it."""

from __future__ import annotations

import html
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fedpdm import storage
from fedpdm.errors import HistoryError
from fedpdm.report.report import render, write_report
from tests.comparison.example_runs import failure_run, life_run
from tests.report.example_details import detailed_failure, detailed_life

Json = dict[str, Any]

RUNS = {
    "failure, 2 sites": detailed_failure(2),
    "failure, 1 site": failure_run(1, rounds=1, faults=False),
    "life, 10 sites": detailed_life(10),
    "failure, 100 sites": detailed_failure(100, rounds=30),
}


class Outline(HTMLParser):
    """Opened and closed elements, ids, and addresses of a page."""

    VOID = frozenset({"meta", "link", "br", "img", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.rows: list[list[str]] = []
        self._in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("href", "src", "xlink:href", "action", "data") and value:
                self.addresses.append(value)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
            self._in_cell = True

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes <{self.open[-1:]}>"
        self.open.pop()
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data


def outline(text: str) -> Outline:
    parsed = Outline()
    parsed.feed(text)
    assert parsed.open == []
    return parsed


def words(text: str) -> str:
    """The page's text without styles and tags, in one line."""
    text = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", text))).replace(" .", ".")


@cache
def page_of(name: str) -> str:
    """Return the page of one of ``RUNS``; it is drawn once."""
    return render(**RUNS[name])


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: page_of(name) for name in RUNS}


@pytest.mark.parametrize("name", RUNS)
def test_the_file_stands_alone(pages: dict[str, str], name: str) -> None:
    page = pages[name]
    parsed = outline(page)
    assert not re.search(r"(?i)https?:|//[a-z]", page)
    assert not re.search(r"(?i)@import|url\((?!#)", page)
    assert all(a.startswith("#") or a == "data:," for a in parsed.addresses)
    assert "<script" not in page
    assert len(parsed.ids) == len(set(parsed.ids))
    fragments = {a[1:] for a in parsed.addresses if len(a) > 1 and a[0] == "#"}
    fragments |= set(re.findall(r"url\(#([^)]*)\)", page))
    assert fragments <= set(parsed.ids)


def test_the_headline_comes_first_and_the_metric_is_explained(pages: dict[str, str]) -> None:
    text = words(pages["failure, 2 sites"])
    assert "The shared model helps both sites (detroit by 0.072" in text
    assert text.index("helps both sites") < text.index("Average precision asks") < text.index(
        "Each site"
    )  # fmt: skip
    life = words(pages["life, 10 sites"])
    assert "hurts 1 (machines-03 by 2.12)" in life
    assert "typical error of the predicted remaining life, in cycles" in life


def test_the_table_holds_every_predictor_and_a_verdict_in_words(pages: dict[str, str]) -> None:
    rows = outline(pages["failure, 2 sites"]).rows
    summary = RUNS["failure, 2 sites"]["summary"]
    answer, detroit = [row for row in rows if row[0] == "detroit"][:2]
    assert answer[3] == detroit[4]  # the gain
    baselines = summary["test"]["baselines"]
    for column, name in ((1, "trivial"), (2, "alone"), (5, "pooled"), (6, "hgb")):
        value = baselines[name]["per_site"]["detroit"]["average_precision"]
        assert detroit[column] == f"{value:.3f}"
    assert detroit[3] == f"{summary['test']['per_site']['detroit']['average_precision']:.3f}"
    assert detroit[4] == "+0.072 better"
    loser = next(r for r in outline(pages["life, 10 sites"]).rows if r[0] == "machines-03")
    assert loser[3] == "\u22122.12 worse"


def test_a_null_metric_is_a_dash_with_a_footnote() -> None:
    run = failure_run(2)
    run["summary"]["test"]["per_site"]["houston"] |= {"average_precision": None, "positives": 0.0}
    page = render(**run)
    houston = next(row for row in outline(page).rows if row[0].startswith("houston"))
    assert houston[0] == "houston1"  # the footnote's mark
    assert houston[2:4] == ["\u2013", "\u2013"]
    assert "No failure in this site's test part, so the metric cannot be computed." in words(page)


def test_of_many_sites_the_losers_come_first(pages: dict[str, str]) -> None:
    rows = [r for r in outline(pages["failure, 100 sites"]).rows if r[0].startswith("plant-")]
    ends, every = rows[:16], rows[16:116]
    assert [row[0] for row in ends[:8]] == [row[0] for row in every[:8]]
    verdicts = [row[3].split()[-1] for row in every]
    order = {"worse": 0, "same": 1, "better": 2, "\u2013": 3}
    assert verdicts == sorted(verdicts, key=order.__getitem__)
    assert verdicts.count("worse") == 6


def test_events_say_who_what_why_and_by_whom(pages: dict[str, str]) -> None:
    text = words(pages["failure, 2 sites"])
    assert "Update refused houston its update holds NaN" in text
    assert "over 10 times the best so far (0.24); back to round 6 monitor" in text
    quiet = words(pages["life, 10 sites"])
    assert "No update was refused, no site failed, nothing was rolled back." in quiet


def test_configuration_and_origin_are_there(pages: dict[str, str]) -> None:
    text = words(pages["failure, 2 sites"])
    assert "config.strategy._target_ flwr.serverapp.strategy.FedAvg" in text
    assert "617d0b8c0ffee" in text
    assert "hashes.splits 77aa" in text


def test_what_a_site_is_called_cannot_become_markup() -> None:
    run = detailed_failure(2)
    evil = '<script>alert("1")</script> $\\frac{1}{2}$ & co'
    text = str(run).replace("houston", "@@")
    assert "@@" in text
    renamed = _renamed(run, "houston", evil)
    page = render(**renamed)
    outline(page)
    assert "<script" not in page
    assert html.escape(evil)[:20] in page


def _renamed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {_renamed(k, old, new): _renamed(v, old, new) for k, v in value.items()}
    if isinstance(value, list):
        return [_renamed(v, old, new) for v in value]
    return new if value == old else value


def test_runs_with_little_in_them_still_have_a_report() -> None:
    summary = {"validation": {"metric": "average_precision"}, "sites": ["a"], "test": None}
    page = render(summary, [], {}, [])
    outline(page)
    assert "cannot be said" in words(page)
    poisoned = failure_run(2)
    for record in poisoned["rounds"]:
        record["metrics"] = {"train_loss": float("nan"), "validation_loss": None}
        for site in record["sites"].values():
            site |= {"train_loss": float("inf"), "validation": {"average_precision": None}}
    outline(render(**poisoned))


def test_a_taken_back_round_does_not_set_the_scale() -> None:
    run = failure_run(2)
    undone = next(r for r in run["rounds"] if r.get("undone"))
    calm = _loss_ticks(render(**run))
    undone["metrics"] |= {"train_loss": 1e9, "validation_loss": 1e9}
    assert _loss_ticks(render(**run)) == calm


def _loss_ticks(page: str) -> list[str]:
    plot = page[page.index("<title>Loss over the rounds") :]
    return re.findall(r"<text[^>]*>([^<]*)</text>", plot[: plot.index("</svg>")])


def test_full_windows_and_short_machines_are_named() -> None:
    run = life_run(3)
    run["summary"]["test"]["full_windows"] = {"rmse": 14.5, "n": 93.0, "short_machines": [12, 31]}
    text = words(render(**run))
    assert "RMSE 14.50 on 93 windows" in text
    assert "12, 31." in text


def test_losses_on_machines_never_seen_are_said() -> None:
    run = failure_run(2)
    alone = run["summary"]["heldout"]["baselines"]["alone"]["per_site"]
    alone["houston"]["average_precision"] = 0.5
    text = words(render(**run))
    assert "never seen in training it helps 1 of 2 sites and hurts 1 (houston by 0.040)" in text


def test_the_same_run_gives_the_same_bytes() -> None:
    assert render(**failure_run(3)) == render(**failure_run(3))


def test_a_report_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_report(tmp_path, **RUNS["failure, 2 sites"])
    before = path.read_bytes()
    assert path == tmp_path / "report.html"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "replace", full)
    with pytest.raises(HistoryError, match="No space"):
        write_report(tmp_path, **RUNS["life, 10 sites"])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_report_is_written_in_the_locale_of_the_run(tmp_path: Path) -> None:
    run = RUNS["failure, 2 sites"]
    english = words(write_report(tmp_path, **run).read_text("utf-8"))
    german = {**run["manifest"], "config": {"report": {"locale": "de"}}}
    text = words(write_report(tmp_path, **run | {"manifest": german}).read_text("utf-8"))
    sentence = re.search(r"Mean average precision rises from 0\.\d+ to 0\.\d+", english)
    assert sentence and sentence[0].replace(".", ",") in text

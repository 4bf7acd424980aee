"""``fedpdm.data check``: what a stranger's data is, without training on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedpdm.data import __main__ as command
from fedpdm.runs import experiment, look, run
from tests import chromium
from tests.data.sources.own_files import Tables, two_sites


def check(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    """Run the command; return exit code, what it printed on one line, and the page."""
    page = folder / "page.html"
    code = command.main(
        ["check", "--config-dir", str(folder), "data=files", f"data.path={folder}",
         "site=gdansk,lyon", "--out", str(page), *more]
    )  # fmt: skip
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return code, " ".join((printed.out + printed.err).split()), page.read_text("utf-8")


def sentinel(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
    rows.loc[np.random.default_rng(1).random(len(rows)) < 0.05, "T1"] = -9999
    return rows, log


def fahrenheit(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
    return (rows.assign(T1=rows["T1"] * 1.8 + 32) if name == "lyon" else rows), log


def label(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
    fails = {m: own["timestamp"] for m, own in log.groupby("asset")}
    code = [
        int((((fails[m] - t).dt.days >= 0) & ((fails[m] - t).dt.days < 7)).any())
        for m, t in zip(rows["asset"], rows["timestamp"], strict=True)
    ]
    return rows.assign(T1=code, spare=1), log


def no_failure(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
    return rows, log.head(0) if name == "lyon" else log


ODD = {
    sentinel: ["lyon.csv: column 'T1' holds -9999", "missing: [-9999] in sites.lyon"],
    fahrenheit: ["lyon.csv: column 'T1' lies between", "sites.lyon.features.T1.unit"],
    label: ["'T1' alone separates", "take it out of 'features'", "not named in the yaml: spare"],
    no_failure: ["lyon: no failure in lyon_log.csv"],
}


@pytest.mark.parametrize("case", ODD, ids=lambda case: case.__name__)
def test_odd_data_is_said_on_the_screen_and_the_page(
    case: object, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    two_sites(tmp_path, case)  # type: ignore[arg-type]
    code, printed, page = check(tmp_path, capsys)
    assert code == 0
    for words in ODD[case]:  # type: ignore[index]
        assert words in printed
        assert words in page.replace("&#39;", "'")


def test_plain_data_is_understood_and_nothing_is_odd(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.Run, "execute", lambda *given, **more: pytest.fail("it trains"))
    two_sites(tmp_path)
    code, printed, page = check(tmp_path, capsys)
    assert (code, printed.count(" odd ")) == (0, 0)
    log = pd.read_csv(tmp_path / "lyon_log.csv")
    for words in (
        "3,000 of 10 machines, from 2024-01-01 00:00 to 2024-10-26 00:00",
        "a row every 1 days", f"failures: {len(log)}: training", "windows: training",
    ):  # fmt: skip
        assert words in printed
    assert "no odd things" in page
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".csv") == [
        "page.html", "site"
    ]  # fmt: skip


def test_a_site_that_cannot_be_read_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_sites(tmp_path)
    (tmp_path / "gdansk.csv").write_text("asset,timestamp,T1\nA,2024-01-01,<b>x</b>\n")
    code, printed, page = check(tmp_path, capsys)
    assert code == 2
    assert "gdansk cannot be used" in printed and "lyon understood" in printed
    assert "<b>x" not in page  # what stands in a file is text


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_fits_phones_and_screens_and_asks_for_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    two_sites(tmp_path, sentinel)
    page = check(tmp_path, capsys)[2]
    assert "http" not in page and "<script" not in page
    chromium.require()
    shown = chromium.fit(tmp_path / "page.html", width)
    assert (shown.console, shown.overflow) == ([], 0)


def test_gaps_and_machines_with_another_step_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def thinned(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        day = rows["timestamp"].dt.day_of_year
        slow = (rows["asset"] == "11M3") & (day % 2 == 1)
        return rows[~slow & ~((rows["asset"] == "11M5") & (day > 100) & (day < 200))], log

    two_sites(tmp_path, thinned)
    _, printed, _ = check(tmp_path, capsys)
    assert "to 2 ('11M3')" in printed
    assert "1 of more than 14 days, the longest 100 (machine '11M5')" in printed


def test_mistakes_in_the_words_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_sites(tmp_path)
    for words in (["site=lyon", "data=files"], ["data=files", "--out", "x/y/z.html"]):
        assert command.main(["check", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "word",
    ["rounds=abc", "rounds=0", "split=a\x1bb", "evaluate.threshold=xx",
     "strategy._target_=os.system", "sites={", "sites=1", "model=nothing"],
)  # fmt: skip
def test_options_that_a_run_refuses_are_refused(
    word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_sites(tmp_path)
    words = ["--config-dir", str(tmp_path), "data=files", f"data.path={tmp_path}", "site=lyon"]
    assert command.main(["check", *words, word, "--out", str(tmp_path / "page.html")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and "\x1b" not in said
    assert said.count("cannot be read") < 2


def test_an_error_that_is_no_mistake_of_the_words_keeps_its_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fedpdm.config import compose

    monkeypatch.setattr(compose, "check_headers", lambda *given: [][1])
    with pytest.raises(IndexError) as raised:
        compose.compose([])
    assert raised.value.__cause__ is None  # not itself: who walks the causes would never end


def test_ids_with_escapes_are_shown_not_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def coloured(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        day = rows["timestamp"].dt.day_of_year
        rows = rows[~(rows["asset"].str.endswith("M5") & (day > 100) & (day < 200))]
        rows, log = (frame.assign(asset="\x1b[31m" + frame["asset"]) for frame in (rows, log))
        return rows, log

    two_sites(tmp_path, coloured, csv={"sep": "\t"}, sep="\t")
    for words in (
        [],
        ["+sites.gdansk.where={asset: q}"],
    ):  # a gap's machine; an error's list of ids
        _, printed, _ = check(tmp_path, capsys, *words)
        assert "\\x1b[31m" in printed and "\x1b" not in printed


def test_a_run_begins_with_the_same_findings(tmp_path: Path) -> None:
    from fedpdm.config.compose import compose

    two_sites(tmp_path, sentinel)
    cfg = compose(["data=files", f"data.path={tmp_path}", "site=gdansk,lyon", "model=mlp",
                   "data.window=null"], tmp_path)  # fmt: skip
    said = look.look_at_data(experiment.build(cfg))
    assert sum("missing: [-9999]" in line for line in said) == 2

"""The live page: what it shows of a run, whom it answers, and that it only reads."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fedpdm import simulate
from fedpdm.errors import HistoryError
from fedpdm.history import History
from fedpdm.history.lock import RunLock
from fedpdm.storage import write_json
from fedpdm.watch.__main__ import main
from fedpdm.watch.page import Pages, chosen_metric, last_round, site_rows, standing, time_left
from fedpdm.watch.reading import Reader, Seen, find_run, owner_lives
from fedpdm.watch.server import PageServer
from tests import axe, chromium
from tests.history.example_history import commit, filled, record, weights
from tests.security.test_run_folders import HOSTILE, finished  # noqa: F401

ROOT = Path(__file__).parents[2]
DEAD = 2**22 + 1
"""No process has this number: it is above the kernel's greatest."""


@dataclass
class Answer:
    """What the server answered."""

    status: int
    headers: dict[str, str]
    text: str


def ask(url: str, method: str = "GET", path: str | None = None, **headers: str) -> Answer:
    """Ask the server of a page."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    with contextlib.closing(connection):
        given = {"Host": parts.netloc, **headers}
        connection.putrequest(method, path or parts.path, skip_host=True)
        for name, value in given.items():
            connection.putheader(name, value)
        connection.endheaders()
        found = connection.getresponse()
        return Answer(found.status, dict(found.getheaders()), found.read().decode())


@contextlib.contextmanager
def served(folder: Path) -> Iterator[PageServer]:
    """Serve a run folder in a thread."""
    with PageServer(Reader(folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def headline(text: str) -> str:
    found = re.search(r"<h1>(.*?)</h1>", text)
    assert found, text[:500]
    return found[1]


def begin(folder: Path, rounds: int, pid: int | None = None, engine: str = "serial") -> None:
    """Write what a run writes before its first round."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lock").write_text(f"{os.getpid() if pid is None else pid}\n")
    sites = dict.fromkeys(("detroit", "houston", "seattle"), "0")
    write_json(folder / "manifest.json", {
        "schema": 1, "config": {"rounds": rounds}, "data": {"sites": sites},
        "engine": {"name": engine, "settings": {}},
    })  # fmt: skip


def content_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# A run as it goes ---------------------------------------------------------------------------


def test_a_finished_run_leads_to_its_report_and_nothing_is_written(finished: Path) -> None:  # noqa: F811
    run = finished / "run"
    before = content_of(run)
    with served(run) as server, RunLock(run):  # a run may begin while it is watched
        lock = (run / "lock").read_bytes()
        page = ask(server.url)
        report = ask(server.url, path=f"{server.path}report.html")
        head = ask(server.url, "HEAD")
    assert page.status == report.status == head.status == 200
    assert headline(page.text) == "Finished: 2 rounds"
    assert f'href="{server.path}report.html"' in page.text
    assert report.text == (run / "report.html").read_text("utf-8")
    assert head.text == "" and head.headers["Content-Length"] != "0"
    assert "detroit" in page.text and "houston" in page.text
    after = content_of(run)
    assert {**after, "lock": after["lock"][0]} == {**before, "lock": lock}


def test_a_run_is_watched_while_it_goes_on(finished: Path, tmp_path: Path) -> None:  # noqa: F811
    shutil.copytree(finished / "run", tmp_path / "run")
    seen, over = [], threading.Event()
    with served(tmp_path / "run") as server:

        def look() -> None:
            while not over.is_set():
                seen.append(headline(ask(server.url).text))
                time.sleep(0.02)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            assert simulate.main([f"resume={tmp_path / 'run'}", "rounds=5"]) == 0
        finally:
            over.set()
            thread.join()
        assert headline(ask(server.url).text) == "Finished: 5 rounds"
    told = list(dict.fromkeys(seen))
    assert told[0] == "Finished: 2 rounds"
    assert len(told) > 2
    allowed = r"Finished: [25] rounds|[2345] of 5 rounds done|All 5 rounds done"
    assert all(re.fullmatch(allowed, text) for text in told), told


def test_from_the_first_file_to_a_deleted_folder(tmp_path: Path) -> None:
    run, said = tmp_path / "run", list[str]()
    maker = threading.Timer(0.3, begin, (run, 4))
    maker.start()
    assert find_run(run, 60, said.append) == run
    maker.join()
    assert len(said) == 1 and "60 s" in said[0]
    with served(run) as server:
        assert headline(ask(server.url).text) == "Getting ready"
        with filled(run, 1) as history:
            history.sealed.seal_first()
            page = ask(server.url).text
            assert headline(page) == "1 of 4 rounds done"
            assert "known after the second round" in page
            commit(history, 2)
            page = ask(server.url).text
            assert headline(page) == "2 of 4 rounds done"
            assert "0.2 s a round (median)" in page
            history.rollback(1, by="person", reason="too <b>bold</b>")
            page = ask(server.url).text
            assert headline(page) == "1 of 4 rounds done"
            assert "(taken back)" in page and "too &lt;b&gt;bold" in page
            for number in (2, 3, 4):
                commit(history, number)
        assert headline(ask(server.url).text) == "All 4 rounds done"
        shutil.rmtree(run)
        gone = ask(server.url)
        assert gone.status == 200 and "is gone: it was deleted" in gone.text
        begin(run, 9)
        filled(run, 5).close()  # another run in its place
        assert headline(ask(server.url).text) == "5 of 9 rounds done"


def test_a_run_that_was_killed_says_how_to_continue(tmp_path: Path) -> None:
    for engine, words in (("serial", "fedpdm.simulate resume="), ("flower", "flwr run .")):
        run = tmp_path / engine
        begin(run, 4, DEAD, engine)
        filled(run, 2).close()
        seen = Reader(run).look()
        assert seen.at_work is False
        assert standing(seen)[0] == "Stopped after 2 of 4 rounds"
        assert f"{words}" in standing(seen)[1] and str(run) in standing(seen)[1]
    assert owner_lives(tmp_path) is None
    (run / "lock").write_text("-1\n")
    assert owner_lives(run) is None


def test_a_history_that_was_cut_off_is_left_for_the_resume(tmp_path: Path) -> None:
    filled(tmp_path / "run", 3).close()
    begin(tmp_path / "cut", 4)
    connection = sqlite3.connect(tmp_path / "run" / "history.sqlite", isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE round SET record = record || hex(zeroblob(100000))")
    for name in ("history.sqlite", "history.sqlite-journal"):  # as kill -9 leaves them
        shutil.copy(tmp_path / "run" / name, tmp_path / "cut" / name)
    connection.close()
    before = content_of(tmp_path / "cut")
    with pytest.raises(HistoryError, match="resume="):
        Reader(tmp_path / "cut").look()
    assert content_of(tmp_path / "cut") == before
    with History.open(tmp_path / "cut") as history:  # a resume puts it right
        head = history.head()
    assert head is not None and head.round == 3
    assert Reader(tmp_path / "cut").look().done == 3


def test_the_first_stage_is_shown_until_the_run_itself_begins(tmp_path: Path) -> None:
    begin(tmp_path / "pretraining", 3)
    filled(tmp_path / "pretraining", 1).close()
    reader = Reader(find_run(tmp_path, 0, print))
    assert (reader.look().folder.name, reader.look().done) == ("pretraining", 1)
    begin(tmp_path, 5)
    filled(tmp_path, 2).close()
    assert (reader.look().folder, reader.look().done) == (tmp_path, 2)


def test_the_newest_of_several_runs(tmp_path: Path) -> None:
    for age, name in enumerate(("b", "a", "c/0")):
        begin(tmp_path / name, 3)
        os.utime(tmp_path / name / "lock", (100 - age, 100 - age))
    assert find_run(tmp_path, 0, print) == tmp_path / "b"


def test_sites_are_told_apart_by_what_became_of_them() -> None:
    lost = {
        "houston": {"kind": "refused", "site": "houston", "message": "NaN"},
        "again": {"kind": "site-failed", "site": "seattle", "message": "could not evaluate"},
        "seattle": {"kind": "site-failed", "site": "seattle", "message": "no disk"},
    }
    sham = {"kind": "plant-refused", "site": "detroit", "message": "node 7 says it is detroit"}
    gone = {"kind": "disconnected", "site": "boston", "message": "boston has disconnected"}
    back = {"kind": "connected", "site": "detroit", "message": "detroit is connected again"}
    one = record(2, sites={"detroit": {"examples": 3, "validation": {"average_precision": 0.5}}},
                 events=tuple(lost.values()))  # fmt: skip
    manifest = {"data": {"sites": dict.fromkeys(("boston", "detroit", "dallas"), "0")}}
    seen = Seen(Path("run"), manifest, (record(0), record(1), one),
                ({**gone, "site": "detroit"}, gone, back, sham, *lost.values()))  # fmt: skip
    rows = {row.name: row for row in site_rows(seen, chosen_metric(seen))}
    assert {name: row.state for name, row in rows.items()} == {
        "boston": "disconnected",
        "detroit": "trained in round 2",
        "dallas": "not asked yet",
        "houston": "update refused in round 2",
        "seattle": "site failed in round 2",
    }
    assert [name for name, row in rows.items() if not row.online] == ["boston"]
    said = last_round(seen)
    assert said == "1 of 3 trained in round 2, update refused: 1, site failed: 1"
    assert rows["detroit"].metric == 0.5 and rows["detroit"].rounds == 2


def test_the_time_left_counts_down_and_never_below_the_rounds_to_come() -> None:
    start = datetime.fromisoformat(record(0).started)
    rounds = tuple(record(n, seconds=s) for n, s in ((0, 0.0), (1, 90.0), (2, 10.0)))
    seen = Seen(Path("run"), {"config": {"rounds": 6}}, rounds)
    assert time_left(seen, start + timedelta(seconds=10))[0] == "40 s"
    assert time_left(seen, start + timedelta(seconds=14))[0] == "36 s"
    assert time_left(seen, start + timedelta(seconds=900))[0] == "30 s"
    early = Seen(Path("run"), {"config": {"rounds": 6}}, rounds[:2])
    assert "second round" in time_left(early, start)[1]


# Whom it answers ----------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path: Path) -> Iterator[PageServer]:
    begin(tmp_path / "run", 4)
    filled(tmp_path / "run", 2).close()
    with served(tmp_path / "run") as server:
        yield server


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "",
                                  "localhost@evil.example", "[::1]:80"])  # fmt: skip
def test_another_host_is_refused(page: PageServer, host: str) -> None:
    answer = ask(page.url, Host=host)
    assert answer.status == 403 and "detroit" not in answer.text
    assert ask(page.url, Host="localhost:9").status == 200  # of a tunnel


@pytest.mark.parametrize("path", ["/", "/report.html", "/x/", "/../", "//", "/%00/"])
def test_without_the_token_nothing_is_shown(page: PageServer, path: str) -> None:
    answer = ask(page.url, path=path)
    assert answer.status == 403 and "detroit" not in answer.text
    for wrong in (page.path[:-2] + "/", page.path.upper(), f"http://{page.url}"):
        assert ask(page.url, path=wrong).status == 403
    assert ask(page.url, path=f"{page.path}../lock").status == 404
    assert ask(page.url, path=f"{page.path}report.html").status == 404  # not finished


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "ODD"])
def test_only_reading_methods(page: PageServer, method: str) -> None:
    answer = ask(page.url, method)
    assert answer.status == 405 and answer.headers["Allow"] == "GET, HEAD"


def test_every_answer_forbids_what_a_page_does_not_need(page: PageServer) -> None:
    first, second = ask(page.url), ask(page.url)
    for answer in (first, ask(page.url, path="/"), ask(page.url, "POST")):
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
    nonces = [re.search(r"script-src 'nonce-([\w-]{20,})'$", answer.headers[
        "Content-Security-Policy"]) for answer in (first, second)]  # fmt: skip
    assert nonces[0] and nonces[1] and nonces[0][1] != nonces[1][1]
    assert f'<script nonce="{nonces[0][1]}">' in first.text
    assert "<noscript><meta http-equiv" in first.text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", first.text)


def test_it_listens_on_this_machine_only(page: PageServer) -> None:
    assert page.server_address[0] == "127.0.0.1"
    assert len(page.token) >= 32


# A stranger's folder ------------------------------------------------------------------------


def test_names_are_text(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    run = tmp_path / evil.replace("/", "∕")
    begin(run, 3)
    with History.create(run) as history:
        history.commit(record(0), weights(0))
        for number in (1, 2):
            sites = {evil: {"examples": 1, "validation": {evil: 0.5}}}
            event = {"kind": evil, "site": evil, "round": number, "message": evil}
            history.commit(
                record(number, sampled=(evil,), sites=sites, metrics={evil: 0.5 / number},
                       events=(event,)),
                weights(number),
            )  # fmt: skip
    with served(run) as server:
        text = ask(server.url).text
    assert headline(text) == "2 of 3 rounds done"
    assert "<script>alert" not in text and "<img" not in text
    assert text.count("<script") == 1
    assert text.count("&lt;script&gt;alert") > 5


OF_A_LOOK = [
    name for name in HOSTILE
    if re.search(r"record|event|manifest|history|journal|trigger|view|attempt|retry|outside"
                 r"|above|ahead|summary|time without|split of lists", name)
]  # fmt: skip


@pytest.mark.parametrize("name", OF_A_LOOK)
def test_a_hostile_folder_is_shown_or_refused_in_a_sentence(
    finished: Path,  # noqa: F811
    name: str,
    tmp_path: Path,
) -> None:
    shutil.copytree(finished, tmp_path / "there", symlinks=True)
    run = tmp_path / "there" / "run"
    HOSTILE[name](run)
    before = sorted(path for path in tmp_path.rglob("*"))
    with contextlib.closing(Reader(run)) as reader:
        try:
            text = Pages().render("run", reader.look(), "/x/", "n")
        except HistoryError as error:
            assert "\n" not in str(error) and len(str(error)) < 600
        else:
            assert "<h1>" in text and text.count("<script") == 1
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_what_no_run_writes_does_not_end_the_server(tmp_path: Path) -> None:
    begin(tmp_path / "run", 3)
    with filled(tmp_path / "run", 0) as history:
        odd = record(
            1, metrics={"average_precision": 10**400}, bytes_up=10**400, started="yesterday"
        )
        history.commit(odd, weights(1))
    with served(tmp_path / "run") as server:
        answer = ask(server.url)
        assert answer.status == 200 and "Traceback" not in answer.text
        assert ask(server.url, path=f"{server.path}nothing").status == 404


# The command --------------------------------------------------------------------------------


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    begin(tmp_path / "run", 2)
    begin(tmp_path / "odd", 2)
    (tmp_path / "odd" / "manifest.json").write_text("[]")
    with PageServer(Reader(tmp_path / "run")) as other:
        for words in (
            [str(tmp_path / "notes")],
            [str(tmp_path / "notes" / "a.txt")],
            [str(tmp_path / "nowhere"), "--wait", "0.1"],
            [str(tmp_path / "odd")],
            [str(tmp_path / "run"), "--port", str(other.server_port)],
            [str(tmp_path / "run"), "--port", "70000"],
        ):
            assert main(words) == 2
            told = capsys.readouterr()
            assert told.err.startswith("error: ") and told.err.count("\n") == 1
            assert "http" not in told.out
    assert not (tmp_path / "nowhere").exists()


def test_the_command_prints_its_address_and_ends_with_control_c(tmp_path: Path) -> None:
    begin(tmp_path / "run", 4)
    filled(tmp_path / "run", 1).close()
    process = subprocess.Popen(
        [sys.executable, "-m", "fedpdm.watch", str(tmp_path)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline() for _ in range(2)]
        assert headline(ask(lines[1].strip()).text) == "1 of 4 rounds done"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and err == "" and out.strip() == ""


# In a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, finished: Path) -> dict[str, Path]:  # noqa: F811
    """Pages as files: of a finished run, of one with events and long names, of one that is gone."""
    chromium.require()
    place = tmp_path_factory.mktemp("pages")
    begin(place / "run", 4)
    long = "a-site-whose-name-is-" + "very-" * 12 + "long"
    with filled(place / "run", 1) as history:
        event = {"kind": "refused", "site": long, "round": 2, "message": "x" * 300}
        history.commit(record(2, sampled=(long,), events=(event,)), weights(2))
        history.rollback(1, by="monitor", reason="bad")
    found = {}
    for name, run in (("finished", finished / "run"), ("events", place / "run")):
        with served(run) as server:
            found[name] = place / f"{name}.html"
            found[name].write_text(ask(server.url).text, encoding="utf-8")
    shutil.move(place / "run", place / "moved")
    with served(place / "run") as server:
        found["gone"] = place / "gone.html"
        found["gone"].write_text(ask(server.url).text, encoding="utf-8")
    return found


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("name", ["finished", "events", "gone"])
def test_it_fits_phones_and_screens_and_breaks_no_rule_of_accessibility(
    saved: dict[str, Path], name: str, width: int
) -> None:
    assert axe.violations(saved[name].read_text("utf-8"), width) == []


def test_the_page_reads_again_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chromium.require()
    begin(tmp_path / "run", 9)
    history = filled(tmp_path / "run", 1)
    with history, served(tmp_path / "run") as server:
        look = server.reader.look

        def grown() -> Seen:
            seen = look()
            if seen.done < 4:
                commit(history, seen.done + 1)
            return seen

        monkeypatch.setattr(server.reader, "look", grown)
        shown = chromium.dump_dom(server.url, later=30_000)
    assert headline(shown.dom) == "4 of 9 rounds done"
    assert shown.console == []
    assert re.search(r'id="ended"[^>]* hidden', shown.dom)

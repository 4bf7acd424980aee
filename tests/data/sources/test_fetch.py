"""Fetching from a server on this machine that cuts, forgets, changes and lies."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fedpdm.data.__main__ import main
from fedpdm.data.sources import fetch as fetching
from fedpdm.data.sources.fetch import fetch
from fedpdm.data.sources.published import KNOWN, KnownFile
from fedpdm.errors import ConfigError, DataError

CONTENT = {
    "set/first.csv": b"a,b\n" + b"".join(b"%d,%d\n" % (k, k * k) for k in range(2000)),
    "set/second.txt": b"1 2 3\n4 5 6\n",
}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small files of our own stand for AI4I."""
    files = tuple(
        KnownFile(path, 2, hashlib.sha256(content).hexdigest()) for path, content in CONTENT.items()
    )
    monkeypatch.setitem(KNOWN, "ai4i", files)


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # stored, so that cuts fall inside members
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


PLAIN = zipped({"readme.txt": b"hello", **CONTENT})


class Server:
    """A file server; tests set what it holds and how it misbehaves."""

    def __init__(self) -> None:
        self.body = PLAIN
        self.etag: str | None = '"one"'
        self.ranges = True  # whether it understands them
        self.cut: list[int] = []  # bytes after which each next answer breaks off
        self.status = 200
        self.asked: list[str | None] = []  # Range header of each request
        holder = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                holder.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/data.zip"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append(wanted)
        if self.status != 200:
            request.send_error(self.status)
            return
        condition = request.headers.get("If-Range")
        ranged = self.ranges and wanted is not None and condition in (None, self.etag)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if ranged and wanted else 0
        if start >= len(self.body):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.body)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if ranged else 200)
        if ranged:
            request.send_header(
                "Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}"
            )
        if self.etag:
            request.send_header("ETag", self.etag)
        request.send_header("Content-Length", str(len(self.body) - start))
        request.end_headers()
        length = self.cut.pop(0) if self.cut else len(self.body)
        request.wfile.write(self.body[start : start + length])
        request.wfile.flush()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def quiet(_: str) -> None:
    pass


def get(folder: Path, server: Server) -> list[Path]:
    return fetch("ai4i", folder, server.url, quiet)


def require_placed(folder: Path) -> None:
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == set(CONTENT), "only the known files may be left, and no scraps"
    assert all((folder / path).read_bytes() == content for path, content in CONTENT.items())


def require_nothing_placed(folder: Path) -> None:
    visible = [p for p in folder.rglob("*") if not p.name.startswith(".")]
    assert not visible, "no file may appear under its name unless all are right"


def test_files_are_placed_by_name_and_sum(tmp_path: Path, server: Server) -> None:
    assert get(tmp_path, server) == [tmp_path / path for path in CONTENT]
    require_placed(tmp_path)


def test_archive_within_an_archive_is_opened(tmp_path: Path, server: Server) -> None:
    first, second = CONTENT
    inner = zipped({f"deep/er/{second}": CONTENT[second]})
    middle = zipped({"Inner.ZIP": inner})
    server.body = zipped({"6. A Set/middle.zip": middle, f"x/{first}": CONTENT[first]})
    get(tmp_path, server)
    require_placed(tmp_path)


def test_nothing_is_downloaded_again_when_all_is_there(tmp_path: Path, server: Server) -> None:
    get(tmp_path, server)
    get(tmp_path, server)
    assert len(server.asked) == 1


def test_damaged_file_that_is_there_is_replaced(tmp_path: Path, server: Server) -> None:
    get(tmp_path, server)
    (tmp_path / "set/second.txt").write_text("scribble")
    get(tmp_path, server)
    require_placed(tmp_path)


def test_broken_transfer_goes_on_where_it_stopped_within_one_call(
    tmp_path: Path, server: Server
) -> None:
    server.cut = [5000, 4000]
    get(tmp_path, server)
    assert server.asked == [None, "bytes=5000-", "bytes=9000-"]
    require_placed(tmp_path)


def test_next_call_goes_on_where_the_last_one_gave_up(tmp_path: Path, server: Server) -> None:
    server.cut = [5000, 0, 0]
    with pytest.raises(DataError, match="broke off.*same command again"):
        get(tmp_path, server)
    require_nothing_placed(tmp_path)
    server.cut.clear()
    server.asked.clear()
    get(tmp_path, server)
    assert server.asked == ["bytes=5000-"]
    require_placed(tmp_path)


@pytest.mark.parametrize("etag", ['"one"', None, 'W/"weak"'], ids=["strong", "none", "weak"])
def test_resuming_with_and_without_a_mark_of_the_version(
    tmp_path: Path, server: Server, etag: str | None
) -> None:
    server.etag, server.cut = etag, [5000]
    get(tmp_path, server)
    require_placed(tmp_path)


def test_server_without_ranges_sends_everything_anew(tmp_path: Path, server: Server) -> None:
    server.ranges, server.cut = False, [5000]
    get(tmp_path, server)
    require_placed(tmp_path)


def test_part_of_an_older_version_is_not_mixed_with_the_newer_one(
    tmp_path: Path, server: Server
) -> None:
    server.body, server.cut = b"x" * 9000, [5000, 0, 0]
    with pytest.raises(DataError):
        get(tmp_path, server)
    server.body, server.etag = PLAIN, '"two"'
    server.cut.clear()
    get(tmp_path, server)
    require_placed(tmp_path)


@pytest.mark.parametrize("surplus", [b"", b"more than the server has"])
def test_part_that_holds_everything_or_too_much(
    tmp_path: Path, server: Server, surplus: bytes
) -> None:
    (tmp_path / ".ai4i.zip.part").write_bytes(PLAIN + surplus)
    get(tmp_path, server)
    assert len(server.asked) == (2 if surplus else 1)
    require_placed(tmp_path)


def test_wrong_sum_places_nothing_and_names_the_file(tmp_path: Path, server: Server) -> None:
    first, second = CONTENT
    server.body = zipped({first: CONTENT[first], second: b"1 2 3\n4 5 7\n"})
    with pytest.raises(DataError, match=r"second\.txt: sha256 [0-9a-f]{64}, not .*nothing was pl"):
        get(tmp_path, server)
    require_nothing_placed(tmp_path)
    server.body = PLAIN
    get(tmp_path, server)
    assert server.asked == [None, None], "a bad archive must not be gone on with"


def test_right_file_is_found_beside_a_wrong_one_of_the_same_name(
    tmp_path: Path, server: Server
) -> None:
    server.body = zipped({"__MACOSX/second.txt": b"junk", **CONTENT})
    get(tmp_path, server)
    require_placed(tmp_path)


def test_missing_file_is_named(tmp_path: Path, server: Server) -> None:
    server.body = zipped({"set/first.csv": CONTENT["set/first.csv"]})
    with pytest.raises(DataError, match=r"second\.txt: no such file"):
        get(tmp_path, server)
    require_nothing_placed(tmp_path)


@pytest.mark.parametrize(
    "body",
    [b"<html>please log in</html>", PLAIN[:-30], PLAIN.replace(b"1999,", b"1998,")],
    ids=["a web page", "no directory", "a bad checksum"],
)
def test_unsound_archive_is_refused_and_forgotten(
    tmp_path: Path, server: Server, body: bytes
) -> None:
    server.body = body
    with pytest.raises(DataError, match=r"nothing was placed"):
        get(tmp_path, server)
    require_nothing_placed(tmp_path)
    assert not list(tmp_path.glob(".*")), "a bad part must not be gone on with"


@pytest.mark.parametrize("prefix", ["../../", "/tmp/", "..\\..\\", "set/../../"])
def test_archive_cannot_write_outside_the_folder(
    tmp_path: Path, server: Server, prefix: str
) -> None:
    folder = tmp_path / "a" / "b"
    evil = {f"{prefix}evil.sh": b"rm", f"{prefix}second.txt": CONTENT["set/second.txt"]}
    server.body = zipped(evil | {"first.csv": CONTENT["set/first.csv"]})
    fetch("ai4i", folder, server.url, quiet)
    require_placed(folder)
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == {folder / p for p in CONTENT}


def test_archive_nested_without_end_is_not_followed(tmp_path: Path, server: Server) -> None:
    body = PLAIN
    for _ in range(fetching.DEEPEST + 1):
        body = zipped({"again.zip": body})
    server.body = body
    with pytest.raises(DataError, match="no such file"):
        get(tmp_path, server)


def test_member_of_absurd_size_is_not_unpacked(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "LARGEST", 1000)
    with pytest.raises(DataError, match=r"first\.csv: no such file"):
        get(tmp_path, server)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_refusal_of_the_server_is_told(tmp_path: Path, server: Server, status: int) -> None:
    server.status = status
    with pytest.raises(DataError, match=f"answered {status} .*--url.*by hand.*set/first.csv"):
        get(tmp_path, server)


def test_no_connection_exits_2_with_url_and_place(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.http.server_close()
    assert main(["fetch", "ai4i", "--to", str(tmp_path), "--url", server.url]) == 2
    message = capsys.readouterr().err
    assert server.url in message and f"by hand into {tmp_path}" in message
    assert "set/first.csv" in message and "Traceback" not in message


def test_folder_that_cannot_be_written_exits_2(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "below"
    assert main(["fetch", "ai4i", "--out", str(folder), "--url", server.url]) == 2
    assert f"{folder} cannot be written" in capsys.readouterr().err


def test_other_kinds_of_url_and_unknown_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must begin with https://"):
        fetch("ai4i", tmp_path, "ftp://127.0.0.1/x.zip", quiet)
    with pytest.raises(ConfigError, match="choose ai4i, cmapss"):
        fetch("azure", tmp_path, None, quiet)


def test_archive_on_disk_will_do(tmp_path: Path) -> None:
    archive = tmp_path / "by hand.zip"
    archive.write_bytes(PLAIN)
    fetch("ai4i", tmp_path / "data", archive.as_uri(), quiet)
    require_placed(tmp_path / "data")


def test_check_lists_files_with_rows_and_tells_good_from_bad(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["check", "ai4i", "--from", str(tmp_path)]
    assert main(command) == 2
    assert capsys.readouterr().out.count("missing") == 2
    assert main(["fetch", "ai4i", "--to", str(tmp_path), "--url", server.url]) == 0
    capsys.readouterr()
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split() for line in lines] == [
        ["set/first.csv", "2000", "ok"], ["set/second.txt", "2", "ok"],
    ]  # fmt: skip
    (tmp_path / "set/second.txt").write_bytes(b"1 2 3\n")
    assert main(command) == 2
    assert "differs, should have 2 rows" in capsys.readouterr().out


def test_real_data_passes_the_check(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEDPDM_DATA", str(data_folder))
    assert main(["check", "cmapss"]) == 0
    assert capsys.readouterr().out.count("  ok\n") == 12

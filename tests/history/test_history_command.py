"""``python -m fedpdm.history``: what a person reads and types."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from fedpdm.history import History
from fedpdm.history.__main__ import main
from fedpdm.history.lock import RunLock
from tests.history.example_history import (
    commit,
    filled,
    flip,
    line,
    record,
    same,
    weights,
    without_syncing,
)


@pytest.fixture(autouse=True)
def fast_disk():
    with without_syncing():
        yield


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Rounds 0 to 4; houston was refused in round 2, attempt 0 of round 4 was taken back."""
    folder = tmp_path / "20260101-abcd"
    with filled(folder, 1) as history:
        refused = {"kind": "refused", "round": 2, "site": "houston", "message": "update has NaN"}
        history.commit(record(2, events=(refused,)), weights(2))
        commit(history, 3)
        bad = (record(4), weights(4), None, {})
        history.rollback(3, by="monitor", reason="loss is NaN", exclude=["houston"], undone=bad)
        commit(history, 4)
        history.protect(3)
    return folder


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    found = capsys.readouterr()
    assert found.err == ""
    return found.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    found = capsys.readouterr()
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1, "one sentence"
    return found.err


def test_list_shows_every_round_and_marks_head_best_and_undone(run, capsys):
    lines = said(capsys, "list", run).splitlines()
    assert "20260101-abcd: 6 rounds" in lines[0]
    assert "average_precision" in lines[2]
    rows = {(cells[0], cells[1]): text for text in lines if (cells := text.split())[1:]}
    assert "start" in rows["0", "0"]
    assert "refused houston" in rows["2", "0"]
    assert rows["3", "0"].rstrip().endswith("best")
    assert rows["4", "0"].rstrip().endswith("undone")
    assert rows["4", "1"].rstrip().endswith("head")
    for cell in ("0.25", "0.03", "2.00"):
        assert cell in rows["3", "0"].split()
    (text,) = [text for text in lines if "rollback" in text]
    assert text == (
        "round 4: rollback (monitor): loss is NaN; back to round 3, repeated without houston"
    )


def test_show_has_sites_events_checksums_and_norms(run, capsys):
    text = said(capsys, "show", run, 2)
    assert "round 2, attempt 0" in text
    assert "refused: update has NaN" in text
    for site in ("detroit", "houston", "seattle"):
        (found,) = [row.split() for row in text.splitlines() if row.split()[:1] == [site]]
        assert found == [site, "12", "0.5", "–"]
    with History.open(run) as history:
        assert history.row(2).weights_sha256 in text
    assert "files: intact" in text
    assert "lstm.weight" in text
    assert "8 × 4" in text
    assert "int64" in text


def test_show_of_an_undone_round(run, capsys):
    assert "attempt 0 (undone)" in said(capsys, "show", run, 4, "--attempt", 0)
    assert "(undone)" not in said(capsys, "show", run, 4)


def test_show_says_what_is_damaged(run, capsys):
    flip(run / "rounds" / "000003.safetensors")
    text = refused(capsys, "show", run, 3)
    assert "000003.safetensors is damaged" in text
    assert f"resume={run}" in text


def test_show_of_a_round_whose_weights_were_not_kept(tmp_path, capsys):
    filled(tmp_path / "run", 5, keep=2).close()
    assert "not kept (history.keep)" in said(capsys, "show", tmp_path / "run", 1)
    text = refused(capsys, "export", tmp_path / "run", 1, "--out", tmp_path / "x.safetensors")
    assert "kept are: 4–5" in text


def test_rollback_by_hand(run, capsys):
    text = said(capsys, "rollback", run, 2, "--exclude", "houston", "seattle", "--reason", "drift")
    assert f"python -m fedpdm.simulate resume={run}" in text
    with History.open(run) as history:
        assert line(history) == [(0, 0), (1, 0), (2, 0)]
        assert history.attempt == 2
        assert history.excluded(3) == {"houston", "seattle"}
        event = history.events()[-1]
        assert (event["by"], event["message"]) == (
            "person", "drift; back to round 2, repeated without houston, seattle"
        )  # fmt: skip


def test_what_told_of_undone_rounds_is_set_aside(run, capsys):
    (run / "promotion").mkdir()
    for name in ("drift.safetensors", "promotion/decision.md"):
        (run / name).write_text("of round 4")
    assert "promotion" in said(capsys, "rollback", run, 2)
    assert not (run / "promotion").exists() and not (run / "drift.safetensors").exists()
    assert (run / "rounds" / "undone" / "1-promotion" / "decision.md").exists()


def test_rollback_waits_for_nobody(run, capsys):
    with RunLock(run):
        assert f"another run (pid {os.getpid()}) is working on" in refused(
            capsys, "rollback", run, 2
        )
    with History.open(run) as history:
        assert history.attempt == 1


def test_rollback_knows_the_sites(run, capsys):
    text = refused(capsys, "rollback", run, 2, "--exclude", "huston")
    assert "--exclude huston: no such site" in text
    assert "detroit, houston, seattle" in text
    text = refused(capsys, "rollback", run, 2, "--exclude", "detroit", "houston", "seattle")
    assert "nobody would train" in text
    with History.open(run) as history:
        assert history.attempt == 1


def test_export_copies_the_weights(run, tmp_path, capsys):
    out = tmp_path / "weights.safetensors"
    text = said(capsys, "export", run, 3, "--out", out)
    assert same(load_file(out), weights(3))
    assert str(out) in text
    assert "exists" in refused(capsys, "export", run, 4, "--out", out)
    assert same(load_file(out), weights(3))
    said(capsys, "export", run, 4, "--out", out, "--force")
    assert same(load_file(out), weights(4, 1))
    said(capsys, "export", run, 4, "--attempt", 0, "--out", out, "--force")
    assert same(load_file(out), weights(4, 0))


def test_export_never_copies_damage(run, tmp_path, capsys):
    flip(run / "rounds" / "000003.safetensors")
    out = tmp_path / "weights.safetensors"
    assert "is damaged" in refused(capsys, "export", run, 3, "--out", out)
    assert not out.exists()


def test_export_refuses_odd_places(run, tmp_path, capsys):
    own = run / "rounds" / "000003.safetensors"
    assert "own file" in refused(capsys, "export", run, 3, "--out", own, "--force")
    assert "must end in .safetensors" in refused(capsys, "export", run, 3, "--out", tmp_path / "x")
    nowhere = tmp_path / "missing" / "x.safetensors"
    assert "cannot be written" in refused(capsys, "export", run, 3, "--out", nowhere)


@pytest.mark.parametrize("command", ["show", "rollback", "export"])
def test_a_round_that_was_not_is_answered_with_those_there_are(run, tmp_path, capsys, command):
    more = ["--out", tmp_path / "x.safetensors"] if command == "export" else []
    text = refused(capsys, command, run, 9, *more)
    assert "no finished round 9; there are: 0–4" in text


@pytest.mark.parametrize("command", [["list"], ["show", "1"], ["rollback", "1"]])
def test_a_folder_that_is_no_run(tmp_path, capsys, command):
    name, *more = command
    assert "is not the folder of a run" in refused(capsys, name, tmp_path, *more)
    assert not list(tmp_path.iterdir()), "nothing is left there, no lock either"
    assert "is not the folder of a run" in refused(capsys, name, tmp_path / "none", *more)


def test_a_run_that_has_just_begun(tmp_path, capsys):
    History.create(tmp_path / "run").close()
    for command in (["list"], ["show", "0"], ["rollback", "0"]):
        name, *more = command
        text = refused(capsys, name, tmp_path / "run", *more)
        assert "has no finished round yet" in text


def test_names_are_not_read_as_markup(tmp_path, capsys):
    site, tensor = "[red]site[/red]", "[bold]w[/]"
    with History.create(tmp_path / "run") as history:
        event = {"kind": "site-failed", "site": site, "message": "[/] odd"}
        sites = {site: {"examples": 1}}
        history.commit(record(0, events=(event,), sites=sites), {tensor: weights(0)["lstm.weight"]})
    text = said(capsys, "show", tmp_path / "run", 0)
    for part in (site, tensor, "[/] odd"):
        assert part in text
    assert site in said(capsys, "list", tmp_path / "run")


def test_as_a_program(run):
    def start(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fedpdm.history", *map(str, arguments)],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    assert "6 rounds" in start("list", run).stdout
    wrong = start("show", run, 17)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: ")
    assert start().returncode == 2
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "fedpdm.history", "list", str(run)],
        capture_output=True, text=True, timeout=120,
    ).stderr  # fmt: skip
    assert "sqlite3" in loaded
    for slow in ("torch", "flwr", "ray", "sklearn"):
        assert f" {slow}\n" not in loaded, "a look at a run should not load what trains it"

"""Whatever ends a process, and whenever: the history is the old one or the new one."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedpdm.errors import HistoryError
from fedpdm.history import History
from fedpdm.history.__main__ import main
from fedpdm.history.index import Index
from tests.history.example_history import (
    assert_sound,
    commit,
    files,
    filled,
    flip,
    in_child,
    line,
    record,
    state,
    undone,
    weights,
    without_syncing,
)

CRASHED = 9


# One change of each kind --------------------------------------------------------------


def commit_next(history: History) -> None:
    commit(history, 4)


def commit_and_prune(history: History) -> None:
    commit(history, 4)  # in a history that keeps two rounds


def roll_back(history: History) -> None:
    history.rollback(1, by="person", reason="drift", exclude=["houston"])


def refuse(history: History) -> None:
    bad = (record(4), weights(4), state(4), {})
    history.rollback(3, by="monitor", reason="NaN", exclude=["houston"], undone=bad)


def recover(history: History) -> None:
    history.recover()


def note(history: History) -> None:
    history.note({"kind": "warning", "message": "noted"})


CHANGES = [commit_next, commit_and_prune, roll_back, refuse, recover, note]
AFTER = {
    commit_next: ([(n, 0) for n in range(5)], [], 0),
    commit_and_prune: ([(n, 0) for n in range(5)], [], 0),
    roll_back: ([(0, 0), (1, 0)], [(2, 0), (3, 0)], 1),
    refuse: ([(n, 0) for n in range(4)], [(4, 0)], 1),
    recover: ([(0, 0), (1, 0), (2, 0)], [(3, 0)], 0),
    note: ([(n, 0) for n in range(4)], [], 0),
}
BEFORE = ([(n, 0) for n in range(4)], [], 0)


def prepared(folder: Path, change: Callable[[History], None]) -> None:
    with filled(folder, 3) as history:
        if change is commit_and_prune:
            with history._index.transaction():
                history._index.set(keep=2)
    if change is recover:
        flip(folder / "rounds" / "000003.safetensors")


def seen(history: History) -> tuple[Any, Any, int]:
    return line(history), undone(history), history.attempt


def check(folder: Path, change: Callable[[History], None], done: bool | None) -> bool:
    """Check that a history is as before the change or as after it; say which."""
    with History.open(folder) as history:
        found = seen(history)
        events = len(history.events())
        assert events in (0, 1)
        finished = (*found, events) != (*BEFORE, 0)
        assert found == (AFTER[change] if finished else BEFORE)
        assert done in (None, finished)
        if change is not commit_and_prune and (finished or change is not recover):
            if change is recover:
                assert events == 1
            else:
                assert_sound(history)
    return finished


def go_on(folder: Path, change: Callable[[History], None]) -> None:
    """Do the change if it was not done, commit another round, and check every file."""
    finished = check(folder, change, None)
    with History.open(folder) as history:
        if not finished:
            change(history)
        assert seen(history) == AFTER[change]
        commit(history, len(history.rounds()))
        if change not in (commit_and_prune, recover):
            assert_sound(history)
        for r in history.rounds(undone=True):
            row = history.row(r.round, r.attempt)
            assert change is recover or not row.stored or history.flaws(row) == []
        assert files(folder) == history._files.known(), "nothing missing, nothing left over"


# Steps at which the world may end -----------------------------------------------------


class Steps:
    """Counts every step that reaches the disk, and calls ``strike`` before one of them."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, strike: Callable[[], None]) -> None:
        self.count = 0
        self._at, self._strike = at, strike
        for name in ("open", "write", "fsync", "replace", "unlink", "mkdir"):
            patch.setattr(os, name, self._step(getattr(os, name)))
        patch.setattr(Index, "_commit", self._step(Index._commit))
        patch.setattr(Index, "add_event", self._step(Index.add_event))

    def _step(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self._at:
                self._strike()
            return original(*arguments, **options)

        return step


def steps_of(folder: Path, change: Callable[[History], None]) -> int:
    prepared(folder, change)
    with pytest.MonkeyPatch.context() as patch, History.open(folder) as history:
        steps = Steps(patch, 0, lambda: None)
        change(history)
    assert steps.count > 1
    return steps.count


@pytest.fixture
def fast_disk() -> Iterator[None]:
    with without_syncing():
        yield


@pytest.mark.parametrize("change", CHANGES)
def test_a_process_may_end_before_any_step(tmp_path, fast_disk, change):
    finished = []
    for at in range(1, steps_of(tmp_path / "whole", change) + 1):
        folder = tmp_path / f"cut-{at}"
        prepared(folder, change)

        def work(folder: Path = folder, at: int = at) -> None:
            with pytest.MonkeyPatch.context() as patch:
                history = History.open(folder)
                Steps(patch, at, lambda: os._exit(CRASHED))
                change(history)

        assert in_child(work) == CRASHED
        finished.append(check(folder, change, None))
        go_on(folder, change)
    assert finished == sorted(finished), "done from one step on, and not before"
    assert not finished[0]


@pytest.mark.parametrize("change", CHANGES)
def test_any_step_may_fail_on_a_full_disk(tmp_path, fast_disk, change):
    outcomes = []
    for at in range(1, steps_of(tmp_path / "whole", change) + 1):
        folder = tmp_path / f"full-{at}"
        prepared(folder, change)

        def full(folder: Path = folder) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

        with History.open(folder) as history:
            with pytest.MonkeyPatch.context() as patch:
                Steps(patch, at, full)
                try:
                    change(history)
                except HistoryError as error:
                    assert str(folder) in str(error)
                    assert "No space left" in str(error)
                    outcomes.append("refused")
                except OSError:
                    outcomes.append("in sqlite")  # our own stand-in for SQLite's commit
                else:
                    outcomes.append("done all the same")
            # The same object goes on, as does a new process.
            assert seen(history) in (BEFORE, AFTER[change])
        check(folder, change, None)
        go_on(folder, change)
    if change is not note:
        assert "refused" in outcomes or change is recover


@pytest.mark.parametrize("limit", [0, 200, 700, 1500])
def test_files_may_not_grow(tmp_path, limit):
    """A real fault, below SQLite too: the kernel refuses to write beyond a size."""
    folder = tmp_path / "run"
    filled(folder, 3).close()

    def work() -> int:
        history = History.open(folder)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        for attempt in range(2):
            try:
                commit_next(history)
            except HistoryError as error:
                if str(folder) not in str(error) or history.head() != record(3):
                    return 3
                if attempt == 0:
                    resource.setrlimit(
                        resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
                    )
            else:
                return 0 if attempt == 1 else 4
        return 5

    assert in_child(work) == 0, "refused while the disk is full, done when there is space again"
    with History.open(folder) as history:
        assert_sound(history)
        assert line(history)[-1] == (4, 0)


def test_a_full_disk_at_sqlites_commit_leaves_the_old_head(tmp_path, fast_disk, monkeypatch):
    folder = tmp_path / "run"
    history = filled(folder, 3)
    (size,) = history._index._all("PRAGMA page_count")[0]
    history._index._all(f"PRAGMA max_page_count = {size}")
    big = record(4, metrics={f"metric {n}": n for n in range(5000)})
    with pytest.raises(HistoryError, match=rf"{folder}.*full.*finished rounds are safe"):
        history.commit(big, weights(4))
    assert history.head() == record(3)
    commit_next(History.open(folder))
    assert_sound(History.open(folder))


def test_no_history_is_begun_by_halves(tmp_path, fast_disk):
    for at in range(1, 20):
        folder = tmp_path / f"cut-{at}"

        def work(folder: Path = folder, at: int = at) -> int:
            with pytest.MonkeyPatch.context() as patch:
                Steps(patch, at, lambda: os._exit(CRASHED))
                History.create(folder)
            return 0

        code = in_child(work)
        if not (folder / "history.sqlite").exists():
            History.create(folder)
        with History.open(folder) as history:
            commit(history, 0)
            assert_sound(history)
        if code == 0:
            break
    assert at > 2


# Killed at random moments -------------------------------------------------------------


def test_kill_at_random_moments(tmp_path):
    """A run that is killed 20 times reaches the same end as one that never was."""
    folder = tmp_path / "run"
    History.create(folder, keep=4).close()
    begun = time.perf_counter()
    filled(tmp_path / "pace", 3).close()
    pace = time.perf_counter() - begun  # of this machine: it decides when to kill, not what passes
    random_moments = random.Random(7)
    killed_at = set()
    before = 0
    for _ in range(20):
        ready, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ready)
            alone_in_child(lambda: run_for_ever(folder, tell))  # noqa: B023
        os.close(tell)
        assert os.read(ready, 1) == b"!", "it found every file sound"
        os.close(ready)
        time.sleep(random_moments.uniform(0.0, 4 * pace))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        with History.open(folder) as history:
            assert [r.round for r in history.rounds()] == list(range(len(history.rounds())))
            rows = history._index.rows("stored")
            assert [flaw for row in rows for flaw in history.flaws(row)] == []
            assert len(history.rounds(undone=True)) >= before
            before = len(history.rounds(undone=True))
            killed_at.add(before)
            rolled = [e for e in history.events() if e["kind"] == "rollback"]
            assert history.attempt == len(rolled)
    assert len(killed_at) > 3, "the run went on between the kills"
    with History.open(folder) as history:
        commit(history, len(history.rounds()))
        assert files(folder) == history._files.known()


def run_for_ever(folder: Path, tell: int) -> None:
    history = History.open(folder)
    if history.recover():
        os._exit(3)
    os.write(tell, b"!")
    while True:
        number, attempt = len(history.rounds()), history.attempt
        if number % 5 == 4 and history.consecutive_rollbacks() == 0:
            bad = (record(number, attempt), weights(number, attempt), None, {})
            history.rollback(number - 1, by="monitor", reason="NaN", undone=bad)
        commit(history, number)
        history.protect(number // 2 * 2)


def alone_in_child(work: Callable[[], None]) -> None:
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


# Damage to the index ------------------------------------------------------------------


def everything(folder: Path) -> str:
    with History.open(folder) as history:
        return json.dumps(
            [[r.to_dict() for r in history.rounds(undone=True)], history.events(),
             [{n: a.tobytes().hex() for n, a in history.weights(r.round).items()}
              for r in history.rounds()],
             [repr(history.strategy_state(r.round)) for r in history.rounds()]],
        )  # fmt: skip


def test_a_flipped_bit_in_the_index_never_changes_what_is_read(tmp_path, fast_disk):
    folder = tmp_path / "run"
    with filled(folder, 4) as history:
        refuse_five = (record(5), weights(5), state(5), {})
        history.rollback(4, by="monitor", reason="NaN", exclude=["houston"], undone=refuse_five)
    truth = everything(folder)
    path = folder / "history.sqlite"
    whole = path.read_bytes()
    chance = random.Random(3)
    found = 0
    for _ in range(400):
        content = bytearray(whole)
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        try:
            assert everything(folder) == truth
        except HistoryError as error:
            found += 1
            assert str(folder) in str(error)
    assert found > 20


@pytest.mark.parametrize(
    "alteration",
    [
        "UPDATE setting SET value = value + 1 WHERE name = 'attempt'",
        "DELETE FROM setting WHERE name = 'keep'",
        "DELETE FROM round WHERE number = (SELECT max(number) FROM round)",
        "DELETE FROM event",
        "DELETE FROM client_state WHERE site = 'houston'",
        "UPDATE exclusion SET site = 'dallas'",
        "INSERT INTO protection VALUES (1, 1)",
    ],
)
def test_an_index_that_was_altered_is_not_believed(tmp_path, fast_disk, alteration):
    folder = tmp_path / "run"
    with filled(folder, 4) as history:
        history.rollback(3, by="person", reason="?", exclude=["houston"])
    connection = sqlite3.connect(folder / "history.sqlite")
    connection.execute(alteration)
    connection.commit()
    connection.close()
    with pytest.raises(HistoryError, match=r"history.sqlite is damaged \(it was altered\)"):
        History.open(folder)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_index_is_damaged(tmp_path, fast_disk, share):
    folder = tmp_path / "run"
    filled(folder, 4).close()
    path = folder / "history.sqlite"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(HistoryError, match=r"history.sqlite (is damaged|was written by another)"):
        History.open(folder)


def test_an_index_of_another_version_is_refused(tmp_path, fast_disk):
    folder = tmp_path / "run"
    filled(folder, 1).close()
    connection = sqlite3.connect(folder / "history.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(HistoryError, match="written by another version of fedpdm"):
        History.open(folder)


def test_a_folder_that_holds_no_run_is_named(tmp_path):
    with pytest.raises(HistoryError, match=f"{tmp_path} is not the folder of a run"):
        History.open(tmp_path)
    (tmp_path / "history.sqlite").write_text("something else entirely, but long enough\n" * 50)
    with pytest.raises(HistoryError, match=r"history.sqlite is damaged"):
        History.open(tmp_path)


# Others on the same folder ------------------------------------------------------------


def test_one_can_read_while_a_run_writes(tmp_path):
    folder = tmp_path / "run"
    filled(folder, 0).close()
    child = os.fork()
    if child == 0:
        alone_in_child(lambda: write_rounds(folder, 15, tmp_path / "seen"))
    looks, last = 0, 0
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        with History.open(folder) as history:
            rounds = [r.round for r in history.rounds()]
            assert rounds == list(range(len(rounds)))
            assert len(rounds) >= last
            last = len(rounds)
            assert history.flaws(history.row()) == []
        looks += 1
        if looks > 3:
            (tmp_path / "seen").touch()
    with History.open(folder) as history:
        rounds = line(history)
        assert len(rounds) > 15
        assert rounds == [(n, 0) for n in range(len(rounds))], "no look disturbed the run"
        assert_sound(history)


def write_rounds(folder: Path, last: int, seen: Path) -> None:
    """Write rounds up to ``last``, and on until the reader has looked a few times."""
    with History.open(folder) as history:
        for number in range(1, 1000):
            commit(history, number)
            time.sleep(0.01)
            if number >= last and seen.exists():
                return


def test_reading_changes_nothing(tmp_path, fast_disk):
    folder = tmp_path / "run"
    filled(folder, 2).close()
    orphan = folder / "rounds" / "000003.safetensors"  # as a run that is in a commit has it
    orphan.write_bytes(b"half a round")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with History.open(folder) as history:
        assert_sound(history)
        history.events()
    assert main(["list", str(folder)]) == 0
    assert main(["show", str(folder), "1"]) == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_read_only_folder_can_be_read_and_not_written(capfd):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        filled(folder, 2).close()
        for path in [Path(place), folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)

        def work() -> int:
            if os.getuid() == 0:  # root may write everywhere
                os.setgid(65534)
                os.setuid(65534)
            assert main(["list", str(folder)]) == 0
            assert main(["rollback", str(folder), "1"]) == 2
            history = History.open(folder)
            assert_sound(history)
            for change in (commit_next, lambda h: h.rollback(1, by="person", reason="?"), note):
                with pytest.raises(HistoryError, match=str(folder)):
                    change_of(history, change)
            assert history.head() == record(2)
            with pytest.raises(HistoryError, match="choose another folder"):
                History.create(Path(place) / "another")
            return 0

        def change_of(history: History, change: Callable[[History], None]) -> None:
            commit(history, 3) if change is commit_next else change(history)

        code = in_child(work)
        said = capfd.readouterr()
        for path in [Path(place), folder, *folder.rglob("*")]:
            path.chmod(0o755)
        assert code == 0, said.err
        assert "cannot be worked on" in said.err
        assert "Traceback" not in said.err

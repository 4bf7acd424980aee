"""One run, one process: the lock on a run folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from fedpdm.errors import HistoryError
from fedpdm.history.lock import RunLock
from tests.history.example_history import in_child


def taken(folder):
    try:
        with RunLock(folder):
            return False
    except HistoryError as error:
        assert f"another run (pid {(folder / 'lock').read_text().strip()})" in str(error)
        assert f"is working on {folder}" in str(error)
        return True


def test_a_second_run_is_refused_by_the_first_ones_pid(tmp_path):
    with RunLock(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
        assert taken(tmp_path)
        assert in_child(lambda: 7 if taken(tmp_path) else 0) == 7
    assert not taken(tmp_path)


def test_the_lock_is_free_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), RunLock(tmp_path):
        1 / 0  # noqa: B018
    assert not taken(tmp_path)


def test_kill_frees_the_lock_though_a_child_lives_on(tmp_path):
    """The baselines are forked children; they must not keep a dead run's folder."""
    told, tell = os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            RunLock(tmp_path).__enter__()
            child = os.fork()
            if child == 0:
                os.write(tell, f"{os.getpid()}".encode())
            signal.pause()
        finally:
            os._exit(1)
    child = int(os.read(told, 20))
    try:
        assert taken(tmp_path)
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        os.kill(child, 0)  # it is there
        assert not taken(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(told)
        os.close(tell)


def test_a_child_that_lets_go_does_not_free_the_parents_lock(tmp_path):
    with RunLock(tmp_path) as lock:
        assert in_child(lock.close_in_child) == 0
        assert taken(tmp_path)
    lock.close_in_child()  # twice is once


def test_a_program_that_is_started_does_not_hold_the_lock(tmp_path):
    lock = RunLock(tmp_path).__enter__()
    program = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        lock.__exit__(None, None, None)
        assert not taken(tmp_path)
    finally:
        program.communicate(b"\n")


def test_a_folder_without_room_for_a_lock_is_named(tmp_path):
    with pytest.raises(HistoryError, match="cannot be worked on .*choose another folder"):
        RunLock(tmp_path / "missing").__enter__()

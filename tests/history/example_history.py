"""Rounds whose whole content follows from their number and attempt, and checks for them."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpdm.history import History, RoundRecord
from fedpdm.history.index import Index
from fedpdm.storage import Arrays

SITES = ("detroit", "houston", "seattle")


def record(number: int, attempt: int = 0, **changed: Any) -> RoundRecord:
    values: dict[str, Any] = {
        "round": number,
        "attempt": attempt,
        "sampled": SITES if number else (),
        "metrics": {"train_loss": 1 / (number + 1), "average_precision": 0.01 * number},
        "sites": {
            site: {"examples": 10 + number, "validation": {"f1": None}, "update_norm": 0.5}
            for site in (SITES if number else ())
        },
        "bytes_up": 1000 * number,
        "bytes_down": 2_000_000,
        "seconds": 0.25,
        "events": (),
        "started": "2026-01-01T00:00:00.000+00:00",
    }
    return RoundRecord(**values | changed)


def weights(number: int, attempt: int = 0) -> Arrays:
    generator = np.random.default_rng([number, attempt])
    return {
        "lstm.weight": generator.normal(size=(8, 4)).astype(np.float32),
        "norm.steps": np.array(number, dtype=np.int64),
    }


def state(number: int, attempt: int = 0) -> dict[str, Any]:
    return {"momentum": [np.full(3, number + 0.5)], "attempt": (attempt, None), "eta": 0.1}


def clients(number: int) -> dict[str, bytes]:
    """Detroit changes every second round, houston never, seattle comes in round 2."""
    found = {"detroit": b"detroit %d" % (number // 2), "houston": b"houston"}
    return found | ({"seattle": b"houston"} if number >= 2 else {})


def commit(history: History, number: int) -> None:
    attempt = history.attempt
    history.commit(
        record(number, attempt), weights(number, attempt), state(number, attempt), clients(number)
    )


def filled(folder: Path, last: int, keep: int | None = None) -> History:
    """Return a history with rounds 0 … last."""
    history = History.create(folder, keep)
    for number in range(last + 1):
        commit(history, number)
    return history


def same(a: Arrays, b: Arrays) -> bool:
    return set(a) == set(b) and all(
        a[n].dtype == b[n].dtype and a[n].shape == b[n].shape and a[n].tobytes() == b[n].tobytes()
        for n in a
    )


def line(history: History) -> list[tuple[int, int]]:
    """Return (round, attempt) of the live rounds."""
    return [(r.round, r.attempt) for r in history.rounds()]


def undone(history: History) -> list[tuple[int, int]]:
    """Return (round, attempt) of what was taken back, in the order of training."""
    return [(r.round, r.attempt) for r in history.rounds(undone=True) if r.undone]


def assert_sound(history: History) -> None:
    """Every round is there, contiguous, and holds what was committed in it."""
    live = history.rounds()
    assert [r.round for r in live] == list(range(len(live)))
    head = history.head()
    assert head == (live[-1] if live else None)
    for r in live:
        assert same(history.weights(r.round), weights(r.round, r.attempt))
        assert repr(history.strategy_state(r.round)) == repr(state(r.round, r.attempt))
        assert history.client_states(r.round) == clients(r.round)
    for number, attempt in undone(history):
        if (number, attempt) not in line(history):
            assert same(history.weights(number, attempt), weights(number, attempt))


def files(folder: Path) -> set[str]:
    """Return the files of rounds and sites, below the run folder."""
    return {
        str(path.relative_to(folder))
        for place in ("rounds", "clients")
        for path in (folder / place).rglob("*")
        if path.is_file()
    }


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def in_child(work: Callable[[], Any]) -> int:
    """Run ``work`` in a forked child; return its exit code (0, 1 on an error, or negative)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of threads; none here
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        result = work()
        code = result if isinstance(result, int) else 0
    except BaseException as error:
        os.write(2, f"in the child: {error!r}\n".encode())
    finally:
        os._exit(code)


@contextlib.contextmanager
def without_syncing() -> Iterator[None]:
    """Spare the disk in tests where no power is cut; close what they leave open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        check, opened = Index._check, list[Index]()

        def unsynced(index: Index) -> None:
            opened.append(index)
            check(index)
            index._all("PRAGMA synchronous = OFF")

        patch.setattr(Index, "_check", unsynced)
        yield
        for index in opened:
            index.close()

"""A tracker is told every committed round once, and nothing in it can hurt the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fedpdm.history import History, RoundRecord
from fedpdm.simulate import main
from fedpdm.trackers import guard as guarding
from fedpdm.trackers import result_scalars, round_scalars
from fedpdm.trackers.guard import STATE, Guard
from tests.trackers.small import SMALL

SUMMARY = {
    "best_round": 2,
    "test": {"global": {"ap": 0.5, "f1": None}, "per_site": {"a": {"ap": 1.0}}},
}


def record(number: int, attempt: int = 0) -> RoundRecord:
    return RoundRecord(
        round=number, attempt=attempt, sampled=("a",), bytes_up=10, bytes_down=20, seconds=1.5,
        metrics={"train_loss": 0.5 / number if number else None, "average_precision": None},
        sites={"a": {"examples": 3, "validation": {"loss": 0.25, "brier": float("nan")}}},
        events=(), started="2026-01-01T00:00:00.000+00:00",
    )  # fmt: skip


class Book:
    """A tracker that writes down what it is told, and fails when asked to."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.broken = False

    def begin(self, folder: Path, config: Mapping[str, Any], state: dict[str, Any]) -> None:
        self._check()
        self.told.append(("begin", dict(state)))
        state["id"] = "x7"

    def round(self, number: int, scalars: Mapping[str, float], seconds_since_1970: float) -> None:
        self._check()
        assert seconds_since_1970 == 1767225601.5
        self.told.append(number)

    def end(self, scalars: Mapping[str, float], summary: Mapping[str, Any]) -> None:
        self._check()
        self.told.append(("end", dict(scalars)))

    def _check(self) -> None:
        if self.broken:
            raise ConnectionError("no route to host\nand a long trace")


class Shown:
    """A history of which the newest round is what was committed last."""

    def __init__(self, *records: RoundRecord) -> None:
        self.records = list(records)

    def rounds(self) -> list[RoundRecord]:
        return list(self.records)

    def head(self) -> RoundRecord | None:
        return self.records[-1] if self.records else None


def watch(folder: Path, tracker: Book, history: Shown) -> tuple[Guard, list[str]]:
    said: list[str] = []
    return Guard(tracker, folder, {}, said.append, history), said  # type: ignore[arg-type]


def finish(guard: Guard, history: Shown, *numbers: int) -> None:
    for number in numbers:
        history.records.append(record(number))
        guard.round(number)


def test_every_round_is_sent_once_in_order(tmp_path: Path) -> None:
    book, history = Book(), Shown(record(0))
    guard, said = watch(tmp_path, book, history)
    finish(guard, history, 1, 2)
    guard.end(SUMMARY)
    assert book.told == [
        ("begin", {}), 1, 2, ("end", {"test/ap": 0.5, "test/sites/a/ap": 1.0}),
    ]  # fmt: skip
    assert said == []
    assert json.loads((tmp_path / STATE).read_text()) == {"attempt": 0, "round": 2,
                                                          "own": {"id": "x7"}}  # fmt: skip


def test_a_failure_is_said_once_and_what_was_missed_is_sent_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarding, "PATIENCE", 0.0)
    book, history = Book(), Shown(record(0))
    guard, said = watch(tmp_path, book, history)
    book.broken = True
    finish(guard, history, 1, 2)
    assert book.told == [] and len(said) == 1
    assert "the run goes on: no route to host" in said[0] and "trace" not in said[0]
    book.broken = False
    finish(guard, history, 3)
    assert book.told == [("begin", {}), 1, 2, 3]


def test_a_slow_failure_is_not_repeated_every_round_but_at_the_end(tmp_path: Path) -> None:
    book, history = Book(), Shown()
    guard, said = watch(tmp_path, book, history)
    book.broken = True
    finish(guard, history, 1)
    book.broken = False
    finish(guard, history, 2)
    assert book.told == [], "it waits before it tries again"
    guard.end(SUMMARY)
    assert book.told[:3] == [("begin", {}), 1, 2] and len(said) == 1


def test_a_tracker_that_stays_broken_is_named_at_the_end(tmp_path: Path) -> None:
    book, history = Book(), Shown()
    guard, said = watch(tmp_path, book, history)
    book.broken = True
    finish(guard, history, 1)
    guard.end(SUMMARY)
    assert len(said) == 2 and "metrics.csv" in said[1] and f"resume={tmp_path}" in said[1]


def test_a_resume_goes_on_with_the_same_tracker_run_and_sends_what_is_missing(
    tmp_path: Path,
) -> None:
    book, history = Book(), Shown(record(0))
    guard, _ = watch(tmp_path, book, history)
    finish(guard, history, 1)
    history.records.append(record(2))  # committed, then killed before the tracker was told
    again = Book()
    guard, _ = watch(tmp_path, again, history)
    finish(guard, history, 3)
    assert again.told == [("begin", {"id": "x7"}), 2, 3]


def test_rounds_that_were_taken_back_are_not_sent_and_their_repetition_is(tmp_path: Path) -> None:
    book, history = Book(), Shown(record(0))
    guard, _ = watch(tmp_path, book, history)
    finish(guard, history, 1)
    guard.round(2)  # shown, but rolled back: the head is still round 1
    history.records.append(record(2, attempt=1))
    guard.round(2)
    assert book.told == [("begin", {}), 1, 2]


def test_a_damaged_state_file_sends_everything_again(tmp_path: Path) -> None:
    (tmp_path / STATE).write_text("{")
    book, history = Book(), Shown(record(0), record(1))
    guard, _ = watch(tmp_path, book, history)
    finish(guard, history, 2)
    assert book.told == [("begin", {}), 1, 2]


def test_scalars_hold_sites_bytes_and_seconds_and_no_nulls() -> None:
    assert round_scalars(record(2).to_dict()) == {
        "train_loss": 0.25, "sites/a/examples": 3.0, "sites/a/validation_loss": 0.25,
        "bytes/up": 10.0, "bytes/down": 20.0, "seconds": 1.5,
    }  # fmt: skip
    assert result_scalars({}) == {}


# In a run ---------------------------------------------------------------------------------


def test_an_unreachable_server_changes_nothing_in_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import fedpdm.trackers.tensorboard as module

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    plain, tracked = tmp_path / "plain", tmp_path / "tracked"
    assert main([*SMALL, "rounds=3", f"hydra.run.dir={plain}"]) == 0
    monkeypatch.setattr(module.TensorBoard, "round", refuse)
    assert main([*SMALL, "rounds=3", f"hydra.run.dir={tracked}", "tracker=tensorboard"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("the tracker fails, the run goes on") == 1
    assert "did not get everything" in shown
    with History.open(plain) as one, History.open(tracked) as other:
        assert len(other.rounds()) == 4
        assert [r.metrics for r in one.rounds()] == [r.metrics for r in other.rounds()]
    name = "rounds/000003.safetensors"
    assert (plain / name).read_bytes() == (tracked / name).read_bytes()


@pytest.mark.parametrize("tracker", ["tensorboard", "mlflow"])
def test_a_missing_package_is_said_before_anything_is_computed(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tracker: str,
) -> None:
    import sys

    for name in [n for n in sys.modules if n.split(".")[0] == tracker]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, tracker, None)
    assert (
        main([*SMALL, "rounds=3", f"hydra.run.dir={tmp_path / 'run'}", f"tracker={tracker}"]) == 2
    )
    assert f"pip install 'fedpdm[{tracker}]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

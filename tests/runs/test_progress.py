"""Progress on a terminal and elsewhere."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from fedpdm.runs import progress as progress_module
from fedpdm.runs.progress import Progress, Working, event_line, seconds_left

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def plain(**options: Any) -> Console:
    return Console(file=io.StringIO(), width=100, force_terminal=False, **options)


def text_of(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def shown_rounds(console: Console) -> list[int]:
    return [int(n) for n in re.findall(r"^round +(\d+)/", text_of(console), re.MULTILINE)]


def run(console: Console, total: int, **options: Any) -> None:
    with Progress(total, "average_precision", console, **options) as progress:
        for number in range(1, total + 1):
            progress.round(number, 0.5 / number, 0.1 * number / total)


@pytest.mark.parametrize(
    ("total", "rounds"),
    [
        (1, [1]),
        (2, [1, 2]),
        (10, list(range(1, 11))),
        (40, [1, *range(4, 41, 4)]),
        (25, [1, 3, 6, 9, 12, 15, 18, 21, 24, 25]),
    ],
)
def test_elsewhere_about_ten_plain_lines_with_first_and_last(total: int, rounds: list[int]) -> None:
    console = plain()
    run(console, total)
    assert shown_rounds(console) == rounds
    assert "\x1b" not in text_of(console)


def test_a_line_holds_round_loss_metric_and_time_left() -> None:
    console = plain()
    with Progress(10, "rmse", console) as progress:
        progress.round(1, 0.123456, 17.318)
        progress.round(2, 0.123456, 17.318)
    assert re.fullmatch(
        r"round  1/10  loss 0\.1235  RMSE 17\.32\n"
        r"round  2/10  loss 0\.1235  RMSE 17\.32  \d+\.\d s left\n",
        text_of(console),
    )


def test_the_time_left_forgets_the_first_round_and_one_that_was_slow() -> None:
    assert seconds_left([], 9) is None
    assert seconds_left([60.0], 9) is None
    assert seconds_left([60.0, 4.0], 8) == 32.0
    assert seconds_left([60.0, 4.0, 900.0, 4.0, 5.0], 5) == 22.5
    assert seconds_left([60.0, 4.0], 0) == 0.0
    slower = [1.0] * 50 + [3.0] * 20
    assert seconds_left(slower, 2) == 6.0  # the last rounds count


def test_what_cannot_be_computed_is_a_dash() -> None:
    console = plain()
    with Progress(1, "average_precision", console) as progress:
        progress.round(1, float("nan"), None)
    assert text_of(console) == "round 1/1  loss \u2013  AP \u2013\n"


def test_every_event_is_said_even_in_a_round_that_is_not() -> None:
    console = plain()
    event = {"kind": "refused", "round": 3, "site": "houston", "message": "NaN in [fc.bias]"}
    with Progress(100, "average_precision", console) as progress:
        progress.round(1, 0.5, 0.1)
        progress.round(3, 0.4, 0.2, [event])
        progress.say("note: [detroit] has 3 rows")
        progress.round(10, 0.3, 0.3)
    lines = text_of(console).splitlines()
    assert lines[1] == "round 3: update refused, houston: NaN in [fc.bias]"
    assert lines[2] == "note: [detroit] has 3 rows"
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            {
                "kind": "refused",
                "round": 2,
                "site": "houston",
                "message": "houston: update refused",
            },
            "round 2: houston: update refused",
        ),
        (
            {"kind": "warning", "round": 4, "site": None, "message": "round 4 looks bad"},
            "round 4: warning: round 4 looks bad",
        ),
        (
            {"kind": "rollback", "round": 4, "site": "houston", "message": "back to 3"},
            "round 4: rolled back, houston: back to 3",
        ),
        ({"kind": "timeout", "site": "a"}, "site too late, a"),
        ({"kind": "something-new"}, "something-new"),
    ],
)
def test_an_event_is_one_line_that_says_nothing_twice(event: dict[str, Any], line: str) -> None:
    assert event_line(event) == line


def test_a_round_that_was_taken_back_shows_its_events_only() -> None:
    console = plain()
    with Progress(10, "average_precision", console) as progress:
        progress.round(1, 0.5, 0.1)
        progress.round(2, None, None, [{"kind": "rollback", "round": 2, "message": "bad"}])
        progress.round(2, 0.4, 0.2)
    assert [line.split()[1] for line in text_of(console).splitlines()] == ["1/10", "2:", "2/10"]


def test_a_run_that_stops_early_says_its_last_round() -> None:
    console = plain()
    with pytest.raises(RuntimeError), Progress(100, "average_precision", console) as progress:
        for number in range(1, 18):
            progress.round(number, 0.5, 0.1)
        raise RuntimeError
    assert shown_rounds(console) == [1, 10, 17]


def test_a_resumed_run_says_its_first_round_and_the_last() -> None:
    console = plain()
    with Progress(40, "average_precision", console, done=29) as progress:
        for number in range(30, 41):
            progress.round(number, 0.5, 0.1)
    assert shown_rounds(console) == [30, 32, 36, 40]


def test_a_long_message_is_not_cut_into_lines() -> None:
    console = plain()
    with Progress(1, "rmse", console) as progress:
        progress.say("word " * 60)
    assert len(text_of(console).splitlines()) == 1


def test_on_a_terminal_a_bar_with_the_same_figures_and_lines_above_it() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with Progress(3, "average_precision", console) as progress:
        progress.round(1, 0.5, 0.1)
        progress.say("above the bar")
        progress.round(2, 0.25, 0.35, [{"kind": "timeout", "round": 2, "site": "detroit"}])
        progress.round(3, 0.125, 0.5)
    text = ESCAPES.sub("", text_of(console))
    assert "above the bar" in text
    assert "round 2: site too late, detroit" in text
    frames = [line for line in re.split(r"[\r\n]+", text) if "loss" in line]
    assert "3/3" in frames[-1] and "loss 0.1250" in frames[-1] and "AP 0.500" in frames[-1]
    assert any("1/3" in f and "AP 0.100" in f and "so far" in f for f in frames)
    assert any("2/3" in f and "AP 0.350" in f and "left" in f for f in frames)
    assert max(len(f) for f in frames) <= 80


def test_a_console_without_unicode_can_show_events() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    with Progress(1, "rmse", Console(file=file, width=100)) as progress:
        progress.say("loss 3.4 \u2212 too high \u2013 back to “round 6”")
        progress.round(1, 0.1, None)
    file.flush()
    assert raw.getvalue().decode("ascii").startswith("loss 3.4 - too high - back to ?round 6?\n")


@pytest.mark.parametrize("terminal", [True, False])
def test_work_that_takes_long_says_so_and_short_work_says_nothing(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal)
    with Working("reading the data", console):
        pass
    assert text_of(console) == ""
    monkeypatch.setattr(progress_module, "PATIENCE", 0.01)
    monkeypatch.setattr(progress_module, "PAUSE", 0.05)
    with pytest.raises(RuntimeError), Working("reading the data", console) as working:
        until(lambda: "reading the data: " in text_of(console))
        working.says("reading [houston]")
        until(lambda: "reading [houston]: " in text_of(console))
        raise RuntimeError  # the spinner ends with the work, however it ends
    text = text_of(console)
    assert ("\x1b" in text) is terminal
    time.sleep(0.1)
    assert text_of(console) == text


def test_a_long_round_says_so_elsewhere_and_rounds_that_add_up_to_long_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress_module, "PATIENCE", 0.01)
    monkeypatch.setattr(progress_module, "PAUSE", 0.05)
    console = plain()
    with Progress(100, "rmse", console, done=4) as progress:
        until(lambda: "round 5/100: " in text_of(console))
        progress.round(5, 0.1, 1.0)
        until(lambda: "round 6/100: " in text_of(console))
        monkeypatch.setattr(progress_module, "PATIENCE", 60.0)
        monkeypatch.setattr(progress_module, "PAUSE", -1.0)
        progress.round(7, 0.1, 1.0)
    assert re.search(r"^round +7/100  loss", text_of(console), re.MULTILINE)


def until(seen: Callable[[], bool]) -> None:
    """Wait for something that another thread shows."""
    begun = time.monotonic()
    while not seen():
        assert time.monotonic() - begun < 20
        time.sleep(0.01)

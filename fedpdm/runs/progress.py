"""Progress on the screen: a bar or a spinner on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.progress import Progress as RichProgress
from rich.status import Status
from rich.text import Text

from fedpdm.evaluation.wording import EVENTS, duration, metric, number
from fedpdm.report.console import console_for, readable

PATIENCE = 1.0
"""Seconds after which a terminal shows that work goes on, and between two updates."""
PAUSE = 10.0
"""Seconds without a line after which one is printed where there is no terminal."""
LATELY = 20
"""Rounds whose median says how long the next ones take."""


class _Beat:
    """Calls a function again and again in a thread of its own, until it is stopped."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat, self._over = beat, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(PATIENCE):
            self._beat()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


class Working:
    """Says that one long piece of work goes on; a context manager.

    On a terminal: a spinner after a second, gone at the end. Elsewhere: a line for every ten
    seconds. What takes less shows nothing.

    Args:
        doing: what is done, as "reading the data".
        console: where to print; standard output if None.
    """

    def __init__(self, doing: str, console: Console | None = None) -> None:
        self.doing = doing
        self.console = console_for(console)
        self._status: Status | None = None

    def __enter__(self) -> Working:
        self._begun = self._said = time.monotonic()
        self._beating = _Beat(self._beat)
        return self

    def __exit__(self, *raised: object) -> None:
        self._beating.stop()
        if self._status is not None:
            self._status.stop()

    def says(self, doing: str) -> None:
        """Go on to another part of the work."""
        self.doing = doing

    def _beat(self) -> None:
        now = time.monotonic()
        text = readable(f"{self.doing}: {duration(now - self._begun)} so far", self.console)
        if self.console.is_terminal:
            if self._status is None:
                self._status = self.console.status("")
                self._status.start()
            self._status.update(Text(text))
        elif now - self._said >= PAUSE:
            self._said = now
            self.console.print(Text(text), soft_wrap=True)


def seconds_left(spent: Sequence[float], rounds: int) -> float | None:
    """Return how long the rounds that are left take; None where that cannot be said yet.

    It is their number times the median of the last rounds. The first round is left out, since it
    also makes windows, loads libraries and starts workers; so nothing is said before the second.

    Args:
        spent: seconds of each finished round, in order; rounds that were taken back, too.
        rounds: that are left.
    """
    return statistics.median(spent[1:][-LATELY:]) * rounds if len(spent) > 1 else None


class TimeLeft(ProgressColumn):
    """Time left, counted down since the last round, or the time that went by."""

    # Rich's own column forgets rounds older than 30 s, and a resumed run's first jump
    # would count as speed.
    def render(self, task: Task) -> Text:
        left, passed = task.fields["seconds_left"], time.monotonic() - task.fields["seen"]
        if left is None:
            return Text(f"{duration(passed)} so far", style="dim")
        return Text(f"{duration(max(left - passed, 0.0))} left", style="dim")


class Progress:
    """Progress of the round loop; a context manager.

    On a terminal: a bar with round, loss, validation metric and time left. Elsewhere: a
    plain line about every tenth of the rounds, always the first and the last, and after ten
    seconds without one; and one for each event.

    Args:
        total_rounds: rounds of the whole run.
        metric_name: the primary metric, by its name in summary.json.
        console: where to print; standard output if None.
        done: rounds finished before this process started (a resumed run).
        log: is told every round, event and note, those that the screen leaves out, too.
    """

    def __init__(
        self,
        total_rounds: int,
        metric_name: str,
        console: Console | None = None,
        done: int = 0,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.total = total_rounds
        self.metric = metric(metric_name)
        self.console = console_for(console)
        self.on_round: list[Callable[[int], None]] = []
        """Called with the number of every round that is shown."""
        self._every = max(1, -(-total_rounds // 10))
        self._finished = 0
        self._spent: list[float] = []
        self._done, self._log = done, log
        self._unsaid: str | None = None
        self._said = 0.0
        self._next = done + 1
        self._beating: _Beat | None = None
        self._bar: RichProgress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Progress:
        self._said = self._round_begun = time.monotonic()
        if self.console.is_terminal:
            self._bar = RichProgress(
                SpinnerColumn(finished_text=" "),
                TextColumn("round"),
                MofNCompleteColumn(),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[figures]}", markup=False),
                TimeLeft(),
                console=self.console,
                expand=True,
            )
            self._task = self._bar.add_task(
                "", total=self.total, completed=self._done, figures="",
                seconds_left=None, seen=self._said,
            )  # fmt: skip
            self._bar.start()
        else:
            self._beating = _Beat(self._beat)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._beating is not None:
            self._beating.stop()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        elif self._unsaid is not None:
            self._show(self._unsaid)
            self._unsaid = None
        if error is not None and self._log is not None:
            self._log(f"ended by {type(error).__name__}: {error}")

    def round(
        self,
        round_num: int,
        loss: float | None,
        metric: float | None,
        events: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Show a finished round.

        Args:
            round_num: its number, from 1; it may come again after a rollback.
            loss: the loss to show; None if there is none.
            metric: the primary metric on validation data; None if it cannot be computed.
                Without both, only the events are shown.
            events: the round's events, as in the history: kind, site, message.
        """
        for event in events:
            self.say(event_line(event))
        for told in self.on_round:
            told(round_num)
        now = time.monotonic()
        self._spent.append(now - self._round_begun)
        self._next, self._round_begun = round_num + 1, now
        if loss is None and metric is None:
            return  # taken back, or nobody could be evaluated: there are no figures to show
        self._finished += 1
        figures = (
            f"loss {number(loss, 4)}  {self.metric.short} {number(metric, self.metric.digits)}"
        )
        left = seconds_left(self._spent, max(self.total - round_num, 0))
        line = f"round {round_num:>{len(str(self.total))}}/{self.total}  {figures}"
        if round_num < self.total and left is not None:
            line += f"  {duration(left)} left"
        if self._log is not None:
            self._log(line)
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=round_num,
                figures=figures,
                seconds_left=left,
                seen=time.monotonic(),
                refresh=True,
            )
            return
        first, last = self._finished == 1, round_num >= self.total
        late = time.monotonic() - self._said >= PAUSE
        if first or last or late or round_num % self._every == 0:
            self._show(line)
            self._unsaid = None
        else:
            self._unsaid = line  # said at the end if the run stops here

    def say(self, text: str) -> None:
        """Print a line above the bar, and log it."""
        if self._log is not None:
            self._log(text)
        self._show(text)

    def _show(self, text: str) -> None:
        self._said = time.monotonic()
        # As Text: a bracket in a message is not markup. Long lines are left whole.
        self.console.print(Text(readable(text, self.console)), soft_wrap=True)

    def _beat(self) -> None:
        """Say that a long round goes on, where nothing was said for a while."""
        now = time.monotonic()
        if now - self._said >= PAUSE and self._next <= self.total:
            self._show(
                f"round {self._next}/{self.total}: {duration(now - self._round_begun)} so far"
            )


def event_line(event: Mapping[str, Any]) -> str:
    """Return an event in one line: round, what happened, which site, why.

    What the message says by itself is not said twice.
    """
    kind, message = str(event.get("kind", "event")), str(event.get("message") or "")
    words = EVENTS.get(kind, kind)
    parts = [words[:1].lower() + words[1:]] if words.lower() not in message.lower() else []
    if event.get("site") and str(event["site"]) not in message:
        parts.append(str(event["site"]))
    line = ": ".join(part for part in (", ".join(parts), message) if part)
    number = event.get("round")
    return (
        line if number is None or line.startswith(f"round {number} ") else f"round {number}: {line}"
    )

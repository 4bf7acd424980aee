"""Progress of a run: a bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
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
from rich.text import Text

from fedpdm.evaluation.wording import EVENTS, duration, metric, number
from fedpdm.report.console import console_for, readable


class TimeLeft(ProgressColumn):
    """Time left at the mean pace of the rounds finished in this process."""

    # Rich's own column forgets rounds older than 30 s, and a resumed run's first jump
    # would count as speed.
    def render(self, task: Task) -> Text:
        left = task.fields["seconds_left"]
        if left is None:
            return Text("")
        passed = time.monotonic() - task.fields["seen"]
        return Text(f"{duration(max(left - passed, 0.0))} left", style="dim")


class Progress:
    """Progress of the round loop; a context manager.

    On a terminal: a bar with round, loss, validation metric and time left. Elsewhere: a
    plain line about every tenth of the rounds, always the first and the last, and one for
    each event.

    Args:
        total_rounds: rounds of the whole run.
        metric_name: the primary metric, by its name in summary.json.
        console: where to print; standard output if None.
        done: rounds finished before this process started (a resumed run).
    """

    def __init__(
        self,
        total_rounds: int,
        metric_name: str,
        console: Console | None = None,
        done: int = 0,
    ) -> None:
        self.total = total_rounds
        self.metric = metric(metric_name)
        self.console = console_for(console)
        self.on_round: Callable[[int], None] | None = None
        """Called with the number of every round that is shown."""
        self._every = max(1, -(-total_rounds // 10))
        self._started = 0.0
        self._finished = 0
        self._done = done
        self._unsaid: str | None = None
        self._bar: RichProgress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Progress:
        self._started = time.monotonic()
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
                "", total=self.total, completed=self._done, figures="", seconds_left=None, seen=0.0
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        elif self._unsaid is not None:
            self.say(self._unsaid)
            self._unsaid = None

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
        if self.on_round is not None:
            self.on_round(round_num)
        if loss is None and metric is None:
            return  # taken back, or nobody could be evaluated: there are no figures to show
        self._finished += 1
        figures = (
            f"loss {number(loss, 4)}  {self.metric.short} {number(metric, self.metric.digits)}"
        )
        pace = (time.monotonic() - self._started) / self._finished
        left = pace * max(self.total - round_num, 0)
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
        width = len(str(self.total))
        line = f"round {round_num:>{width}}/{self.total}  {figures}"
        if round_num < self.total:
            line += f"  {duration(left)} left"
        first, last = self._finished == 1, round_num >= self.total
        if first or last or round_num % self._every == 0:
            self.say(line)
            self._unsaid = None
        else:
            self._unsaid = line  # said at the end if the run stops here

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        # As Text: a bracket in a message is not markup. Long lines are left whole.
        self.console.print(Text(readable(text, self.console)), soft_wrap=True)


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

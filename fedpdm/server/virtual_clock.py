"""A virtual clock: sites work and answer in simulated time, however long it really took.

Nothing depends on this machine's time, on the engine or on its workers: durations come from local
steps and from bytes as serialised (``server.network``), and what is drawn is drawn for the site,
the round, the attempt and the number of the message. Sites train when the message is sent; the
reply is kept until its time has come, and with it what the site remembers. Replies that were under
way when a run stopped are not stored: the server submits those jobs again, and they come out the
same.

Of the messages to the sites, ``sent = received + timed_out + under_way``: the reply was taken in
time, the server stopped waiting, or it still waits. Of those that it stopped waiting for,
``timed_out = late + dropped + overdue``: the reply came too late, never came, or is still to come.
``duplicate`` counts further copies of replies; a copy is never taken. ``bytes`` are those of the
messages and of all replies that came. All are counted from the start of the run.

Evaluation and the query for the shared scaler take no simulated time. A rollback takes the clock
back to the round that it returns to: what was undone is not on the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Error, Message, RecordDict

from fedpdm.aggregation.collector import Note
from fedpdm.errors import HistoryError
from fedpdm.server.clock import MESSAGES, SIMULATED, Answers, Carrier, States
from fedpdm.server.network import SimulatedNetwork
from fedpdm.wire.flower import content_bytes
from fedpdm.wire.records import EXAMPLES, config_in, metrics_in

LOST = 991
"""Error code of the reply that stands for a site that was given up."""
COUNTED = ("sent", "received", "timed_out", "late", "dropped", "duplicate", "bytes")
WAITING, OVERDUE, COPY = "waiting", "overdue", "copy"
"""Phases of a message: the server waits; it no longer does; a copy of the reply is to come."""

Job = dict[str, Any]
"""A message under way: plain data, which the history keeps."""


@dataclass(frozen=True)
class Held:
    """What came of a message, until its time has come.

    Attributes:
        message: what was sent.
        reply: what the site answers.
        remembered: what the site remembers then; None if that is what it did before.
    """

    message: Message
    reply: Message
    remembered: RecordDict | None


class VirtualClock(SimulatedNetwork, Carrier):
    """Simulated seconds, and the messages that are under way.

    Args:
        **network: see ``SimulatedNetwork``.

    Attributes:
        now: simulated seconds since the start of the run.

    Raises:
        ConfigError: a value is out of its range.
    """

    def __init__(self, **network: Any) -> None:
        super().__init__(**network)
        self._order: dict[str, int] = {}
        self.restore({})

    # As a clock -------------------------------------------------------------------------------

    def prepare(
        self,
        sites: Sequence[str],
        seed: int,
        steps: Callable[[int], int],
        timeout: float | None,
    ) -> None:
        super().prepare(sites, seed, steps, timeout)
        self._order = {site: place for place, site in enumerate(sites)}
        self.restore({})

    def carrier(self) -> Carrier:
        return self

    def restore(self, state: dict[str, Any]) -> None:
        fresh = {"now": 0.0, "jobs": [], "busy": {}, "counts": dict.fromkeys(COUNTED, 0),
                 "trace": self._trace}  # fmt: skip
        self.state = fresh | state
        if self.state["trace"] != self._trace:
            raise HistoryError(
                f"clock.availability={self._availability} has changed since the run began; put "
                "the old file back"
            )
        self._held: dict[int, Held] = {}

    def present(self, sites: Sequence[str], wait: bool = True) -> list[str]:
        there = [site for site in sites if self._presence.next_on(site, self.now) <= self.now]
        if sites and not there and wait:
            self.advance(min(self._presence.next_on(site, self.now) for site in sites))
            return self.present(sites)
        return there

    def passes(self) -> bool:
        coming = self.coming()
        return coming is None or coming > self.now

    def metrics(self) -> dict[str, float]:
        phases = [job["phase"] for job in self._jobs]
        counts = {**self.state["counts"], "under_way": phases.count(WAITING),
                  "overdue": phases.count(OVERDUE)}  # fmt: skip
        return {
            f"{SIMULATED}seconds": self.now,
            **{f"{MESSAGES}{name}": count for name, count in counts.items()},
        }

    # Simulated time ---------------------------------------------------------------------------

    @property
    def now(self) -> float:
        return float(self.state["now"])

    @property
    def _jobs(self) -> list[Job]:
        jobs: list[Job] = self.state["jobs"]
        return jobs

    def coming(self) -> float | None:
        """Return when the next reply is there, or the next site given up; None if none is."""
        return min((_due(job) for job in self._jobs if job["phase"] == WAITING), default=None)

    def advance(self, to: float) -> None:
        """Let time go by; nothing that is waited for may come before."""
        while (job := self._next()) is not None and _due(job) <= to:
            assert job["phase"] != WAITING
            self._settle(job)
        self.state["now"] = max(self.now, to)
        self.state["busy"] = {s: t for s, t in self.state["busy"].items() if t > self.now}

    def give_up(self, site: str) -> None:
        """Stop waiting for a site, now."""
        for job in [j for j in self._jobs if j["site"] == site and j["phase"] == WAITING]:
            self._lose(job)

    # As a carrier -----------------------------------------------------------------------------

    def in_turn(
        self, sent: Mapping[str, Message], answers: Answers, states: States, note: Note
    ) -> Iterator[tuple[str, Message]]:
        before, end, lost = dict(states), self.now, list[str]()
        for site, reply in answers:
            job = self._new_job(site, sent[site], reply)
            end, taken = max(end, _due(job)), _answers(job)
            self._settle(job)
            if taken:
                yield site, reply
            else:
                lost.append(site)
                _put_back(states, before, site)
        self.advance(end)
        if lost:
            who = f"{', '.join(lost[:5])}{' …' if len(lost) > 5 else ''}"
            some = f"{len(lost)} of {len(sent)} sites" if len(sent) > 1 else "the site"
            note("timeout", f"{some} did not answer in time ({who})")

    def push(self, sent: Mapping[str, Message], answers: Answers, states: States) -> None:
        before = dict(states)
        for site, reply in answers:
            after, message = states.get(site), sent[site]
            _put_back(states, before, site)
            again = [j for j in self._jobs if _same(j, site, message) and j["phase"] == WAITING
                     and j["number"] not in self._held]  # fmt: skip
            job = again[0] if again else self._new_job(site, message, reply)
            changed = after is not before.get(site)
            self._held[job["number"]] = Held(message, reply, after if changed else None)
        self._states = states

    def pop(self) -> tuple[str, Message] | None:
        while (job := self._next()) is not None and self.coming() is not None:
            self.state["now"] = max(self.now, _due(job))
            if job["phase"] != WAITING:
                self._settle(job)
                continue
            site, taken = job["site"], _answers(job)
            held = self._held.pop(job["number"], None)
            self._settle(job)
            if held is None:  # nobody submitted it again after a stop
                continue
            if not taken:
                reason = f"given up after {self.now - job['sent']:.0f} simulated seconds"
                return site, Message(Error(LOST, reason), reply_to=held.message)
            if held.remembered is not None:
                self._states[site] = held.remembered
            return site, held.reply
        return None

    # Jobs -------------------------------------------------------------------------------------

    def _new_job(self, site: str, message: Message, reply: Message) -> Job:
        """Put a message on its way at ``now``: what will come of it is settled here."""
        number = self.state["counts"]["sent"]
        self.state["counts"]["sent"] += 1
        down = content_bytes(message.content)
        self.state["counts"]["bytes"] += down
        up = 0 if reply.has_error() else content_bytes(reply.content)
        busy, key = self.state["busy"], _key(message)
        fate = self.fate(
            site, (*key, number), self.now, busy.get(site, 0.0),
            (down, up), _examples(reply),
        )  # fmt: skip
        busy[site] = fate.free
        job: Job = {
            "site": site, "key": list(key), "number": number, "sent": self.now, "phase": WAITING,
            "arrives": fate.arrives, "copy": fate.copy, "gives_up": fate.gives_up, "bytes": up,
        }  # fmt: skip
        self._jobs.append(job)
        return job

    def _next(self) -> Job | None:
        """Return the message of which the next thing happens; of equal times the first site's."""
        return min(
            self._jobs,
            key=lambda job: (_due(job), self._order.get(job["site"], 0), job["number"]),
            default=None,
        )

    def _settle(self, job: Job) -> None:
        """Count what happens next to a message, and move it on."""
        counts, copied = self.state["counts"], job["copy"] is not None
        if job["phase"] == WAITING and not _answers(job):
            self._lose(job)
            return
        counts["bytes"] += job["bytes"]  # a reply has come, whatever becomes of it
        if job["phase"] == COPY:
            counts["duplicate"] += 1
            self._jobs.remove(job)
            return
        counts["received" if job["phase"] == WAITING else "late"] += 1
        if copied:
            job["phase"] = COPY
        else:
            self._jobs.remove(job)

    def _lose(self, job: Job) -> None:
        """Count a message as one that the server no longer waits for."""
        self._held.pop(job["number"], None)
        self.state["counts"]["timed_out"] += 1
        if job["arrives"] is None:
            self.state["counts"]["dropped"] += 1
            self._jobs.remove(job)
        else:
            job["phase"] = OVERDUE


def _due(job: Job) -> float:
    """Return when the next thing happens to a message."""
    if job["phase"] == COPY:
        return float(job["copy"])
    times = [job["arrives"]] if job["phase"] == OVERDUE else [job["arrives"], job["gives_up"]]
    return min(float(time) for time in times if time is not None)


def _answers(job: Job) -> bool:
    """Return whether the reply comes before the server stops waiting for it."""
    arrives, gives_up = job["arrives"], job["gives_up"]
    return arrives is not None and (gives_up is None or arrives <= gives_up)


def _key(message: Message) -> tuple[int, int, str]:
    config = config_in(message.content)
    number, attempt = int(config.get("server-round", 0)), int(config.get("attempt", 0))
    return number, attempt, str(config.get("job", ""))


def _same(job: Job, site: str, message: Message) -> bool:
    return job["site"] == site and tuple(job["key"]) == _key(message)


def _examples(reply: Message) -> int:
    try:
        return max(0, int(metrics_in(reply.content)[EXAMPLES]))
    except Exception:  # whatever a site sends, it took no steps
        return 0


def _put_back(states: States, before: Mapping[str, RecordDict], site: str) -> None:
    """Let a site remember what it did before a message."""
    if site in before:
        states[site] = before[site]
    else:
        states.pop(site, None)

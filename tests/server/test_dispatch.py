"""Replies that come one by one from a Grid elsewhere; time is the test's own."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import cast

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedpdm.deployment.grid import DeployedGrid
from fedpdm.engines.grid_view import GridView
from fedpdm.server.dispatch import Clock, Dispatcher, LocalRoster, Outgoing
from fedpdm.wire.flower import become_server, set_message_id


class VirtualClock(Clock):
    """Time that goes by only while somebody sleeps."""

    now = 0.0

    def date(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)

    def seconds(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Elsewhere(GridView):
    """Node n answers after ``delays[n]`` seconds; None never."""

    def __init__(self, clock: VirtualClock, delays: dict[int, float | None]) -> None:
        super().__init__(cast(Grid, None))
        self.clock, self.delays = clock, delays
        self.under_way: dict[str, tuple[float, Message]] = {}

    def get_node_ids(self) -> Iterable[int]:
        return list(self.delays)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            node = message.metadata.dst_node_id
            ids.append(f"{node}-{len(self.under_way)}")
            set_message_id(message, ids[-1])
            if (delay := self.delays[node]) is not None:
                reply = Message(RecordDict(), reply_to=message)
                self.under_way[ids[-1]] = (self.clock.now + delay, reply)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        there = [i for i in message_ids if self.under_way.get(i, (1e9,))[0] <= self.clock.now]
        return [self.under_way.pop(i)[1] for i in there]


def dispatcher(
    delays: dict[int, float | None], timeout: float | None
) -> tuple[Dispatcher, VirtualClock]:
    become_server()
    clock = VirtualClock()
    grid = Elsewhere(clock, delays)
    return Dispatcher(grid, LocalRoster(grid), timeout, clock=clock), clock


def messages(*nodes: int) -> Outgoing:
    return Outgoing(
        {node: str(node) for node in nodes}, [Message(RecordDict(), n, "train") for n in nodes]
    )


def test_replies_come_as_they_are_ready_and_more_may_be_submitted_between() -> None:
    sender, clock = dispatcher({1: 30.0, 2: 10.0, 3: 5.0}, None)
    sender.submit(messages(1, 2), print, in_order=False)
    assert clock.now == 0.0, "nobody was waited for"
    heard = []
    while (found := sender.next_reply()) is not None:
        heard.append((found[0], clock.now))
        if found[0] == "2":
            sender.submit(messages(3), print, in_order=False)
    assert heard == [("2", 10.0), ("3", 15.0), ("1", 30.0)]


def test_who_stays_silent_is_noted_and_not_waited_for_for_ever() -> None:
    sender, clock = dispatcher({1: None, 2: 1.0}, 60.0)
    events: list[tuple[str, ...]] = []
    sender.submit(messages(1, 2), lambda *event: events.append(event), in_order=False)  # type: ignore[arg-type,misc]
    assert sender.next_reply()[0] == "2"  # type: ignore[index]
    assert sender.next_reply() is None and clock.now == 60.0
    assert [(event[0], event[2]) for event in events] == [("timeout", "1")]


def test_what_is_forgotten_is_not_heard() -> None:
    sender, clock = dispatcher({1: 5.0}, None)
    sender.submit(messages(1), print, in_order=False)
    sender.forget()
    assert sender.next_reply() is None and clock.now == 0.0


def test_a_deployed_grid_hands_over_replies_one_by_one() -> None:
    become_server()
    clock = VirtualClock()
    grid = DeployedGrid(Elsewhere(clock, {1: 30.0, 2: 10.0}), "rounds: 1")
    sender = Dispatcher(grid, LocalRoster(grid), None, clock=clock)
    sender.submit(messages(1, 2), print, in_order=False)
    assert [(sender.next_reply(), clock.now)[1] for _ in range(2)] == [10.0, 30.0]
    assert sender.next_reply() is None

"""One round of the ray engine: messages out to workers, results back in site order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from flwr.app import Error, Message, RecordDict

from fedpdm.engines.local_grid import CLIENT_APP_RAISED
from fedpdm.engines.ray.worker import Result, Task
from fedpdm.engines.ray.workers import Workers, cause

DEATHS = 3
"""After so many deaths of its worker a site is given up for the round."""


class Sender(Protocol):
    """What a round needs of its Grid."""

    sites: dict[int, str]

    def task(self, message: Message) -> Task: ...

    def put(self, content: RecordDict) -> tuple[int, list[Any]]: ...


@dataclass
class Flight:
    """Sites that were sent to a worker together, by position in the round."""

    positions: list[int]
    reference: Any
    generation: int
    landed: bool = False


class RayDispatch:
    """The messages of one round, on their way to workers and back."""

    def __init__(
        self,
        sender: Sender,
        processes: Workers,
        messages: Sequence[Message],
        workers: Sequence[int],
        ahead: int,
        timeout: float | None,
    ) -> None:
        self._sender, self._crew, self._ray = sender, processes, processes.ray
        self._messages, self._workers = messages, list(workers)
        self._ahead, self._lent = ahead, 0
        self._deadline = None if timeout is None else time.monotonic() + timeout
        count = len(self._crew.seats)
        # With a deadline every site counts for itself and waits for no other.
        self._together = 1 if timeout is not None else max(1, ahead // (2 * count))
        self._waiting: list[deque[int]] = [deque() for _ in range(count)]
        for position, worker in enumerate(workers):
            self._waiting[worker].append(position)
        self._flights: list[deque[Flight]] = [deque() for _ in range(count)]
        self._deaths: dict[int, int] = {}
        self._done: dict[int, Result | Error] = {}
        self._put: dict[int, tuple[int, list[Any]]] = {}
        self._left: dict[int, int] = {}
        for message in messages:
            key = id(message.content)
            self._left[key] = self._left.get(key, 0) + 1

    def fetch(self, position: int) -> Result | Error | None:
        """Return what came of the site whose turn it is; None if it was not done in time."""
        self._send(position)
        while position not in self._done:
            worker = self._workers[position]  # another one, once its first is lost
            if not self._flights[worker] or not self._landed(position, self._flights[worker][0]):
                return None
            self._take(worker)
            self._send(position)
        content = id(self._messages[position].content)
        self._left[content] -= 1
        if not self._left[content]:
            self._put.pop(content, None)  # the store may forget it
        return self._done.pop(position)

    def stop(self) -> None:
        """Remember who is still busy with this round; the next one looks after them.

        ``ray.cancel`` would leave a gap in an actor's order of calls, and Ray waits half a
        minute for the call that is missing.
        """
        for seat, flights in zip(self._crew.seats, self._flights, strict=False):
            for flight in flights:
                if flight.generation == seat.generation:
                    seat.late.append(flight.reference)

    def _send(self, position: int) -> None:
        """Give workers their next sites, as far ahead of ``position`` as is allowed."""
        if self._expired():
            return
        limit = position + self._ahead + self._lent
        for worker, waiting in enumerate(self._waiting):
            flights = self._flights[worker]
            while waiting and waiting[0] < limit:
                suspect = self._deaths.get(waiting[0], 0) > 0
                if flights and (suspect or self._deaths.get(flights[-1].positions[0], 0) > 0):
                    break  # whose worker died works alone, so that the next death is its own
                batch = list(islice(waiting, 1 if suspect else self._together))
                if flights and batch[-1] >= limit:
                    break  # a full batch soon
                content = self._messages[batch[0]].content
                batch = [p for p in batch if p < limit and self._messages[p].content is content]
                for _ in batch:
                    waiting.popleft()
                self._fly(worker, batch)

    def _fly(self, worker: int, batch: list[int]) -> None:
        content = self._messages[batch[0]].content
        if id(content) not in self._put:
            self._put[id(content)] = self._sender.put(content)
        seat = self._crew.seats[worker]
        tasks = [self._sender.task(self._messages[position]) for position in batch]
        reference = seat.actor.work.remote(*self._put[id(content)], tasks)
        self._flights[worker].append(Flight(batch, reference, seat.generation))

    def _expired(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _landed(self, position: int, flight: Flight) -> bool:
        """Wait for a flight, at most until the deadline; return whether it is there.

        While the site whose turn it is keeps everybody waiting under a deadline, workers that
        are done get more than the buffer would hold: else one stuck site would take others
        with it. Ray's store goes to disk when it is full.
        """
        while self._deadline is not None and not flight.landed:
            flying = {f.reference: f for flights in self._flights for f in flights if not f.landed}
            wait = max(0.0, self._deadline - time.monotonic())
            there, _ = self._ray.wait(
                list(flying), num_returns=1 if wait else len(flying), timeout=wait,
                fetch_local=False,
            )  # fmt: skip
            for reference in there:
                flying[reference].landed = True
            if not there or (not wait and not flight.landed):
                return False
            if not flight.landed:
                self._lent += len(there)
                self._send(position)
        return True

    def _take(self, worker: int) -> None:
        """Take a worker's oldest flight; if the worker died, send its sites out again."""
        errors = self._ray.exceptions
        flight = self._flights[worker][0]
        try:
            results = self._ray.get(flight.reference)
        except errors.RayTaskError as error:
            self._flights[worker].popleft()
            failed = Error(CLIENT_APP_RAISED, cause(error))
            self._done |= dict.fromkeys(flight.positions, failed)
        except errors.RayError as error:
            self._repeat(worker, error)
        else:
            self._flights[worker].popleft()
            self._done |= dict(zip(flight.positions, results, strict=True))

    def _repeat(self, worker: int, error: BaseException) -> None:
        """Replace a dead worker and take its sites back; the first of them are under suspicion.

        If there is no room for another worker, those that are left get its sites.
        """
        seat, flights = self._crew.seats[worker], self._flights[worker]
        flight = flights.popleft()
        if flight.generation == seat.generation and not seat.lost:
            self._crew.refill(seat)
        for position in flight.positions:
            self._deaths[position] = self._deaths.get(position, 0) + 1
        back = [position for each in flights for position in each.positions]
        flights.clear()
        again = []
        for position in flight.positions:
            if self._deaths[position] < DEATHS:
                again.append(position)
                continue
            site = self._sender.sites[self._messages[position].metadata.dst_node_id]
            self._done[position] = Error(
                CLIENT_APP_RAISED,
                f"the worker of {site} died {DEATHS} times while it worked: {cause(error)}",
            )
        self._waiting[worker].extendleft(reversed(again + back))
        if seat.lost:
            self._share(worker)

    def _share(self, worker: int) -> None:
        """Give a lost worker's sites to the others, in turn; each works in site order."""
        left = [n for n, seat in enumerate(self._crew.seats) if not seat.lost]
        for turn, position in enumerate(self._waiting[worker]):
            other = left[turn % len(left)]
            self._workers[position] = other
            self._waiting[other].append(position)
        self._waiting[worker].clear()
        for other in left:
            self._waiting[other] = deque(sorted(self._waiting[other]))

"""Messages to the sites and their replies: who is asked, what is sent, who answered."""

from __future__ import annotations

import functools
import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedpdm.aggregation.collector import Note
from fedpdm.data.normalise import Moments, Scaler
from fedpdm.engines.grid_view import SampledGrid
from fedpdm.engines.local_grid import REFUSED, LocalGrid
from fedpdm.errors import ConfigError, SiteError
from fedpdm.server.clock import Clock, States
from fedpdm.server.selection import scaler_sites
from fedpdm.wire.flower import wire_bytes
from fedpdm.wire.records import (
    BUFFERS,
    MOMENTS_QUERY,
    SCALER,
    Arrays,
    moments_in,
    scaler_record,
    to_record,
)


class Roster(Protocol):
    """Which sites a run has, and under which Flower node each can be reached.

    Attributes:
        sites: all sites in the order of the config; what is drawn is drawn from these.
    """

    sites: tuple[str, ...]

    def connected(self) -> dict[str, int]:
        """Return the node of each site that can be reached now."""


class LocalRoster:
    """Sites of an engine on this machine: always there, under the same nodes."""

    def __init__(self, grid: Grid) -> None:
        named: dict[int, str] = dict(getattr(grid, "sites", {}))
        names = named or {node: str(node) for node in grid.get_node_ids()}
        self._nodes = {site: node for node, site in names.items()}
        self.sites = tuple(self._nodes)

    def connected(self) -> dict[str, int]:
        return self._nodes


@dataclass(frozen=True)
class Outgoing:
    """Messages to sites: ``sites`` says which node is which, in site order."""

    nodes: dict[int, str]
    messages: list[Message]

    @property
    def bytes_down(self) -> int:
        return wire_bytes(message.content for message in self.messages)


POLL_SECONDS = 0.5
"""Between two looks for replies."""


class PolledReplies:
    """Messages under way through Flower's ``push_messages`` and ``pull_messages``.

    Args:
        grid: carries them.
        clock: what time it is.
        timeout: seconds for which a reply is waited for, or None.
    """

    def __init__(self, grid: Grid, clock: Clock, timeout: float | None) -> None:
        self._grid, self._clock, self._timeout = grid, clock, timeout
        self._waiting: dict[str, tuple[str, float, Note]] = {}
        self._arrived: deque[tuple[str, Message]] = deque()

    def push(self, asked: Outgoing, note: Note) -> None:
        """Send messages, one per site, without waiting; ``note`` remembers who stays silent."""
        last = float("inf") if self._timeout is None else self._clock.seconds() + self._timeout
        sent = self._grid.push_messages(asked.messages)
        for message, i in zip(asked.messages, sent, strict=True):
            site = asked.nodes[message.metadata.dst_node_id]
            if i:
                self._waiting[i] = (site, last, note)
            else:
                note("timeout", f"{site} could not be sent its message", site)

    def next(self) -> tuple[str, Message] | None:
        """Return the next site's reply; None if none is waited for any more."""
        while not self._arrived and self._waiting:
            for reply in self._grid.pull_messages(list(self._waiting)):
                if found := self._waiting.pop(reply.metadata.reply_to_message_id, None):
                    self._arrived.append((found[0], reply))
            for i, (site, last, note) in list(self._waiting.items()):
                if self._clock.seconds() >= last:
                    del self._waiting[i]
                    note("timeout", f"{site} did not answer (round_timeout={self._timeout})", site)
            if not self._arrived and self._waiting:
                self._clock.sleep(POLL_SECONDS)
        return self._arrived.popleft() if self._arrived else None


@dataclass
class Dispatcher:
    """Messages out and replies in, in site order.

    Attributes:
        grid: carries the messages.
        roster: which sites there are.
        timeout: seconds to wait for replies, or None.
        asked_for_sums: bytes down and up of the query for the scaler.
        clock: what time it is.
        shorten: given a site and the content of its message, returns a shorter one that says the
            same to this site; None to send all as it is.
    """

    grid: Grid
    roster: Roster
    timeout: float | None = None
    asked_for_sums: tuple[int, int] = (0, 0)
    clock: Clock = field(default_factory=Clock)
    shorten: Callable[[str, RecordDict], RecordDict] | None = None
    _submitted: deque[Iterator[tuple[str, Message]]] = field(default_factory=deque)
    _stages: list[tuple[Outgoing, Note]] = field(default_factory=list)
    _beside: dict[str, ArrayRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.forget()

    def share(self, scaler: Scaler) -> None:
        """Send a scaler along from now on, the same record every round: sites decode it once."""
        self._beside[SCALER] = scaler_record(scaler)

    def ask(
        self,
        sites: Iterable[str],
        note: Note,
        configure: Callable[[Grid], Iterable[Message]],
        buffers: Arrays,
    ) -> Outgoing:
        """Let a strategy write messages to sites, and add what travels beside its arrays.

        Args:
            sites: who is to be asked; who is not connected is noted and left out.
            note: where that goes.
            configure: the strategy's ``configure_train`` or ``configure_evaluate``.
            buffers: sent beside the parameters.
        """
        connected = self.roster.connected()
        nodes = {}
        for site in sites:
            if site in connected:
                nodes[connected[site]] = site
            else:
                note("timeout", f"{site} is not connected", site)
        messages = list(configure(SampledGrid(self.grid, list(nodes)))) if nodes else []
        beside = self._beside | ({BUFFERS: to_record(buffers)} if buffers else {})
        for content in {id(m.content): m.content for m in messages}.values():
            for key, record in beside.items():
                content[key] = record
        if (shorten := self.shorten) is not None:
            for message in messages:
                site = nodes.get(message.metadata.dst_node_id, "")
                message.content = shorten(site, message.content)
        return Outgoing(nodes, messages)

    def answers(
        self, asked: Outgoing, note: Note | None, patient: bool = False
    ) -> Iterator[tuple[str, Message]]:
        """Send, and yield each site's reply in site order as it comes; note who stayed silent.

        With ``patient``, sites on this machine are waited for as long as they take.

        Raises:
            ConfigError: every site refuses what it was asked for.
        """
        silent, refusals = dict(asked.nodes), list[str]()
        if isinstance(self.grid, LocalGrid):
            timeout = None if patient else self.timeout
            replies: Iterable[Message] = self.grid.stream(asked.messages, timeout)
        else:
            place = {node: position for position, node in enumerate(asked.nodes)}
            found = self.grid.send_and_receive(asked.messages, timeout=self.timeout)
            replies = sorted(found, key=lambda r: place.get(r.metadata.src_node_id, len(place)))
        for reply in replies:
            node = reply.metadata.src_node_id
            if node in silent:  # who was not asked, or answers twice, is not heard
                if reply.has_error() and reply.error.code == REFUSED:
                    refusals.append(str(reply.error.reason))
                yield silent.pop(node), reply
        if refusals and len(refusals) == len(asked.nodes):
            raise ConfigError(refusals[0])  # it is what was asked for that cannot work
        for site in silent.values():
            if note is not None:
                note("timeout", f"{site} did not answer (round_timeout={self.timeout})", site)

    def submit(self, asked: Outgoing, note: Note, in_order: bool) -> None:
        """Hand messages over without waiting; their replies come from ``next_reply``.

        Engines on this machine work while they are asked for replies, and give them in site order.

        Args:
            asked: the messages.
            note: remembers who stays silent.
            in_order: other Grids, too, give all of these replies at once and in site order; what
                is submitted before the next reply is asked for goes out together.
        """
        if in_order:
            self._stages.append((asked, note))
        elif (carrier := self.clock.carrier()) is not None:
            answers = self.answers(asked, None, patient=True)
            carrier.push(self._told(asked), answers, self._remembered())
        elif isinstance(self.grid, LocalGrid):
            self._submitted.append(self.answers(asked, note))
        else:
            self._elsewhere.push(asked, note)

    def next_reply(self) -> tuple[str, Message] | None:
        """Return a site and its reply to what was submitted first; None if nothing is left."""
        while self._submitted or self._stages:
            if not self._submitted:
                self._submitted.append(self._stage())
            if (found := next(self._submitted[0], None)) is not None:
                return found
            self._submitted.popleft()
        carrier = self.clock.carrier()
        return self._elsewhere.next() if carrier is None else carrier.pop()

    def _stage(self) -> Iterator[tuple[str, Message]]:
        """Send what waits for its turn, all at once: the models of clusters in one round."""
        notes = [note for _, note in self._stages]
        nodes = {node: site for asked, _ in self._stages for node, site in asked.nodes.items()}
        asked = Outgoing(
            {node: nodes[node] for node in sorted(nodes)},
            [message for each, _ in self._stages for message in each.messages],
        )
        self._stages.clear()
        if (carrier := self.clock.carrier()) is None:
            return self.answers(asked, notes[-1])
        answers = self.answers(asked, None, patient=True)
        return carrier.in_turn(self._told(asked), answers, self._remembered(), notes[-1])

    def _told(self, asked: Outgoing) -> dict[str, Message]:
        """Return each site's message."""
        return {asked.nodes[m.metadata.dst_node_id]: m for m in asked.messages}

    def _remembered(self) -> States:
        """Return what the sites of simulated time remember, itself."""
        if not isinstance(self.grid, LocalGrid):
            raise ConfigError("clock=virtual simulates sites on this machine; use clock=wall here")
        return self.grid.states

    def forget(self) -> None:
        """Give up the replies to what was submitted."""
        self._stages.clear()
        self._submitted.clear()
        self._elsewhere = PolledReplies(self.grid, self.clock, self.timeout)

    def moments(self, seed: int, note: Note) -> Moments:
        """One Flower query round: sites answer with sums, never with rows.

        On this machine every site is waited for: which sites make the scaler of the whole run
        must not depend on the clock.

        Args:
            seed: draws who is asked, where there are many.
            note: where sites go whose sums are missing.

        Raises:
            SiteError: a site could not sum up its rows, or none answered.
        """
        connected = self.roster.connected()
        chosen = scaler_sites(self.roster.sites, seed)
        nodes = {connected[site]: site for site in chosen if site in connected}
        asked = Outgoing(nodes, [Message(RecordDict(), node, MOMENTS_QUERY) for node in nodes])
        parts: dict[str, Moments] = {}
        up = 0
        for site, reply in self.answers(asked, None, patient=True):
            if reply.has_error():
                raise SiteError(f"{site} could not sum up its training rows: {reply.error.reason}")
            up += wire_bytes([reply.content])
            try:
                found = moments_in(reply.content)
            except Exception as error:  # whatever a site sends, the run goes on
                note("refused", f"{site}: its sums cannot be read ({type(error).__name__})", site)
                continue
            if flaw := found.flaw(next(iter(parts.values()), found)):
                note("refused", f"{site}: its sums are refused, {flaw}", site)
                continue
            parts[site] = found
        if not parts:
            raise SiteError("no site answered the query for its sums; is any connected?")
        for site in chosen:
            if site not in parts:
                note("timeout", f"{site} sent no sums; the shared scaler is made without it", site)
        self.asked_for_sums = (asked.bytes_down, up)
        return functools.reduce(operator.add, parts.values())

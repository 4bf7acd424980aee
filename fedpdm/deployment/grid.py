"""A Flower Grid to real machines, which adds the config to every message."""

from __future__ import annotations

import time
from collections.abc import Iterable

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from fedpdm.deployment.envelope import ANOTHER_SITE, ENVELOPE, Envelope
from fedpdm.engines.grid_view import GridView
from fedpdm.engines.local_grid import REFUSED
from fedpdm.wire.flower import set_message_id

POLL_SECONDS = 0.5
"""Between two looks for replies; Flower's own Grid looks every three seconds."""
AFTERLIFE_SECONDS = 5.0
"""A message lives so much longer than its answer is waited for: we time out, not the SuperLink."""
APP_ANSWERED = {1, 2, 6, 7, 8, ANOTHER_SITE, REFUSED}
"""Error codes that a site's app answers with: it is there, it just could not work."""
MOST_REASON = 500
"""Characters of a site's error that are kept; another machine wrote them."""
NOT_REACHED = 991
"""Error code of a reply that we write for a node that no message could be left for."""


class DeployedGrid(GridView):
    """A Grid whose messages carry the run's config, and whose silent nodes are remembered.

    Args:
        grid: Flower's, between this ServerApp and its SuperLink.
        config: the composed config as yaml; goes with every message.

    Attributes:
        names: site by node, as far as known; tells a site which site a message is for.
        silent: nodes that did not answer the last message they were sent, and how many in a row.
        strangers: nodes that answered that they are not who they were thought to be.
    """

    def __init__(self, grid: Grid, config: str) -> None:
        super().__init__(grid)
        self._config = config
        self.names: dict[int, str] = {}
        self.silent: dict[int, int] = {}
        self.strangers: set[int] = set()
        self._under_way: dict[str, Message] = {}

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send, and return the replies that came in time, those of nodes now gone as errors.

        A message that nobody fetched in time is not worth working on later: it lives as long
        as its answer is waited for.
        """
        asked = list(messages)
        sent = self.leave(asked, timeout)
        reached = {message.metadata.dst_node_id for message in sent.values()}
        replies = [
            Message(Error(NOT_REACHED, "the message could not be left for it"), reply_to=message)
            for message in asked
            if message.metadata.dst_node_id not in reached
        ]
        deadline = None if timeout is None else time.monotonic() + timeout
        while sent:
            replies += self.collect(sent)
            if not sent or (deadline is not None and time.monotonic() >= deadline):
                break
            time.sleep(POLL_SECONDS)
        for reply in replies:
            node = reply.metadata.src_node_id
            code = reply.error.code if reply.has_error() else None
            if code is None or code in APP_ANSWERED:
                self.silent.pop(node, None)
            else:
                self.silent[node] = self.silent.get(node, 0) + 1
            if code == ANOTHER_SITE:
                self.strangers.add(node)
        for message in sent.values():
            node = message.metadata.dst_node_id
            self.silent[node] = self.silent.get(node, 0) + 1
        return replies

    def leave(self, messages: Iterable[Message], timeout: float | None) -> dict[str, Message]:
        """Leave messages at the SuperLink; return the given ones by the ids they got."""
        asked = list(messages)
        outgoing = [self._addressed(message, timeout) for message in asked]
        ids = list(self._grid.push_messages(outgoing)) if outgoing else []
        return {i: message for i, message in zip(ids, asked, strict=False) if i}

    def collect(self, sent: dict[str, Message]) -> list[Message]:
        """Return the replies that are there, and take what they answer out of ``sent``."""
        found = []
        for reply in self._grid.pull_messages(list(sent)):
            message = sent.pop(reply.metadata.reply_to_message_id, None)
            if message is None:
                continue
            if reply.has_error():
                reason = "".join(c for c in str(reply.error.reason) if c.isprintable())
                error = Error(reply.error.code, reason[:MOST_REASON])
                found.append(Message(error, reply_to=message))
            else:
                found.append(Message(reply.content, reply_to=message))
        return found

    def _addressed(self, message: Message, timeout: float | None) -> Message:
        node = message.metadata.dst_node_id
        envelope = Envelope(self._config, self.names.get(node, ""))
        content = RecordDict({**dict(message.content.items()), ENVELOPE: envelope.record()})
        ttl = message.metadata.ttl
        if timeout is not None:
            ttl = min(ttl, timeout + AFTERLIFE_SECONDS)
        kind, group = message.metadata.message_type, message.metadata.group_id
        return Message(content, node, kind, ttl=ttl, group_id=group)

    # Flower's side ----------------------------------------------------------------------

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        asked = list(messages)
        sent = self.leave(asked, None)
        for message_id, message in sent.items():
            set_message_id(message, message_id)  # its reply says what it answers
        self._under_way |= sent
        left = {id(message): message_id for message_id, message in sent.items()}
        return [left.get(id(message), "") for message in asked]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        wanted = {i: self._under_way.pop(i) for i in message_ids if i in self._under_way}
        found = self.collect(wanted)
        self._under_way |= wanted
        return found

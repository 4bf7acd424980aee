"""The serial engine: one process, plants in turn, in site order.

Where a debugger works, and the truth that other engines are compared with.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable, Mapping, Sequence

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedpdm.engines.flower import RUN_ID, become_server, local_run, set_message_id
from fedpdm.errors import FedPdmError

CLIENT_APP_RAISED = 2
"""Flower's error code for an exception inside a ClientApp."""


class SerialGrid(Grid):
    """A Flower Grid whose plants live in this process.

    Node ids are 1 … N in the order of ``sites``, so they are the same in every run.
    Replies come back in site order, whatever order the messages had.

    Attributes:
        sites: plant name by node id, in site order.
        states: each plant's ``Context.state``; kept by the history.
    """

    def __init__(self, client_app: ClientApp, sites: Sequence[str]) -> None:
        become_server()
        self.sites: dict[int, str] = dict(enumerate(sites, start=1))
        self.states: dict[str, RecordDict] = {}
        self._app = client_app
        self._run = local_run()
        self._sent = 0
        self._replies: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def get_node_ids(self) -> Iterable[int]:
        return list(self.sites)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in sorted(messages, key=lambda m: m.metadata.dst_node_id):
            self._sent += 1
            set_message_id(message, f"message-{self._sent}")
            reply = self._work(message)
            set_message_id(reply, f"reply-{self._sent}")
            self._replies[message.metadata.message_id] = reply
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Let the plants work in turn; with ``timeout``, who is not done by then is left out."""
        if timeout is None:
            return self.pull_messages(self.push_messages(messages))
        deadline = time.monotonic() + timeout
        replies: list[Message] = []
        for message in sorted(messages, key=lambda m: m.metadata.dst_node_id):
            if time.monotonic() >= deadline:
                break
            reply = self.pull_messages(self.push_messages([message]))
            if time.monotonic() < deadline:
                replies += reply
        return replies

    def load_states(self, states: Mapping[str, RecordDict]) -> None:
        """Give the plants the states they had when a round was committed."""
        self.states = dict(states)

    def _work(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        site = self.sites[node]
        context = Context(
            run_id=RUN_ID,
            node_id=node,
            node_config={"site": site, "partition-id": node - 1, "num-partitions": len(self.sites)},
            state=self.states.get(site, RecordDict()),
            run_config={},
        )
        try:
            reply = self._app(message, context)
        except FedPdmError as error:
            return Message(Error(CLIENT_APP_RAISED, str(error)), reply_to=message)
        except Exception as error:
            # A plant's crash is one event of the round, not the end of the run.
            where = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
            return Message(Error(CLIENT_APP_RAISED, reason), reply_to=message)
        if len(context.state):
            self.states[site] = context.state
        return reply

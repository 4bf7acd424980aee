"""Base class of the local engines: a Flower Grid whose sites are known by name."""

from __future__ import annotations

import copy
import traceback
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedpdm.errors import ConfigError, FedPdmError
from fedpdm.wire.flower import RUN_ID, become_server, local_run, set_message_id

CLIENT_APP_RAISED = 2
"""Flower's error code for an exception inside a ClientApp."""
REFUSED = 992
"""Error code of a reply: what the message asks for can be done by no such site."""


class LocalGrid(Grid):
    """A Flower Grid over sites of this machine (or of one Ray cluster).

    Node ids are 1 … N in the order of ``sites``, so they are the same in every run.
    Replies come back in site order, whatever order the messages had.

    Attributes:
        sites: site name by node id, in site order.
        states: each site's ``Context.state``; kept by the history.
    """

    name: ClassVar[str]
    """What the manifest, the report and ``engine=auto`` call the engine."""
    in_process: ClassVar[bool] = True
    """Whether sites train in this process, so that its processor time is theirs."""

    def __init__(self, client_app: ClientApp, sites: Sequence[str]) -> None:
        become_server()
        self.sites: dict[int, str] = dict(enumerate(sites, start=1))
        self.states: dict[str, RecordDict] = {}
        self.client_app = client_app
        self._run = local_run()
        self._sent = 0
        self._replies: dict[str, Message] = {}

    @classmethod
    def check(cls, device: torch.device, **settings: Any) -> None:
        """Refuse settings that cannot work, before a run has written anything.

        Args:
            device: where the sites train.
            settings: the engine's yaml, its target aside.

        Raises:
            ConfigError: names the setting.
        """

    @abstractmethod
    def stream(
        self, messages: Iterable[Message], timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield the replies in site order, each as soon as it is there and it is its turn.

        Args:
            messages: one per site.
            timeout: seconds after which sites that are not done are left out.
        """

    def close(self) -> None:
        """Let go of processes and memory. The grid cannot be used afterwards."""

    def load_states(self, states: Mapping[str, RecordDict]) -> None:
        """Give the sites the states they had when a round was committed."""
        self.states = dict(states)

    # Flower's side ----------------------------------------------------------------------

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
        sent = list(messages)
        for reply in self.stream(sent):
            self._replies[reply.metadata.reply_to_message_id] = reply
        return [message.metadata.message_id for message in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return list(self.stream(messages, timeout))

    # For the engines ----------------------------------------------------------------------

    def numbered(self, messages: Iterable[Message]) -> list[Message]:
        """Return the messages in site order, each with an id."""
        ordered = sorted(messages, key=lambda m: m.metadata.dst_node_id)
        for message in ordered:
            self._sent += 1
            set_message_id(message, f"message-{self._sent}")
        return ordered

    def context(self, node: int) -> Context:
        """Return a site's context, with the state it last had."""
        site = self.sites[node]
        state = self.states.get(site)
        if state is not None:
            # A copy: what a site remembers of a message that it could not answer is forgotten.
            state = copy.deepcopy(state)
        return make_context(node, site, len(self.sites), state)

    def answer(self, message: Message) -> Message:
        """Let a site work in this process, and keep its state."""
        context = self.context(message.metadata.dst_node_id)
        reply = answer(self.client_app, message, context)
        if len(context.state) and not reply.has_error():
            self.states[self.sites[context.node_id]] = context.state
        return reply


def make_context(node: int, site: str, count: int, state: RecordDict | None = None) -> Context:
    """Return the context in which a site's app runs."""
    return Context(
        run_id=RUN_ID,
        node_id=node,
        node_config={"site": site, "partition-id": node - 1, "num-partitions": count},
        state=RecordDict() if state is None else state,
        run_config={},
    )


def answer(
    app: Callable[[Message, Context], Message], message: Message, context: Context
) -> Message:
    """Return the site's reply; its crash is one event of the round, not the end of the run."""
    try:
        reply = app(message, context)
    except FedPdmError as error:
        reply = refusal(error, message)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
        reply = Message(Error(CLIENT_APP_RAISED, reason), reply_to=message)
    set_message_id(reply, f"reply-to-{message.metadata.message_id}")
    return reply


def refusal(error: FedPdmError, message: Message) -> Message:
    """Return the reply of a site that cannot do what a message asks for, and why."""
    code = REFUSED if isinstance(error, ConfigError) else CLIENT_APP_RAISED
    return Message(Error(code, str(error)), reply_to=message)

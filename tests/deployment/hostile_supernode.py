"""A supernode with a valid key that sends what its site's app never said: one kind in each round.

The kinds are in the environment variable HOSTILE; ``tests/toys/hostile.py`` has those of the app.

    replay      the reply of the site's first round instead of the round's own
    duplicate   the reply again when it has arrived, and a third time as a message of its own
    forged      the reply in the name of every other node, too
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.supernode.cli import flower_supernode
from flwr.supernode.fleet_http_client import FleetHttpClient

from tests.deployment import supernode

KINDS = os.environ["HOSTILE"].split(",")
OTHERS = os.environ.get("HOSTILE_OTHERS", "").split()
first: list[PushMessagesRequest] = []
answered: list[str] = []
later: list[Callable[[], Any]] = []
honest, honest_pull = FleetHttpClient.PushMessages, FleetHttpClient.PullMessages


def push(self: FleetHttpClient, request: PushMessagesRequest, *rest: Any) -> Any:
    metadata = request.messages_list[0].metadata
    if metadata.message_type != "train":
        return honest(self, request, *rest)
    if metadata.reply_to_message_id not in answered:
        answered.append(metadata.reply_to_message_id)
    kind = KINDS[min(len(answered), len(KINDS)) - 1]
    first.append(request)
    if kind == "replay":
        return honest(self, first[0], *rest)
    response = honest(self, request, *rest)
    if kind == "duplicate":
        later.append(partial(honest, self, request))
        later.append(partial(again, self, request, "f" * 64, metadata.src_node_id))
    if kind == "forged":
        for place, node in enumerate(OTHERS):
            again(self, request, f"{place:064x}", int(node))
    return response


def pull(self: FleetHttpClient, request: PullMessagesRequest) -> Any:
    """Look for messages; by then the last reply has arrived."""
    while later:
        later.pop(0)()
    return honest_pull(self, request)


def again(client: FleetHttpClient, request: PushMessagesRequest, number: str, node: int) -> None:
    """Send a reply under another message id and, it says, from another node."""
    changed = PushMessagesRequest()
    changed.CopyFrom(request)
    changed.messages_list[0].metadata.message_id = number
    changed.messages_list[0].metadata.src_node_id = node
    try:
        told = honest(client, changed)
        print(f"again as {node}: {list(told.objects_to_push)}", flush=True)
    except Exception as error:
        print(f"again as {node}: {error}", flush=True)


if __name__ == "__main__":
    assert supernode.LOOK_SECONDS
    FleetHttpClient.PushMessages = push  # type: ignore[method-assign]
    FleetHttpClient.PullMessages = pull  # type: ignore[method-assign]
    flower_supernode()

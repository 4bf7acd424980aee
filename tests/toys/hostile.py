"""A site's own code that sends what no site should: one kind of it in each round.

The environment variable HOSTILE has the kinds, with commas between. What only a supernode can do
(``tests/deployment/hostile_supernode.py``) is done with a reply of float64, but "replay" with an
honest one, which is never sent.

Imported while the site's app is being built, once per message, so it changes what comes next.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from flwr.app import Context, Message

from fedpdm.deployment import client
from fedpdm.wire.records import ARRAYS, arrays_in, config_in, to_record

honest_app = client.client_app


def hostile_app(experiment: Any) -> Any:
    honest = honest_app(experiment)

    def app(message: Message, context: Context) -> Message:
        reply = honest(message, context)
        if message.metadata.message_type != "train":
            return reply
        number = int(config_in(message.content)["server-round"])
        arrays = arrays_in(reply.content, ARRAYS)
        kind = os.environ["HOSTILE"].split(",")[number - 1]
        if kind == "giant":
            arrays = {name: np.zeros(2_000_000, np.float32) for name in arrays}
        elif kind == "slow":
            time.sleep(60)
        elif kind == "huge":
            arrays = {name: np.full_like(array, 3e38) for name, array in arrays.items()}
        elif kind != "replay":
            arrays = {name: array.astype(np.float64) + 1e300 for name, array in arrays.items()}
        reply.content[ARRAYS] = to_record(arrays)
        return reply

    return app


def hostile_test(*_: Any) -> dict[str, Any]:
    return {"test": {}, "heldout": None, "details": {"card": {"threshold": "<script>alert"}}}


client.client_app = hostile_app
client.try_out = hostile_test

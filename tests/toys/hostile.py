"""A site's own code that sends what no site should: one kind of it in each round.

Imported while the site's app is being built, once per message, so it changes what comes next.
"""

from __future__ import annotations

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
        if number == 1:
            arrays = {name: array.astype(np.float64) + 1e300 for name, array in arrays.items()}
        elif number == 2:
            arrays = {name: np.zeros(2_000_000, np.float32) for name in arrays}
        elif number == 3:
            time.sleep(60)
        else:
            arrays = {name: np.full_like(array, 3e38) for name, array in arrays.items()}
        reply.content[ARRAYS] = to_record(arrays)
        return reply

    return app


def hostile_test(*_: Any) -> dict[str, Any]:
    return {"test": {}, "heldout": None, "details": {"card": {"threshold": "<script>alert"}}}


client.client_app = hostile_app
client.try_out = hostile_test

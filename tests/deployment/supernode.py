"""``flower-supernode`` that looks for messages often and whose death is noticed after 20 seconds.

Flower looks every three seconds, and takes a supernode for alive until a minute after its last
sign of life; no option says otherwise. Tests would mostly wait.
"""

import time
from types import SimpleNamespace

from flwr.supercore import heartbeat
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.cli import flower_supernode

SECONDS = 10
"""The least that a SuperLink allows. It waits for two of these."""
LOOK_SECONDS = 0.3
"""Between two looks for messages."""

heartbeat.HEARTBEAT_DEFAULT_INTERVAL = SECONDS
fleet_http_connection.HEARTBEAT_DEFAULT_INTERVAL = SECONDS
start_client_internal.time = SimpleNamespace(  # type: ignore[assignment]
    **vars(time) | {"sleep": lambda seconds: time.sleep(min(seconds, LOOK_SECONDS))}
)

if __name__ == "__main__":
    flower_supernode()

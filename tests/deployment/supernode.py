"""``flower-supernode`` whose death is noticed after 20 seconds.

Flower takes a supernode for alive until a minute after its last sign of life, and no option
says otherwise. Tests that kill one would mostly wait.
"""

from flwr.supercore import heartbeat
from flwr.supernode import fleet_http_connection
from flwr.supernode.cli import flower_supernode

SECONDS = 10
"""The least that a SuperLink allows. It waits for two of these."""

heartbeat.HEARTBEAT_DEFAULT_INTERVAL = SECONDS
fleet_http_connection.HEARTBEAT_DEFAULT_INTERVAL = SECONDS

if __name__ == "__main__":
    flower_supernode()

"""Run a federation on two Ray nodes of this machine, kill one in round 2, and compare with serial.

python two_nodes.py FOLDER
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from ray.cluster_utils import Cluster

from fedpdm.engines.ray.grid import RayGrid
from fedpdm.testing.federated import federate, same

NODE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80_000_000}
SOON = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
"""Ray takes a node for dead after two seconds instead of half a minute."""


def main(folder: Path) -> None:
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**NODE, "include_dashboard": False, "_system_config": SOON},
    )
    other = cluster.add_node(**NODE)
    flag = folder / "now"

    def marker(message: Message, context: Context, call: Any) -> Message:
        if message.content.config_records["config"]["server-round"] == 2:
            flag.touch()
        return call(message, context)  # type: ignore[no-any-return]

    class Falling(RayGrid):
        """Loses a node as soon as a site works in round 2."""

        def stream(self, messages: Any, timeout: float | None = None) -> Any:
            for reply in super().stream(messages, timeout):
                if flag.exists() and len(cluster.worker_nodes) == 1:
                    cluster.remove_node(other, allow_graceful=False)
                yield reply

    run = functools.partial(federate, sites=6, model="mlp", rounds=3, mods=[marker])
    whole = run(folder / "serial")
    flag.unlink()
    grids: list[RayGrid] = []

    def engine(app: Any, sites: Any) -> RayGrid:
        grids.append(Falling(app, sites, workers=2, address=cluster.address))
        return grids[0]

    fallen = run(folder / "ray", engine=engine)
    left = sum(not seat.lost for seat in grids[0].processes.seats)
    bits = all(same(whole.weights(n), fallen.weights(n)) for n in range(4))
    events = fallen.screen.events
    grids[0].close()
    cluster.shutdown()
    assert bits and left == 1 and not events, (bits, left, events)
    print(f"same bits, {left} of 2 workers left")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

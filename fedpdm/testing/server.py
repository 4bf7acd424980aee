"""The contract of a server: what the loop, the history and the engines rely on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from flwr.app import Message

from fedpdm.engines.serial import SerialGrid
from fedpdm.engines.stacked.grid import BatchedGrid
from fedpdm.server.base import Server
from fedpdm.server.clock import Clock
from fedpdm.testing.federated import EngineOf, Federated, check_resume, distance, federate
from fedpdm.testing.strategy import TOLERANCE, UNMOVED
from fedpdm.training.loop import TrainingSettings, batch_sizes
from fedpdm.wire.flower import pack_state
from fedpdm.wire.records import Arrays

SITES, BATCH = 4, 16
STILL = TrainingSettings(1, BATCH, 1e-30, optimizer="sgd")
"""Sites come back with what they received: no weight is as small as such a step."""


def check_server(
    build: Callable[[], Server],
    *,
    clock: Callable[[], Clock] | None = None,
    engines: Sequence[EngineOf] = (BatchedGrid,),
    **options: Any,
) -> None:
    """Check that a server keeps its contract, on a tiny federation in a temporary folder.

    Checked are: sites that come back with what they received leave every model unchanged; no reply
    is changed after a site sent it; models, and what server and sites remember, survive a stop and
    a restart bit for bit; other engines come to the same models as the serial one (in double
    precision, to the last digits).

    Args:
        build: makes a new server, as its yaml would.
        clock: makes a new clock; None for the time of this machine.
        engines: compared with the serial engine.
        **options: of ``federate``, for each run: a strategy, transforms, a policy.

    Raises:
        AssertionError: says in one sentence what is broken.
    """
    with TemporaryDirectory(prefix="fedpdm-check-") as name:
        folder = Path(name)

        def run(label: str, rounds: int = 2, **more: Any) -> Federated:
            given = {"sites": SITES, **options, **more}
            if clock is not None:
                given["clock"] = prepared(clock(), given["sites"])
            return federate(folder / label, rounds=rounds, server=build, **given)

        check_idle(run("idle", 3, settings=STILL, engine=Watched))
        check_resume(run, notes=("clusters",))
        serial = run("serial", double=True)
        for engine in engines:
            other = run(engine.__name__, double=True, engine=engine)
            for label, model in models(serial, 2).items():
                found = models(other, 2).get(label, {})
                apart = max(
                    float(np.abs(a - found[n]).max()) if n in found else float("inf")
                    for n, a in model.items()
                )
                if not apart <= TOLERANCE:
                    raise AssertionError(
                        f"after two rounds {label or 'the model'} of {engine.__name__} differs "
                        f"from the serial engine's by {apart:.1g}"
                    )


def prepared(clock: Clock, sites: int) -> Clock:
    """Return a clock that knows the sites of ``federate``."""
    names = [f"p{n}" for n in range(sites)]
    clock.prepare(names, 0, lambda examples: len(batch_sizes(examples, BATCH)), None)
    return clock


class Watched(SerialGrid):
    """The serial engine, which knows afterwards what replies were when they came."""

    def stream(
        self, messages: Iterable[Message], timeout: float | None = None
    ) -> Iterator[Message]:
        self.came = getattr(self, "came", [])
        for reply in super().stream(messages, timeout):
            if reply.has_content():
                self.came.append((reply, pack_state(reply.content)))
            yield reply


def check_idle(run: Federated) -> None:
    """Check a run on ``Watched`` in which every site came back with what it received.

    Raises:
        AssertionError: a model moved, or a reply was changed.
    """
    grid = run.grid
    assert isinstance(grid, Watched)
    if any(pack_state(reply.content) != before for reply, before in grid.came):
        raise AssertionError("the content of a reply was changed: copy arrays first")
    # Models that start apart are there from round 1 on; one that is new then was another's.
    last = run.history.rounds()[-1].round
    first = [run.weights(0), *models(run, 1).values()]
    for label, model in models(run, last).items():
        moved = min(distance(before, model) for before in first)
        if not moved < UNMOVED:
            raise AssertionError(
                f"{label or 'the model'} moved by {moved:.1g} of its length in {last} rounds in "
                "which every site came back with what it received"
            )


def models(run: Federated, number: int) -> dict[str, Arrays]:
    """Return all models of a round by name; "" is the one in its weights file."""
    return {"": run.weights(number), **run.history.models(number)}

"""The contract of an engine: what the server loop relies on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict

from fedpdm.engines.serial import SerialGrid
from fedpdm.strategies.scaffold import Scaffold
from fedpdm.testing.federated import EngineOf, Federated, federate, states
from fedpdm.training.loop import TrainingSettings
from fedpdm.wire.records import from_record

SETTINGS = TrainingSettings(1, 16, 0.05, optimizer="sgd")
SITES = 4


def check_engine(build: EngineOf, *, tolerance: float = 0.0) -> None:
    """Check that an engine keeps its contract, on a tiny federation in a temporary folder.

    Checked are: replies in site order whatever the order of the messages; weights and client
    state of the serial engine; states that can be put back; a site that fails as one error
    reply among the others' replies; ``close`` that leaves no process behind.

    Args:
        build: makes the engine from the client app and the names of the sites.
        tolerance: how far a weight may be from the serial engine's, in double precision; 0
            asks for the same bits.

    Raises:
        AssertionError: says in one sentence what is broken.
    """
    running = descendants()
    with TemporaryDirectory(prefix="fedpdm-check-") as name:
        folder = Path(name)
        expected = _run(folder / "serial", SerialGrid)
        found = _run(folder / "engine", build)
        try:
            _check_replies(found)
            _check_equal(expected.weights(), found.weights(), tolerance, "the weights of round 2")
            _check_memory(expected, found, tolerance)
        finally:
            found.grid.close()
        failing = _run(folder / "failing", build, broken=["p1"], federated_scaling=False)
        failing.grid.close()
        failed = {str(event["site"]) for event in failing.screen.events}
        trained = {site for site, facts in failing.history.rounds()[1].sites.items()
                   if "examples" in facts}  # fmt: skip
        if failed != {"p1"} or trained != {"p0", "p2", "p3"}:
            raise AssertionError(
                f"one of four sites (p1) cannot read its data: errors came from "
                f"{_names(failed)} and updates from {_names(trained)}"
            )
    if left := still_there(running):
        raise AssertionError(f"close() left processes running: {_names(left)}")


def _names(found: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, found))) or "none"


def _run(folder: Path, build: EngineOf, **options: Any) -> Federated:
    return federate(
        folder, Scaffold(), sites=SITES, rounds=2, settings=SETTINGS, double=True, engine=build,
        **options,
    )  # fmt: skip


def _check_replies(run: Federated) -> None:
    messages = [Message(RecordDict(), node, "query.moments") for node in (3, 1, 4, 2)]
    replies = list(run.grid.send_and_receive(messages))
    nodes = [reply.metadata.src_node_id for reply in replies]
    if nodes != [1, 2, 3, 4]:
        came = ", ".join(map(str, nodes))
        raise AssertionError(f"replies must come in site order, 1, 2, 3, 4, and came as {came}")
    if {reply.metadata.reply_to_message_id for reply in replies} != {
        message.metadata.message_id for message in messages
    }:
        raise AssertionError("replies do not name the messages that they answer")


def _check_memory(expected: Federated, found: Federated, tolerance: float) -> None:
    if set(expected.grid.states) != set(found.grid.states):
        raise AssertionError(
            f"client state was kept of {_names(found.grid.states)}, not of "
            f"{_names(expected.grid.states)}"
        )
    for site, state in expected.grid.states.items():
        for name, record in state.array_records.items():
            kept = found.grid.states[site].array_records[name]
            what = f"what {site} remembers ({name})"
            _check_equal(from_record(record), from_record(kept), tolerance, what)
    before = states(found)
    found.grid.load_states(dict(found.grid.states))
    if states(found) != before:
        raise AssertionError("load_states does not give sites the states that it is given")


def _check_equal(
    expected: Mapping[str, Any], found: Mapping[str, Any], tolerance: float, what: str
) -> None:
    for name, array in expected.items():
        apart = float(np.abs(array - found[name]).max())
        if not apart <= tolerance:
            raise AssertionError(f"{what} differ from the serial engine's: {name} by {apart:.1g}")


def descendants() -> set[int]:
    """Return the ids of all processes below this one (none where there is no /proc)."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it has just ended
        if state != "Z":
            parents[int(file.parent.name)] = int(parent)
    found, new = set[int](), {os.getpid()}
    while new:
        new = {child for child, parent in parents.items() if parent in new}
        found |= new
    return found


def still_there(before: set[int], seconds: float = 30.0) -> set[int]:
    """Return descendants that were not there ``before`` and do not end by themselves."""
    deadline = time.monotonic() + seconds
    while (left := descendants() - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left

"""The contract of a strategy: what the server loop, the history and the engines rely on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp.strategy import Strategy

from fedpdm.engines.stacked.grid import BatchedGrid
from fedpdm.errors import ConfigError
from fedpdm.testing.federated import EngineOf, Federated, check_resume, distance, federate, same
from fedpdm.training.loop import TrainingSettings
from fedpdm.wire.flower import pack_state
from fedpdm.wire.records import ARRAYS, arrays_in, from_record, to_record

SITES = (1, 2, 5)
TOLERANCE = 1e-9
UNMOVED = 1e-5
"""Of the model's length: adaptive steps enlarge what is left of rounding."""


def check_strategy(
    build: Callable[[], Strategy],
    *,
    optimizer: str = "adam",
    moves_without_updates: bool = False,
    changes_replies: bool = False,
    engines: Sequence[EngineOf] = (BatchedGrid,),
) -> None:
    """Check that a strategy keeps its contract, on a tiny federation in a temporary folder.

    Checked are: with 1, 2 and 5 sites it trains or says with a ConfigError why it cannot;
    sites that return what they received leave the model unchanged; aggregation changes no
    reply; what it remembers, and what its sites remember, survives a stop and a restart bit
    for bit; other engines come to the same weights as the serial one (in double precision,
    to the last digits).

    Args:
        build: makes a new strategy, as its yaml would.
        optimizer: what the sites train with, ``adam`` or ``sgd``.
        moves_without_updates: declares that the model may change although no site changed
            it, as noise or a correction of the server would.
        changes_replies: declares that aggregation writes into the messages it is given, as
            Flower's FedMedian does.
        engines: compared with the serial engine; empty for a strategy that cannot be stacked.

    Raises:
        AssertionError: says in one sentence what is broken.
    """
    settings = TrainingSettings(
        local_epochs=1, batch_size=16, learning_rate=0.05 if optimizer == "sgd" else 5e-3,
        optimizer=optimizer, clip_norm=1.0,
    )  # fmt: skip
    with TemporaryDirectory(prefix="fedpdm-check-") as name:
        folder = Path(name)

        def run(label: str, **options: Any) -> Federated:
            # One site evaluates: what it measures decides nothing here.
            return federate(
                folder / label, build(), settings=settings, evaluate_fraction=0.1, **options
            )

        tried = {count: _trained(run, count) for count in SITES}
        refusals = {n: found for n, found in tried.items() if isinstance(found, ConfigError)}
        able = {n: found for n, found in tried.items() if not isinstance(found, ConfigError)}
        if not able:
            said = refusals[SITES[-1]]
            raise AssertionError(f"the strategy refuses 1, 2 and 5 sites: {said}") from said
        count, trained = [*able.items()][-1]
        if not moves_without_updates:
            idle = run("idle", sites=count, rounds=2, mods=[returns_what_it_received])
            moved = distance(idle.weights(0), idle.weights(2))
            if not moved < UNMOVED:
                raise AssertionError(
                    f"the model moved by {moved:.1g} of its length in two rounds in which every "
                    "site returned what it received: aggregate updates, not weights, or declare "
                    "moves_without_updates=True"
                )
        _check_aggregation(trained, changes_replies)
        check_resume(lambda label, rounds: run(label, sites=count, rounds=rounds))
        serial = run("serial", sites=count, rounds=2, double=True)
        for engine in engines:
            other = run(engine.__name__, sites=count, rounds=2, double=True, engine=engine)
            apart = max(
                float(np.abs(array - other.weights(2)[name]).max())
                for name, array in serial.weights(2).items()
            )
            if not apart <= TOLERANCE:
                raise AssertionError(
                    f"after two rounds the weights of {engine.__name__} differ from the serial "
                    f"engine's by {apart:.1g}: draw random numbers and keep what a site "
                    "remembers by site, never in the object that serves all sites"
                )


def returns_what_it_received(
    message: Message, context: Context, call: ClientAppCallable
) -> Message:
    """Let a site train, and reply with the parameters that it was sent: a client mod."""
    reply = call(message, context)
    reply.content[ARRAYS] = to_record(arrays_in(message.content, ARRAYS))
    return reply


def _trained(run: Callable[..., Federated], count: int) -> Federated | ConfigError:
    """Train one round with so many sites; return the run, or why the strategy cannot."""
    try:
        trained = run(f"{count}-sites", sites=count, rounds=1)
    except ConfigError as error:
        return error  # it says why; that is what is asked of it
    if trained.screen.events:
        raise AssertionError(f"round 1 with {count} site(s): {trained.screen.events[0]['message']}")
    if same(trained.weights(0), trained.weights(1)):
        raise AssertionError(f"round 1 with {count} site(s) did not change the model")
    return trained


def _check_aggregation(trained: Federated, changes_replies: bool) -> None:
    strategy, grid = trained.loop.strategy, trained.grid
    stored = trained.weights()
    weights = {name: stored[name] for name in trained.loop.trainable}
    config = ConfigRecord({"server-round": 2, "attempt": 0})
    messages = list(strategy.configure_train(2, to_record(weights), config, grid))
    replies = list(grid.send_and_receive(messages))
    before = [pack_state(reply.content) for reply in replies]
    found, _ = strategy.aggregate_train(2, replies)
    changed = [pack_state(reply.content) for reply in replies] != before
    if changed and not changes_replies:
        raise AssertionError(
            "aggregate_train changed the content of a reply: copy arrays first, or declare "
            "changes_replies=True"
        )
    if found is None:
        raise AssertionError("aggregate_train returned no arrays although every site replied")
    shapes = {name: array.shape for name, array in from_record(found).items()}
    if shapes != {name: array.shape for name, array in weights.items()}:
        raise AssertionError("aggregate_train returned other names or shapes than it was sent")

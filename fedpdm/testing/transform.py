"""The contract of a transform: what sites, the server and the history rely on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fedpdm.aggregation.update import Base, Update
from fedpdm.seeding import numpy_generator
from fedpdm.strategies.scaffold import Scaffold
from fedpdm.testing.federated import Federated, check_resume, federate
from fedpdm.training.loop import TrainingSettings
from fedpdm.transforms.base import Transform
from fedpdm.wire.records import ARRAYS, BUFFERS, EXAMPLES, Arrays

SETTINGS = TrainingSettings(1, 16, 0.05, optimizer="sgd")
OWN = "own"


def check_transform(build: Callable[[], Transform], *, tolerance: float | None = None) -> None:
    """Check that a transform keeps its contract, alone and in a tiny federation.

    Checked are: ``encode`` and ``decode`` change no array in place, keep names and shapes, and
    draw from the generator that they are given only; they bring the update back, if a tolerance
    is given; what sites and server remember survives a stop and a restart bit for bit; the
    records of a strategy with a client half pass through unless ``records`` leaves them out.

    Args:
        build: makes a new transform, as its yaml would.
        tolerance: how far a value may be from the original after encode and decode, relative
            to the largest; None for a transform that is meant to lose or to hide something.

    Raises:
        AssertionError: says in one sentence what is broken.
    """
    update = _update()
    before = _bytes(update)
    sent, back = _there_and_back(build(), update)
    if _bytes(update) != before:
        raise AssertionError("the transform changed arrays of the update in place: copy them first")
    again, _ = _there_and_back(build(), update)
    if _bytes(sent) != _bytes(again):
        raise AssertionError(
            "encode gives different results for one update and one generator: draw random "
            "numbers from the generator that it is given only"
        )
    for record, arrays in update.records.items():
        shapes = {name: np.shape(array) for name, array in back.records[record].items()}
        if shapes != {name: array.shape for name, array in arrays.items()}:
            raise AssertionError(f"after encode and decode, {record} has other names or shapes")
        if tolerance is not None:
            _check_close(record, arrays, back.records[record], tolerance)
    with TemporaryDirectory(prefix="fedpdm-check-") as name:
        folder = Path(name)

        def run(label: str, rounds: int) -> Federated:
            return federate(
                folder / label, Scaffold(), transforms={"checked": build()}, sites=3,
                settings=SETTINGS, rounds=rounds,
            )  # fmt: skip

        check_resume(run)


def _update() -> Update:
    random = np.random.default_rng(0)

    def drawn() -> Arrays:
        return {
            "weight": random.normal(size=(4, 3)).astype(np.float32),
            "bias": random.normal(size=4).astype(np.float32),
        }

    buffers = {"count": np.array(3)}
    records = {ARRAYS: drawn(), BUFFERS: {"count": np.array(7)}, OWN: drawn()}
    config = {"server-round": 1, "attempt": 0}
    return Update("p0", Base(0, drawn(), buffers, config), records, {EXAMPLES: 5.0}, 5.0)


def _there_and_back(transform: Transform, update: Update) -> tuple[Update, Update]:
    transform.name = "checked"
    memory: dict[str, Arrays] = {}
    sent = transform.encode(update, memory, numpy_generator(0, "check-transform"))
    before = _bytes(sent)
    back = transform.decode(sent)
    if _bytes(sent) != before:
        raise AssertionError("decode changed arrays of the update in place: copy them first")
    return sent, back


def _bytes(update: Update) -> dict[str, dict[str, bytes]]:
    return {
        record: {name: np.asarray(array).tobytes() for name, array in arrays.items()}
        for record, arrays in {**update.records, "base": update.base.arrays}.items()
    }


def _check_close(record: str, expected: Arrays, found: Arrays, tolerance: float) -> None:
    for name, array in expected.items():
        largest = max(float(np.abs(array).max()), 1e-12)
        apart = float(np.abs(array.astype(float) - found[name]).max()) / largest
        if not apart <= tolerance:
            raise AssertionError(
                f"after encode and decode, {name} of {record} is {apart:.1g} of its largest "
                f"value away from the original, more than {tolerance:g}"
            )

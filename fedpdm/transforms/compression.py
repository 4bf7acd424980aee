"""What compressing transforms share: differences, error feedback, both ways, and strict reading.

A compression packs the difference between what a site made of a model and the model that it got,
all tensors of a record together. What does not fit into the message, the rest, is remembered and
added to the next difference (error feedback: Seide et al. 2014; Stich et al. 2018, *Sparsified
SGD with Memory*, NeurIPS, algorithm 1; Karimireddy et al. 2019, *Error Feedback Fixes SignSGD and
other Gradient Compression Schemes*, ICML, algorithm 2):

    p_t = Δ_t + e_t,   what travels = C(p_t),   e_{t+1} = p_t − C(p_t)

so that Σ C(p_t) + e_{T+1} = Σ Δ_t: nothing is lost, it comes late. A compression is a pair of
functions, ``pack`` and ``unpack``; both ends call ``unpack``, so both know the same C(p).

*What is compressed*: the weights, and the records that a strategy's client half sends beside them
(SCAFFOLD's controls), each with a rest of its own. *What is not*: buffers, because a running
variance must not become negative and they are few; metrics; and, on the way down, what a strategy
sends beside the model.

*On the way down* (``direction``) see ``fedpdm.transforms.downlink``.

Rests are memory of the site (of one more model, and one more for each strategy's record): kept by
the history, taken back with an update that does not count.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpdm.aggregation.update import Update
from fedpdm.errors import ConfigError
from fedpdm.storage import cut
from fedpdm.transforms.base import Stage, Transform
from fedpdm.wire.records import BUFFERS, Arrays

DIRECTIONS = ("both", "up", "down")
REST, OWN = "rest", "own"


class Compression(Transform):
    """A transform whose messages only its other half can read.

    Args:
        direction: ``up``: updates; ``down``: the model that sites get; ``both``.
        error_feedback: what did not fit into a message is remembered and sent later.

    Raises:
        ConfigError: there is no such direction.
    """

    stage: ClassVar[Stage] = Stage.COMPRESS

    def __init__(self, direction: str = "both", error_feedback: bool = True) -> None:
        super().__init__()
        if direction not in DIRECTIONS:
            raise ConfigError(
                f"transforms: direction={direction} of {type(self).__name__} is unknown; choose "
                f"{', '.join(DIRECTIONS)}"
            )
        self.error_feedback = error_feedback
        self.up, self.down = direction != "down", direction != "up"
        self.needs_values = self.packs = self.up

    @abstractmethod
    def pack(self, change: Arrays, own: Arrays, generator: np.random.Generator) -> Arrays:
        """Return what travels in place of differences.

        Args:
            change: the differences by tensor, rests included. Not to be changed in place.
            own: what the method itself remembered of this record, empty at first; entries may
                be set.
            generator: draws what is random.
        """

    @abstractmethod
    def unpack(self, packed: Arrays, like: Arrays) -> Arrays:
        """Return the differences that a message stands for.

        Args:
            packed: what ``pack`` returned, or whatever a site sent in its place.
            like: arrays with the names, shapes and types of the differences.

        Raises:
            ValueError: ``pack`` could not have returned this.
        """

    def step(
        self,
        change: Arrays,
        memory: dict[str, Arrays],
        record: str,
        generator: np.random.Generator,
    ) -> tuple[Arrays, Arrays]:
        """Return what travels of differences and what it stands for; remember the rest.

        Args:
            change: the differences by tensor.
            memory: groups of arrays; those of this record are replaced.
            record: its name.
            generator: draws what is random.
        """
        rest, own = memory.get(f"{record}.{REST}", {}), dict(memory.get(f"{record}.{OWN}", {}))
        whole = {n: d + rest[n] if n in rest else d for n, d in change.items()}
        with np.errstate(all="ignore"):  # training may have diverged; the server says so
            packed = self.pack(whole, own, generator)
            if not all(np.isfinite(d).all() for d in whole.values()):
                return packed, whole  # the server refuses it, and its rest would spoil later ones
        sent = self.unpack(packed, change)
        if self.error_feedback:
            memory[f"{record}.{REST}"] = {n: d - sent[n] for n, d in whole.items()}
        if own:
            memory[f"{record}.{OWN}"] = own
        return packed, sent

    def encode(
        self, update: Update, state: dict[str, Arrays], generator: np.random.Generator
    ) -> Update:
        if not self.up:
            return update
        packed = {
            record: self.step(update.delta(record), state, record, generator)[0]
            for record, arrays in update.records.items()
            if record != BUFFERS and arrays
        }
        return replace(update, records={**update.records, **packed})

    def decode(self, update: Update) -> Update:
        if not self.up:
            return update
        for record, packed in dict(update.records).items():
            if record != BUFFERS:
                change = self.unpack(packed, update.base.arrays)
                update = update.with_delta(change, record)
        return update


def flat(arrays: Arrays) -> NDArray[Any]:
    """Return (D,) values of all arrays, one after another."""
    return np.concatenate([np.reshape(a, -1) for a in arrays.values()] or [np.zeros(0)])


def unflat(vector: NDArray[Any], like: Arrays) -> Arrays:
    """Return (D,) values as arrays with the names, shapes and types of others."""
    parts = cut(vector, {name: array.shape for name, array in like.items()})
    return {n: np.asarray(part, like[n].dtype) for n, part in parts.items()}


def kind_of(like: Arrays) -> np.dtype[Any]:
    """Return the type of ``flat``."""
    return np.result_type(*like.values() or [np.float64])


def read(packed: Arrays, **forms: tuple[int, Any]) -> list[NDArray[Any]]:
    """Return the arrays of a message in the order of their forms.

    Args:
        packed: what came.
        **forms: for each array that there must be, its length and its type, or several types.

    Raises:
        ValueError: others came, of another length or type, or numbers that are not finite.
    """
    if packed.keys() != forms.keys():
        raise ValueError(f"it holds {len(packed)} arrays, not {', '.join(forms)} of a compression")
    for name, (length, kinds) in forms.items():
        array, known = packed[name], kinds if isinstance(kinds, tuple) else (kinds,)
        if array.shape != (length,):
            raise ValueError(f"{name} has shape {array.shape}, not ({length},)")
        if array.dtype not in known:
            raise ValueError(f"{name} holds {array.dtype}, not {' or '.join(map(str, known))}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity")
    return [packed[name] for name in forms]


def check(what: Compression, ranges: Mapping[str, tuple[float, float, float]]) -> None:
    """Refuse settings out of their range.

    Args:
        what: whose they are.
        ranges: by name of the setting: its value, the least and the most that it can be.

    Raises:
        ConfigError: names the setting.
    """
    for name, (value, least, most) in ranges.items():
        if not least <= value <= most:
            raise ConfigError(
                f"transforms: {name}={value:g} of {type(what).__name__} must lie between "
                f"{least:g} and {most:g}"
            )

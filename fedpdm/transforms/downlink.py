"""Compression on the way down: sites that hold the last model get what changed.

Tang et al. 2019, *DoubleSqueeze* (ICML), algorithm 1: the server compresses, too, with error
feedback of its own. With x_t the model of round t as every site knows it, y what the strategy
made of the round and e the server's rest,

    d = C(y − x_{t−1} + e),   x_t = x_{t−1} + d,   e ← y − x_{t−1} + e − d

The model of a round *is* x_t: it is committed, evaluated and tested, so what is measured is what
sites have, and the strategy starts from it again.

*Who gets what.* A site keeps the model that it was last sent, as its memory: with a round that
does not count it is taken back, in deployment it lies in the site's own files. So the server
knows from its history which one that is. A site whose update went into the round before gets d,
to evaluate x_t, and if it answered, nothing but a checksum to train from it; all others (new
ones, those that were not sampled, failed, were late or were refused) get the whole model. Nothing
has to be added up over rounds, and no message depends on one that may have been lost. The scaler,
which never changes, is left out in the same way.

*It costs* memory of one model at each site, and of the rest at the server. The checksum is that of
the model that is meant: a site that comes to another one refuses, with an event, and gets the
whole model next time.
"""

from __future__ import annotations

import hashlib
from typing import Any, Protocol, cast

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from fedpdm.errors import SiteError
from fedpdm.wire.flower import content_of
from fedpdm.wire.records import ARRAYS, SCALER, Arrays, arrays_in, to_record

DIFFERENCE, SUM = "difference", "difference.sum"
HELD = "strategy.downlink."
"""How the names of records begin in which a site keeps what it was sent (``client.state``)."""
DIGEST_BYTES = 8
"""Of a SHA-256: it guards against mistakes, not against people."""


class Codec(Protocol):
    """What the way down needs of a compression."""

    state: dict[str, Any]

    def step(
        self,
        change: Arrays,
        memory: dict[str, Arrays],
        record: str,
        generator: np.random.Generator,
    ) -> tuple[Arrays, Arrays]: ...

    def unpack(self, packed: Arrays, like: Arrays) -> Arrays: ...


class Downlink:
    """Both ends of the way down.

    Args:
        codec: packs and unpacks; what the server must remember is in its ``state``, which the
            history keeps.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._short: tuple[RecordDict, RecordDict, RecordDict] | None = None
        self._opened: tuple[bytes, RecordDict] | None = None

    # The server's end -----------------------------------------------------------------------

    def publish(
        self, version: int, old: Arrays, new: Arrays, generator: np.random.Generator
    ) -> Arrays:
        """Return the model that sites come to, in place of one that the strategy made.

        Args:
            version: its number.
            old: the model of the version before, as sites know it.
            new: what the strategy made of it.
            generator: draws what is random.
        """
        if not all(np.isfinite(array).all() for array in new.values()):
            return new  # the loop says whose fault it is
        memory: dict[str, Arrays] = self._codec.state.get("memory", {})
        memory = dict(memory)
        change = {name: new[name] - array for name, array in old.items()}
        packed, sent = self._codec.step(change, memory, ARRAYS, generator)
        model = moved(old, sent)
        self._short = None
        self._codec.state = {
            "version": version, "packed": packed, "memory": memory,
            "model": digest(model).hex(),
        }  # fmt: skip
        return model

    def shortened(
        self, content: RecordDict, counted: int | None, evaluated: int | None
    ) -> RecordDict:
        """Return the content of a message to a site: what changed, where that is enough.

        Args:
            content: with the whole model.
            counted: the last round that an update of the site went into: it holds the model from
                which it made that update.
            evaluated: the last round whose model it evaluated after that: it holds this one.
        """
        state = self._codec.state
        if counted is None or state.get("version") != counted:
            return content
        if self._short is None or self._short[0] is not content:
            self._short = (content, *self._shorten(content, state))
        return self._short[2 if evaluated == counted else 1]

    def _shorten(self, content: RecordDict, state: dict[str, Any]) -> tuple[RecordDict, RecordDict]:
        """Return the content with what changed, and with the checksum only."""
        arrays = arrays_in(content, ARRAYS)
        if digest(arrays).hex() != state["model"]:
            return content, content  # the strategy sends something else
        check = ConfigRecord({"sha256": digest(arrays, arrays_in(content, SCALER))})
        kept = {n: r for n, r in content.items() if n not in (ARRAYS, SCALER)} | {SUM: check}
        return content_of({**kept, DIFFERENCE: to_record(state["packed"])}), content_of(kept)

    # The site's end -------------------------------------------------------------------------

    def opened(self, content: RecordDict, state: RecordDict) -> RecordDict:
        """Return the content of a message with the whole model.

        Args:
            content: as it came.
            state: the site's ``Context.state``.

        Raises:
            SiteError: the site does not come to the model that the server means.
        """
        if SUM not in content:
            return content
        held, scaler = arrays_in(state, HELD + ARRAYS), arrays_in(state, HELD + SCALER)
        arrays, wanted = held, cast(ConfigRecord, content[SUM])["sha256"]
        check = digest(arrays, scaler)
        if check != wanted and DIFFERENCE in content:
            arrays = moved(held, self._codec.unpack(arrays_in(content, DIFFERENCE), held))
            check = digest(arrays, scaler)
        if check != wanted:
            raise SiteError("the model that this site holds is not the one that the server means")
        if self._opened is None or self._opened[0] != check:
            # The same records for all sites of a process: what is made of them is made once.
            found = {ARRAYS: to_record(arrays)} | ({SCALER: to_record(scaler)} if scaler else {})
            self._opened = (check, content_of(found))
        kept = {n: r for n, r in content.items() if n not in (DIFFERENCE, SUM)}
        return content_of({**self._opened[1], **kept})

    def keep(self, content: RecordDict, state: RecordDict, first: bool = True) -> None:
        """Let a site remember what it was sent, once it has worked with it.

        Args:
            content: with the whole model.
            state: changed in place.
            first: also where it holds nothing yet. A site that never trains is never sent less.
        """
        for name in (ARRAYS, SCALER):
            if name in content and (first or HELD + name in state):
                state[HELD + name] = content[name]


def moved(old: Arrays, change: Arrays) -> Arrays:
    """Return arrays moved by differences, in their own types: the same bits at both ends."""
    return {name: (array + change[name]).astype(array.dtype) for name, array in old.items()}


def digest(*records: Arrays) -> bytes:
    """Return a checksum of names, types and values."""
    found = hashlib.sha256()
    for arrays in records:
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name])
            found.update(f"{name} {array.dtype} {array.shape}\n".encode())
            found.update(array.data if array.size else b"")
    return found.digest()[:DIGEST_BYTES]

"""A site's update in a round, decoded: what it made of a base version of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from fedpdm.wire.records import ARRAYS, BUFFERS, EXAMPLES, Arrays, arrays_in, metrics_in


class Base:
    """The model that a site was sent.

    Args:
        version: the committed round whose weights they are.
        arrays: the parameters.
        buffers: what was sent beside them.
        config: what else the message said, at a site; the server has none here.
    """

    def __init__(
        self,
        version: int,
        arrays: Arrays,
        buffers: Arrays,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.version, self.arrays, self.buffers = version, arrays, buffers
        self.config = config or {}
        self._last: Arrays | None = None

    @cached_property
    def _start(self) -> NDArray[np.float64]:
        parts = [array.reshape(-1) for array in self.arrays.values()]
        return np.concatenate(parts or [np.zeros(0)]).astype(np.float64)

    @cached_property
    def _values(self) -> NDArray[Any]:
        # Memory that every site uses again: fresh pages cost more than the sums.
        return np.empty(self._start.size, np.result_type(*self.arrays.values() or [0.0]))

    @cached_property
    def _scratch(self) -> NDArray[np.float64]:
        return np.empty_like(self._start)

    def vector(self, arrays: Arrays) -> NDArray[Any]:
        """Return (P,) values of arrays with the parameters' names and shapes, until the next
        call; screening and accumulation ask for the same ones in turn."""
        if self.arrays and self._last is not arrays:
            parts = [arrays[name].reshape(-1) for name in self.arrays]
            np.concatenate(parts, out=self._values, casting="unsafe")
            self._last = arrays
        return self._values

    def distance(self, arrays: Arrays) -> float:
        """Return the Euclidean distance of such arrays from what was sent.

        For float32 and narrower types it is NaN or infinite if, and only if, a value is.
        """
        change = np.subtract(self.vector(arrays), self._start, out=self._scratch)
        return float(np.sqrt(np.dot(change, change)))


@dataclass(frozen=True)
class Update:
    """What a site made of a base version. Nothing in it is to be changed in place.

    Attributes:
        site: who sent it.
        base: the model that the site was sent.
        records: ``arrays`` (the new weights), ``buffers``, and the records that the strategy's
            client half sends beside them.
        metrics: what the site reported, ``num-examples`` among it.
        weight: what it counts in weighted sums.
        premultiplied: the values of ``records`` are multiplied by ``weight`` already.
    """

    site: str
    base: Base
    records: Mapping[str, Arrays]
    metrics: Mapping[str, float]
    weight: float
    premultiplied: bool = False

    @property
    def base_version(self) -> int:
        return self.base.version

    @property
    def arrays(self) -> Arrays:
        return self.records.get(ARRAYS, {})

    @property
    def buffers(self) -> Arrays:
        return self.records.get(BUFFERS, {})

    @property
    def examples(self) -> float:
        return self.metrics[EXAMPLES]

    @cached_property
    def norm(self) -> float:
        """Euclidean distance of the new weights from those that were sent."""
        return self.base.distance(self.arrays)

    def origin(self, record: str) -> Arrays:
        """Return what a record is compared with: what was sent; nothing, for what starts at 0."""
        return {ARRAYS: self.base.arrays, BUFFERS: self.base.buffers}.get(record, {})

    def delta(self, record: str = ARRAYS) -> Arrays:
        """Return by how much a record's arrays differ from what was sent."""
        origin = self.origin(record)
        return {n: a - origin[n] if n in origin else a for n, a in self.records[record].items()}

    def with_delta(self, delta: Arrays, record: str = ARRAYS) -> Update:
        """Return the update with other differences from what was sent, in the types of that.

        A strategy's own records, which are not sent, have the types of the parameters.
        """
        origin, like = self.origin(record), self.base.arrays
        new = {
            n: (origin[n] + d).astype(origin[n].dtype)
            if n in origin
            else d.astype(like[n].dtype, copy=False)
            if n in like
            else d
            for n, d in delta.items()
        }
        return replace(self, records={**self.records, record: new})


@dataclass(frozen=True)
class Contribution:
    """What remains of an accepted update when its arrays are added up.

    Attributes:
        site: who sent it.
        metrics: what the site reported.
        norm: length of the update; None if the server cannot see its values.
    """

    site: str
    metrics: Mapping[str, float]
    norm: float | None

    @property
    def examples(self) -> float:
        return self.metrics[EXAMPLES]


def decode(
    site: str,
    content: RecordDict,
    base: Base,
    records: Iterable[str],
    weigh: Callable[[Mapping[str, float]], float],
) -> Update:
    """Read a reply.

    Args:
        site: who sent it.
        content: of its message.
        base: what it answers.
        records: the names of the records to read; one that is not there is read as empty.
        weigh: gives an update's weight from its metrics.

    Raises:
        Exception: of any kind; a site may send whatever it likes.
    """
    metrics = metrics_in(content)
    found = {name: arrays_in(content, name) for name in records}
    metrics[EXAMPLES]  # without it nothing can be weighted
    return Update(site, base, found, metrics, weigh(metrics))

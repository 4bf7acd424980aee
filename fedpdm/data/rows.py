"""A site's rows: sensor readings in raw units, and each machine's lives and failures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Floats32: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
Strings: TypeAlias = NDArray[np.str_]

HASHED = ("values", "time", "life", "time_to_failure", "observed", "split", "condition")
COLUMNS = ("machine", *HASHED)
"""The arrays of ``Rows`` that every data set has, R long."""


class Split(IntEnum):
    """The part of the data a row belongs to."""

    UNUSED = -1  # purged: near a cut, its label or its window would look across it
    TRAIN = 0
    VALIDATION = 1
    TEST = 2
    HELDOUT = 3  # machines that no training or validation row comes from


@dataclass(frozen=True)
class Rows:
    """Rows of one site, sorted by machine and, within a machine, by time.

    R rows, F features. Time is in the data set's own unit (days, cycles); only
    differences matter.

    Attributes:
        features: F names, the order of the columns of ``values``.
        values: (R, F) float64 in raw units; NaN where a reading is missing.
        machine: (R,) machine id.
        time: (R,) float64.
        life: (R,) which life of its machine a row belongs to: a repair or replacement
            ends one and begins the next. Windows never cross lives.
        time_to_failure: (R,) float64 >= 0, the time from the row to the failure that ends
            its life; NaN where no failure was seen (censored).
        observed: (R,) float64 >= 0, how long after the row its life was still watched. A
            censored row is a known negative for a horizon only if ``observed >= horizon``.
        label: (R,) int64 class that the data itself gives, or None. Where it is set, the
            failure task uses it and asks for no horizon.
        condition: (R,) int64 operating condition, 0 … K-1, for condition-wise scaling.
        split: (R,) of ``Split``.
        pad: if true, lives shorter than the window are padded at their start with their
            first row (and counted), instead of giving no window.
        test_last_only: if true, remaining-useful-life is tested on each machine's last row
            only, as C-MAPSS prescribes.
        max_gap: the longest time between two rows of a window; a longer gap ends a segment.
    """

    features: tuple[str, ...]
    values: Floats
    machine: Strings
    time: Floats
    life: Ints
    time_to_failure: Floats
    observed: Floats
    split: NDArray[np.int8]
    condition: Ints
    label: Ints | None = None
    pad: bool = False
    test_last_only: bool = False
    max_gap: float = np.inf
    groups: dict[str, Strings] = field(default_factory=dict)
    """Further (R,) columns that a partition may use, for example the product type."""

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Ints | Bools) -> Rows:
        """Return the rows at ``index`` (positions or a mask), in that order."""
        return replace(
            self,
            **{name: getattr(self, name)[index] for name in COLUMNS},
            label=None if self.label is None else self.label[index],
            groups={name: column[index] for name, column in self.groups.items()},
        )

    @staticmethod
    def concatenate(parts: Sequence[Rows]) -> Rows:
        """Return the rows of several sources as one set; what is not a column must agree.

        Raises:
            ValueError: features, padding, labels or groups differ.
        """
        first = parts[0]
        if len(parts) == 1:
            return first
        if any(part._kind != first._kind for part in parts):
            raise ValueError("rows with other features, labels or groups cannot be joined")
        labels = [part.label for part in parts if part.label is not None]
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS
        }
        return replace(
            first,
            **joined,
            label=np.concatenate(labels) if labels else None,
            groups={k: np.concatenate([p.groups[k] for p in parts]) for k in first.groups},
        )

    @property
    def _kind(self) -> tuple[object, ...]:
        """What rows must have in common to be joined."""
        return self.features, self.pad, self.test_last_only, [*self.groups], self.label is None

    def sha256(self) -> str:
        """Hash of content and split: two runs on the same bytes agree on it."""
        digest = hashlib.sha256("\x1f".join(self.features).encode())
        for name in HASHED if self.label is None else (*HASHED, "label"):
            column = getattr(self, name)
            digest.update(np.ascontiguousarray(column).tobytes())
        digest.update("\x1f".join(self.machine.tolist()).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Events:
    """E events in any order: (E,) machine ids, (E,) times, and (E,) which are failures.

    An event that is no failure (a repair, a replacement) ends a life without one.
    """

    machine: Strings
    time: Floats
    failure: Bools


def machine_slices(machine: Strings) -> dict[str, slice]:
    """Return where in (R,) machine ids, of which equal ones stand together, each one's rows are."""
    starts = np.flatnonzero(np.r_[len(machine) > 0, machine[1:] != machine[:-1]]).tolist()
    return {str(machine[a]): slice(a, b) for a, b in pairwise([*starts, len(machine)])}


def lives(
    machine: Strings, time: Floats, events: Events, digits: int | None = 9
) -> tuple[Ints, Floats, Floats]:
    """Return ``life``, ``time_to_failure`` and ``observed`` of ``Rows``.

    A row's life ends at the first event of its machine at or after the row; the first row
    after an event starts a new life. A failure gives its row the time until then. A repair
    censors: the life was watched until the repair and did not fail. Without a later event
    the life was watched until the machine's last row. A failure and a repair at the same
    time count as the failure, which the repair answered.

    Args:
        machine: (R,) rows of a machine stand together.
        time: (R,) sorted within each machine.
        events: the site's log; events of machines without rows are passed over.
        digits: decimals to round to. Dates counted in days carry rounding of about 1e-12: a
            failure after exactly the horizon must lie within it. None: as they are.

    Returns:
        (R,) int64, (R,) float64 with NaN where no failure ends the life, (R,) float64.
    """
    life = np.zeros(len(time), dtype=np.int64)
    to_failure = np.full(len(time), np.nan)
    observed = np.zeros(len(time))
    order = np.lexsort((~events.failure, events.time))
    named = events.machine[order]
    for name, part in machine_slices(machine).items():
        own = order[named == name]
        mine = time[part]
        life[part] = following = np.searchsorted(events.time[own], mine, side="left")
        # After the last event the life was watched until the machine's last row.
        observed[part] = np.append(events.time[own], mine[-1])[following] - mine
        fails = np.append(events.failure[own], False)[following]
        to_failure[part] = np.where(fails, observed[part], np.nan)
    if digits is None:
        return life, to_failure, observed
    return life, np.round(to_failure, digits), np.round(observed, digits)


def rows_with_lives(
    features: tuple[str, ...],
    machine: Strings,
    time: Floats,
    values: Floats,
    events: Events,
    digits: int | None = 9,
    label: Ints | None = None,
) -> Rows:
    """Return readings and the lives that a log gives them, as rows of no split yet.

    Args:
        features: F names.
        machine: (R,) rows of a machine stand together.
        time: (R,) sorted within each machine.
        values: (R, F) readings.
        events: the site's log.
        digits: as for ``lives``.
        label: (R,) class that the data itself gives, or None.
    """
    split = np.full(len(time), Split.UNUSED, dtype=np.int8)
    life, to_failure, observed = lives(machine, time, events, digits)
    condition = np.zeros(len(time), dtype=np.int64)
    return Rows(
        features, values, machine, time, life, to_failure, observed, split, condition, label
    )


def within_horizon(rows: Rows, horizon: float) -> tuple[Bools, Bools]:
    """Return (R,) whether a failure follows within ``horizon``, and (R,) whether that is known.

    A censored row is known to be negative only if its life was watched for the horizon. So
    near the end of a record only positives are known: splits must leave that stretch out
    (``fedpdm.data.splits.cuts.undecided``).
    """
    fails: Bools = np.asarray(~np.isnan(rows.time_to_failure))
    positive = fails & (np.where(fails, rows.time_to_failure, np.inf) <= horizon)
    known: Bools = np.asarray(fails | (rows.observed >= horizon))
    return positive, known

"""What a site owns: sensor rows in raw units, and what became of each machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Floats32: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
Strings: TypeAlias = NDArray[np.str_]


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
    groups: dict[str, Strings] = field(default_factory=dict)
    """Further (R,) columns that a partition may use, for example the product type."""

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Ints | Bools) -> Rows:
        """Return the rows at ``index`` (positions or a mask), in that order."""
        return replace(
            self,
            values=self.values[index],
            machine=self.machine[index],
            time=self.time[index],
            life=self.life[index],
            time_to_failure=self.time_to_failure[index],
            observed=self.observed[index],
            split=self.split[index],
            condition=self.condition[index],
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
        for part in parts[1:]:
            same = (part.features, part.pad, part.test_last_only, list(part.groups))
            if same != (first.features, first.pad, first.test_last_only, list(first.groups)) or (
                (part.label is None) != (first.label is None)
            ):
                raise ValueError("rows with other features, labels or groups cannot be joined")
        labels = [part.label for part in parts if part.label is not None]
        return replace(
            first,
            values=np.concatenate([part.values for part in parts]),
            machine=np.concatenate([part.machine for part in parts]),
            time=np.concatenate([part.time for part in parts]),
            life=np.concatenate([part.life for part in parts]),
            time_to_failure=np.concatenate([part.time_to_failure for part in parts]),
            observed=np.concatenate([part.observed for part in parts]),
            split=np.concatenate([part.split for part in parts]),
            condition=np.concatenate([part.condition for part in parts]),
            label=np.concatenate(labels) if labels else None,
            groups={k: np.concatenate([p.groups[k] for p in parts]) for k in first.groups},
        )

    def sha256(self) -> str:
        """Hash of content and split: two runs on the same bytes agree on it."""
        digest = hashlib.sha256("\x1f".join(self.features).encode())
        columns: list[NDArray[np.generic]] = [
            self.values, self.time, self.life, self.time_to_failure, self.observed,
        ]  # fmt: skip
        columns += [self.split, self.condition]
        if self.label is not None:
            columns.append(self.label)
        for column in columns:
            digest.update(np.ascontiguousarray(column).tobytes())
        digest.update("\x1f".join(self.machine.tolist()).encode())
        return digest.hexdigest()

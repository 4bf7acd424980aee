"""Windows: model inputs from rows. Shapes: N windows, T time steps, F features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.rows import Bools, Floats, Floats32, Ints, Rows, Strings

COLUMNS = ("x", "y", "truth", "machine", "time", "padded", "last")
"""The arrays that all windows have."""
Real = TypeVar("Real", np.float32, np.float64)


@dataclass(frozen=True)
class Windows:
    """Inputs and targets of one split of one site.

    Attributes:
        x: (N, T, F) float32, or (N, F) for tabular data; scaled, no NaN.
        y: (N,) int64 class or float32 value, or (N, H) float32 for several horizons.
        truth: (N,) float64, what the target was made from (for RUL: uncapped; else ``y``).
        machine: (N,) machine id.
        time: (N,) time of the window's last row.
        padded: (N,) true where the life was shorter than T and its first row was repeated.
        last: (N,) true for the last row of a machine.
        made: (N,) true where resampling repeated or made up a window, which it does in
            training only; None where nothing was resampled. A window that was made up belongs
            to no machine (``""``) and has no time (NaN).
    """

    x: Floats32
    y: NDArray[np.generic]
    truth: Floats
    machine: Strings
    time: Floats
    padded: Bools
    last: Bools
    made: Bools | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Ints | Bools) -> Windows:
        """Return the windows at ``index`` (positions or a mask)."""
        made = None if self.made is None else self.made[index]
        return Windows(**{name: getattr(self, name)[index] for name in COLUMNS}, made=made)

    def real(self) -> Windows:
        """Return the windows that the data holds, without what resampling added."""
        return self if self.made is None else self.take(~self.made)

    @staticmethod
    def concatenate(parts: list[Windows]) -> Windows:
        """Return the windows of several sites as one set."""
        if len(parts) == 1:
            return parts[0]
        joined = {name: np.concatenate([getattr(p, name) for p in parts]) for name in COLUMNS}
        made = [np.zeros(len(p), dtype=bool) if p.made is None else p.made for p in parts]
        nothing = all(part.made is None for part in parts)
        return Windows(**joined, made=None if nothing else np.concatenate(made))


def segment_starts(rows: Rows) -> Ints:
    """Return for each row the position of the first row of its segment.

    A segment is a run of rows of one machine, one life and one split, without a gap of more
    than ``rows.max_gap``. A window inside its segment can cross neither a repair nor a cut
    between train and test nor a time without rows.
    """
    if len(rows) == 0:
        return np.zeros(0, dtype=np.int64)
    change = np.ones(len(rows), dtype=bool)
    change[1:] = (
        (rows.machine[1:] != rows.machine[:-1])
        | (rows.life[1:] != rows.life[:-1])
        | (rows.split[1:] != rows.split[:-1])
        | (np.diff(rows.time) > rows.max_gap)
    )
    first = np.flatnonzero(change)
    return np.asarray(first[np.cumsum(change) - 1], dtype=np.int64)


def longest_step(machine: Strings, time: Floats, length: int | None) -> float:
    """Return how far apart two rows of a window may be, from how far apart rows usually are.

    It is what a window of ``length`` rows usually takes, or three times what 95 % of the steps
    stay below, if that is longer (weekends, shifts).

    Args:
        machine: (R,) rows of a machine stand together.
        time: (R,) sorted within each machine.
        length: rows in a window; None: there are no windows.
    """
    steps = np.diff(time)[machine[1:] == machine[:-1]]
    if length is None or len(steps) == 0:
        return float(np.inf)
    return float(max(length * np.median(steps), 3 * np.quantile(steps, 0.95)))


def window_ends(
    rows: Rows, length: int, stride: int, usable: Bools, pad_all: bool = False
) -> tuple[Ints, Bools]:
    """Return (N,) positions of the last row of each window, and which are padded.

    Ends are counted back from each segment's last row in steps of ``stride``, so that
    the row nearest to a failure is always there. Rows outside ``usable`` (R,) end no
    window, but may lie inside one. With ``pad_all`` the early rows of a segment end windows
    too, padded like those of a life that is short as a whole.
    """
    start = segment_starts(rows)
    position = np.arange(len(rows), dtype=np.int64)
    last = np.zeros(len(rows), dtype=np.int64)
    if len(rows):
        first, counts = np.unique(start, return_counts=True)
        last = np.repeat(first + counts - 1, counts)
    full = position - start + 1 >= length
    on_stride = (last - position) % stride == 0
    chosen = usable & full & on_stride
    padded = np.zeros(len(rows), dtype=bool)
    if pad_all:
        padded = usable & ~full & on_stride
        chosen = chosen | padded
    elif rows.pad:  # only a life that is short as a whole: its last row stands for it
        padded = usable & ~full & (position == last)
        chosen = chosen | padded
    ends = np.flatnonzero(chosen)
    return ends, padded[ends]


def gather(values: NDArray[Real], ends: Ints, starts: Ints, length: int) -> NDArray[Real]:
    """Return (N, T, F) windows of ``values`` (R, F) that end at ``ends`` (N,).

    ``starts`` (N,) is the first row of each window's segment: positions before it
    (a padded window) repeat that row.
    """
    index = ends[:, None] + np.arange(1 - length, 1)
    return np.asarray(values[np.maximum(index, starts[:, None])])

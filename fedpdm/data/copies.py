"""Readings that stand under two names: the same machine twice, or windows cut as machines.

Rows are hashed, and runs of five rows are compared. Five consecutive rows of real sensors are
never equal by chance, so a run that two machines have in common is a copy: a machine that two
plants hold under different ids, or overlapping windows that were handed over as machines of
their own and then split. A machine whose rows repeat (few discrete values) proves nothing and
is not compared; nor is a run that stands still (an idle machine, a gap in the record).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.rows import Floats, Ints, Rows, Split, Strings
from fedpdm.errors import LeakError
from fedpdm.keys import numpy_generator

Hashes = NDArray[np.uint64]

RUN = 5
DISTINCT = 0.9
"""A machine is compared if so many of its rows differ from each other."""


@dataclass(frozen=True)
class Fingerprints:
    """Hashes of the runs of a plant's machines.

    Attributes:
        site: the plant.
        ids: (M,) machine ids.
        runs: (N,) hash of ``RUN`` consecutive rows.
        machine: (N,) which machine each run is of.
        split: (N,) the split of its last row.
        time: (N,) the time of its last row.
    """

    site: str
    ids: Strings
    runs: Hashes
    machine: Ints
    split: NDArray[np.int8]
    time: Floats


def fingerprints(site: str, rows: Rows, starts: Ints) -> Fingerprints:
    """Return the hashes of a plant's runs; ``starts`` are its machines' first rows."""
    count = np.diff(np.r_[starts, len(rows)])
    machine = np.repeat(np.arange(len(starts)), count)
    row = row_hashes(rows.values)
    runs, moving = row.copy(), np.ones(len(row), dtype=bool)
    still = np.r_[False, row[1:] == row[:-1]]
    for back in range(1, RUN):
        runs[back:] = runs[back:] * np.uint64(0x9E3779B97F4A7C15) + row[:-back]
        moving[back - 1 :] &= ~still[: len(row) - back + 1]
    position = np.arange(len(rows)) - np.repeat(starts, count)
    order = np.lexsort((row, machine))
    again = (row[order][1:] == row[order][:-1]) & (machine[order][1:] == machine[order][:-1])
    repeated = np.bincount(machine[order][1:][again], minlength=len(starts))
    telling = (repeated <= (1 - DISTINCT) * count)[machine]
    kept = (position >= RUN - 1) & telling & moving & (rows.split != Split.UNUSED)
    return Fingerprints(
        site, rows.machine[starts], runs[kept], machine[kept], rows.split[kept], rows.time[kept]
    )


def row_hashes(values: Floats) -> Hashes:
    """Return (R,) one 64-bit hash of each row of ``values`` (R, F); every NaN is alike."""
    clean = np.where(np.isnan(values), 0.5e300, values + 0.0)  # -0.0 becomes 0.0
    bits = np.ascontiguousarray(clean).view(np.uint64)
    bits = bits ^ (bits >> np.uint64(29))  # round numbers have low bits of zero
    odd = numpy_generator(0, "row hashes").integers(1, 2**63, bits.shape[1], dtype=np.uint64)
    return np.asarray((bits * (2 * odd + 1)).sum(axis=1, dtype=np.uint64))


def require_no_copies(plants: list[Fingerprints], shared: bool) -> None:
    """Refuse series that are at two plants, or in two splits, under different ids.

    Copies inside the training part of one plant change nothing that is measured. With
    ``shared`` a machine may be at several plants under its own id.

    Raises:
        LeakError: names both machines, their plants and a time.
    """
    runs = np.concatenate([p.runs for p in plants]) if plants else np.zeros(0, dtype=np.uint64)
    if len(runs) < 2:
        return
    plant = np.repeat(np.arange(len(plants)), [len(p.runs) for p in plants])
    machine, split, time = (
        np.concatenate([getattr(p, name) for p in plants]) for name in ("machine", "split", "time")
    )
    order = np.argsort(runs, kind="stable")
    one, other = order[:-1], order[1:]
    equal = runs[one] == runs[other]
    one, other = one[equal], other[equal]
    apart = plant[one] != plant[other]
    leaks = apart | ((machine[one] != machine[other]) & (split[one] != split[other]))
    for i, j in zip(one[leaks], other[leaks], strict=True):
        names = [str(plants[plant[k]].ids[machine[k]]) for k in (i, j)]
        sites = [plants[plant[k]].site for k in (i, j)]
        if shared and names[0] == names[1]:
            continue
        parts = [Split(int(split[k])).name.lower() for k in (i, j)]
        raise LeakError(
            f"machine {names[0]} at {sites[0]} ({parts[0]}, time {time[i]:g}) and machine "
            f"{names[1]} at {sites[1]} ({parts[1]}, time {time[j]:g}) have the same {RUN} rows of "
            "readings: one machine under two names, or windows that overlap; give each machine "
            "one id and one plant, split machines or times first, and let fedpdm cut the windows"
        )

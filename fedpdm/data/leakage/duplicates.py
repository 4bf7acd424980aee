"""Finds readings that occur twice: one machine under two names, or overlapping windows as machines.

Rows are hashed. Of series, runs of five rows are compared. Five consecutive rows of real
sensors are never equal by chance, so a run that two machines have in common is a copy: a
machine that two sites hold under different ids, or overlapping windows that were handed over
as machines of their own and then split. A machine whose rows repeat while it moves (few
discrete values) proves nothing and is not compared; nor is a run that stands still (an idle
machine, a gap in the record).

Tables have no runs, and windows of a few rows overlap in less than one. There single rows are
compared, and how often rows may be equal by chance is read from the rows themselves
(``beyond_chance``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.rows import Bools, Floats, Ints, Rows, Split, Strings
from fedpdm.errors import LeakError
from fedpdm.seeding import numpy_generator

Hashes = NDArray[np.uint64]

RUN = 5
DISTINCT = 0.9
ACTIVE = 0.25
"""Runs of a machine are compared if so many rows are not idle, and so many of those differ."""
COMES_BACK = 3
"""This often may a reading recur that a machine returns to: off, in a warm hall."""
SHORT = 4 * RUN
"""Where half of the machines have fewer rows, single rows are compared, too."""
SHARE = 0.02
"""So many of the rows for validation and test may stand elsewhere, too."""
REPEATS = 5
"""A site whose rows all stand there so often on average has few discrete values."""


@dataclass(frozen=True)
class Marks:
    """Hashes of readings (N,), and where those stand.

    Attributes:
        hash: equal for equal readings.
        site: (N,) places in ``sites``.
        machine: (N,) places in ``machines``.
        split: (N,) of the row.
        time: (N,) of the row.
        sites: names.
        machines: ids, each once.
    """

    hash: Hashes
    site: Ints
    machine: Ints
    split: NDArray[np.integer[Any]]
    time: Floats
    sites: Strings
    machines: Strings

    @classmethod
    def joined(cls, parts: Sequence[Marks]) -> Marks:
        """Return the marks of several sites, where one id is one machine."""
        sites = np.repeat(np.arange(len(parts)), [len(part.hash) for part in parts])
        ids, known = np.unique(np.concatenate([p.machines for p in parts]), return_inverse=True)
        begins = np.cumsum([0, *(len(part.machines) for part in parts)])
        machine = [known[part.machine + begin] for part, begin in zip(parts, begins, strict=False)]
        return cls(
            np.concatenate([part.hash for part in parts]), sites, np.concatenate(machine),
            np.concatenate([part.split for part in parts]),
            np.concatenate([part.time for part in parts]),
            np.concatenate([part.sites for part in parts]), ids,
        )  # fmt: skip

    def place(self, k: int) -> str:
        """Return where a mark stands, in words."""
        part, site = Split(int(self.split[k])).name.lower(), self.sites[self.site[k]]
        return f"machine {self.machines[self.machine[k]]} at {site} ({part}, time {self.time[k]:g})"


@dataclass(frozen=True)
class Fingerprints:
    """Hashes of a site's readings.

    Attributes:
        runs: runs of ``RUN`` consecutive rows of machines that can be compared, each where its
            last row stands.
        rows: rows that differ from the one before.
        single: whether single rows have to be compared.
    """

    runs: Marks
    rows: Marks
    single: bool


def fingerprints(site: str, rows: Rows, starts: Ints, table: bool = False) -> Fingerprints:
    """Return the hashes of a site's readings.

    Args:
        site: the site.
        rows: its rows, sorted by machine and time.
        starts: (M,) the first row of each machine.
        table: whether models see single rows, whatever the machines are.
    """
    count = np.diff(np.r_[starts, len(rows)])
    machine = np.repeat(np.arange(len(starts)), count)
    row = row_hashes(rows.values)
    still = np.r_[False, row[1:] == row[:-1]]
    still[starts] = False
    idle, telling = _tell(row, machine, still, count)
    common = _common(row, rows.time, machine, count)
    idle |= common
    runs, moving = row.copy(), ~idle
    for back in range(1, RUN):
        runs[back:] = runs[back:] * np.uint64(0x9E3779B97F4A7C15) + row[:-back]
        moving[back:] &= ~idle[:-back]
        moving[back - 1 :] &= ~still[: len(row) - back + 1]
    position = np.arange(len(rows)) - np.repeat(starts, count)
    used = rows.split != Split.UNUSED
    kept = (position >= RUN - 1) & telling[machine] & moving & used
    # A reading that lasts is one reading, so rows of slow sensors are not taken for copies.
    if len(starts) == len(rows):  # its neighbours are those in time
        order = np.argsort(rows.time, kind="stable")
        before, after = order[:-1], order[1:]
        lasts = np.zeros(len(row), dtype=bool)
        lasts[after] = (row[after] == row[before]) & (rows.split[after] == rows.split[before])
    else:
        lasts = still & (rows.split == np.r_[rows.split[:1], rows.split[:-1]])
    fresh = used & ~lasts & ~common

    def marks(hashes: Hashes, chosen: Bools) -> Marks:
        return Marks(
            hashes[chosen], np.zeros(chosen.sum(), dtype=np.int64), machine[chosen],
            rows.split[chosen], rows.time[chosen], np.array([site]), rows.machine[starts],
        )  # fmt: skip

    single = table or bool(np.median(count) < SHORT)
    return Fingerprints(marks(runs, kept), marks(row, fresh), single)


def _common(row: Hashes, time: Floats, machine: Ints, count: Ints) -> Bools:
    """Return which rows (R,) three machines or more of the site have at one time.

    Machines that are off together read what is around them: the hall. Of a machine that has
    little else, none: it was copied.
    """
    order = np.lexsort((time, row))
    new = (row[order][1:] != row[order][:-1]) | (time[order][1:] != time[order][:-1])
    group = np.cumsum(np.r_[True, new]) - 1
    common = np.zeros(len(row), dtype=bool)
    common[order] = (np.bincount(group) >= 3)[group]
    share = np.bincount(machine[common], minlength=len(count)) / count
    return np.asarray(common & (share <= 1 - ACTIVE)[machine])


def _tell(row: Hashes, machine: Ints, still: Bools, count: Ints) -> tuple[Bools, Bools]:
    """Return which rows (R,) are idle, and which machines (M,) have rows of their own.

    A reading is idle that a machine often stands still at, or keeps coming back to, and counts
    wherever it does.
    """
    order = np.lexsort((row, machine))
    again = (row[order][1:] == row[order][:-1]) & (machine[order][1:] == machine[order][:-1])
    value = np.cumsum(np.r_[True, ~again]) - 1
    idle = np.zeros(len(row), dtype=bool)
    often = np.bincount(value, weights=still[order]) >= RUN
    often |= np.bincount(value, weights=~still[order]) >= COMES_BACK
    idle[order] = often[value]
    repeated = np.bincount(machine[order][1:][again & ~idle[order][1:]], minlength=len(count))
    active = np.bincount(machine[~idle], minlength=len(count))
    return idle, (repeated <= (1 - DISTINCT) * active) & (active >= ACTIVE * count)


def row_hashes(values: Floats) -> Hashes:
    """Return (R,) one 64-bit hash of each row of ``values`` (R, F); every NaN is alike."""
    clean = np.where(np.isnan(values), 0.5e300, values + 0.0)  # -0.0 becomes 0.0
    bits = np.ascontiguousarray(clean).view(np.uint64)
    bits = bits ^ (bits >> np.uint64(29))  # round numbers have low bits of zero
    odd = numpy_generator(0, "row hashes").integers(1, 2**63, bits.shape[1], dtype=np.uint64)
    return np.asarray((bits * (2 * odd + 1)).sum(axis=1, dtype=np.uint64))


def require_no_copies(prints: list[Fingerprints], shared: bool) -> None:
    """Refuse series and rows that are at two sites, or in two splits, under different ids.

    Copies inside the training part of one site change nothing that is measured. With
    ``shared`` a machine may be at several sites under its own id.

    Raises:
        LeakError: names both machines, their sites and a time.
    """
    if not prints:
        return
    _require_own_runs(Marks.joined([p.runs for p in prints]), shared)
    if any(p.single for p in prints):
        _require_own_rows(Marks.joined([p.rows for p in prints]), shared)


def _require_own_runs(runs: Marks, shared: bool) -> None:
    order = np.argsort(runs.hash, kind="stable")
    alike = runs.hash[order][1:] == runs.hash[order][:-1]
    one, other = order[:-1][alike], order[1:][alike]
    machines = runs.machine[one] != runs.machine[other]
    leaks = machines & (runs.split[one] != runs.split[other])
    leaks |= runs.site[one] != runs.site[other]
    if shared:
        leaks &= machines
    if leaks.any():
        k = int(np.argmax(leaks))
        raise LeakError(
            f"{runs.place(one[k])} and {runs.place(other[k])} have the same "
            f"{RUN} rows of readings: one machine under two names, or windows that overlap; give "
            "each machine one id and one site, split machines or times first, and let fedpdm cut "
            "the windows"
        )


def _require_own_rows(marks: Marks, shared: bool) -> None:
    """Refuse rows for validation and test of which too many are found in another place.

    Rows of a machine that sites share count once.
    """
    import pandas as pd  # only where single rows are compared: it takes a third of a second

    rows = pd.DataFrame({
        name: getattr(marks, name) for name in ("hash", "site", "machine", "split", "time")
    })  # fmt: skip
    own = rows.groupby("site").size()
    if shared:
        rows = rows.drop_duplicates(["hash", "machine"])
    different = rows.groupby("site")["hash"].nunique().reindex(own.index, fill_value=1)
    discrete = rows["site"].map(own > REPEATS * different)
    evaluated = (rows["split"] != Split.TRAIN) & ~discrete
    alike = rows.groupby("hash")
    spread = (alike["site"].transform("nunique") > 1) | (alike["split"].transform("nunique") > 1)
    often = beyond_chance(np.asarray(alike.size(), dtype=np.int64))[alike["time"].transform("size")]
    copied = evaluated & spread & often
    if copied.sum() <= max(2, SHARE * evaluated.sum()):
        return
    one = int(rows.index[copied][0])
    elsewhere = (rows["site"] != marks.site[one]) | (rows["split"] != marks.split[one])
    other = int(rows.index[(rows["hash"] == marks.hash[one]) & elsewhere][0])
    raise LeakError(
        f"{int(copied.sum())} of {int(evaluated.sum())} rows for validation and test stand in "
        "another part or at another site, too, more than chance makes equal: for example "
        f"{marks.place(one)} and {marks.place(other)}; rows were copied, or windows "
        "overlap: give each row once, to one site, and let fedpdm cut the windows"
    )


def beyond_chance(times: Ints) -> Bools:
    """Return, for each number k up to the largest, whether too many values stand there k times.

    Of values that are drawn independently, some often and some rarely, f(k) are seen k times,
    with f(k)^2 <= (k + 1) / k f(k - 1) f(k + 1): k! f(k) are the moments of the rates, damped
    (Cauchy-Schwarz). So rows that are equal by chance come with others once and three times.
    Rows that were written twice do not. Four standard deviations are left to luck.

    Args:
        times: (V,) how often each value was seen.
    """
    seen = np.sqrt(np.r_[np.bincount(times), 0].astype(np.float64))
    least, most = np.maximum(seen - 2, 0) ** 2, (seen + 2) ** 2  # a count's root varies by 1/2
    k = np.arange(2, len(seen) - 1)
    beyond = np.zeros(len(seen) - 1, dtype=bool)
    beyond[2:] = least[k] ** 2 > (k + 1) / k * most[k - 1] * most[k + 1]
    return beyond

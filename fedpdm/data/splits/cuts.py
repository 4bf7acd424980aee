"""Where the splits are cut: training, validation, test, held-out machines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedpdm.data.rows import Bools, Rows, Split, Strings
from fedpdm.errors import DataError


def by_time(
    rows: Rows,
    *,
    reach: float,
    generator: np.random.Generator,
    fractions: tuple[float, float] = (0.6, 0.2),
    heldout_fraction: float = 0.2,
    site: str = "",
) -> Rows:
    """Cut one site's rows by time, and hold some machines out entirely.

    Training takes the first ``fractions[0]`` of the site's calendar, validation the next
    ``fractions[1]``, test the rest. Rows whose label would look across a cut (closer to it
    than ``reach``) are purged; windows cannot reach back over a cut because they stay in
    their segment. So the gap between a training and a test window is ``reach`` plus a
    whole window. Machines are held out by seeded draw, at least one where there are three
    or more.

    The end of the record is a cut too: of the last ``reach`` only rows that fail are known, so
    a part that kept them would end in positives only. They are purged whatever their label, at
    held-out machines as well (``undecided``). Lives that end in a planned service keep a bias
    of the same kind, small while services are far apart compared to ``reach``: a failure
    shortly before one is known, its absence is not.

    Args:
        rows: rows of one site.
        reach: how far past a row its label looks, in the rows' time unit.
        generator: draws the held-out machines.
        fractions: shares of the calendar for training and validation.
        heldout_fraction: share of the machines.
        site: name for error messages.

    Returns:
        The rows with ``split`` set.

    Raises:
        DataError: the calendar is too short for the cuts and the purge.
    """
    if len(rows) == 0:
        raise DataError(f"{site}: there are no rows; bring a longer record")
    begin, end = float(rows.time.min()), float(rows.time.max())
    first = begin + fractions[0] * (end - begin)
    second = begin + (fractions[0] + fractions[1]) * (end - begin)
    tail = undecided(rows, reach)
    untested = bool(tail.any()) and end - reach <= second
    if first - reach <= begin or second - reach <= first or untested:
        raise DataError(
            f"{site}: {end - begin:g} time units of data are too short to cut into training, "
            f"validation and test with labels that look {reach:g} ahead; bring a longer record "
            "or lower task.horizon (task=rul: task.cap)"
        )
    split = np.full(len(rows), Split.UNUSED, dtype=np.int8)
    split[rows.time <= first - reach] = Split.TRAIN
    split[(rows.time > first) & (rows.time <= second - reach)] = Split.VALIDATION
    split[rows.time > second] = Split.TEST
    heldout = drawn(np.unique(rows.machine), generator, heldout_fraction, least=3)
    split[np.isin(rows.machine, heldout)] = Split.HELDOUT
    split[tail] = Split.UNUSED
    return replace(rows, split=split)


def undecided(rows: Rows, reach: float) -> Bools:
    """Return (R,) which rows the record does not follow for ``reach``, whatever their label.

    A machine is followed until the last row of its site; if its own rows end earlier without
    a failure, until there. No row is undecided where the data gives labels, or where every
    failure was seen (engines that run to failure).

    Args:
        rows: of one site or several with one calendar, sorted by machine and time.
        reach: how far past a row its label looks, in the rows' time unit.
    """
    censored = np.isnan(rows.time_to_failure)
    if reach <= 0 or rows.label is not None or not censored.any():
        return np.zeros(len(rows), dtype=bool)
    last = np.flatnonzero(np.r_[rows.machine[1:] != rows.machine[:-1], True])
    record = float(rows.time.max())
    watched = np.minimum(rows.time[last] + rows.observed[last], record)
    end = np.repeat(np.where(censored[last], watched, record), np.diff(np.r_[-1, last]))
    return np.asarray(end - rows.time < reach)


def validated_on(rows: Rows, machines: Strings) -> Rows:
    """Mark the rows of ``machines`` that are marked TRAIN as validation; others keep their mark."""
    split = rows.split.copy()
    split[(split == Split.TRAIN) & np.isin(rows.machine, machines)] = Split.VALIDATION
    return replace(rows, split=split)


def drawn_machines(rows: Rows, generator: np.random.Generator, fraction: float) -> Strings:
    """Return a share of the machines marked TRAIN: at least one of two or more, never all."""
    return drawn(np.unique(rows.machine[rows.split == Split.TRAIN]), generator, fraction, least=2)


def drawn(
    machines: Strings, generator: np.random.Generator, fraction: float, least: int
) -> Strings:
    """Return a share of the machines: at least one where there are ``least``, never all."""
    count = round(fraction * len(machines))
    if len(machines) >= least and fraction > 0:
        count = max(count, 1)
    count = min(count, max(len(machines) - 1, 0))  # something must be left to train on
    return np.asarray(generator.permutation(machines)[:count])

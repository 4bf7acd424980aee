"""When sites can be reached: always, for some hours of a day, or as a trace says."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from fedpdm.errors import ConfigError
from fedpdm.seeding import numpy_generator

DAY = 86_400.0
COLUMNS = ("site", "on", "off")
LARGEST = 1 << 28
"""Bytes of a trace; FedScale's own of 100,000 devices is smaller."""


class Availability(Protocol):
    """When sites are on. Times are simulated seconds since the start of the run."""

    def next_on(self, site: str, time: float) -> float:
        """Return ``time`` if the site is on, else when it comes on next."""

    def off(self, site: str, time: float) -> float:
        """Return when a site that is on goes off; infinity for never."""


class Always:
    """Sites never go off."""

    def next_on(self, site: str, time: float) -> float:
        return time

    def off(self, site: str, time: float) -> float:
        return math.inf


class Trace:
    """On and off by intervals that come again and again after a period.

    Args:
        intervals: by site, (on, off) in seconds within the period, in order and apart.
        period: seconds.
    """

    def __init__(self, intervals: dict[str, list[tuple[float, float]]], period: float) -> None:
        self._intervals, self._period = intervals, period

    def next_on(self, site: str, time: float) -> float:
        return max(time, self._interval(site, time)[0])

    def off(self, site: str, time: float) -> float:
        _, off = self._interval(site, time)
        first, last = self._intervals[site][0], self._intervals[site][-1]
        if first[0] == 0.0 and last[1] == self._period:  # on across the end of the period
            if first is last:
                return math.inf
            if math.isclose(off % self._period, 0.0, abs_tol=1e-6):
                return off + first[1]
        return off

    def _interval(self, site: str, time: float) -> tuple[float, float]:
        """Return the interval in which a time lies, or the next one."""
        turn, phase = divmod(time, self._period)
        for on, off in self._intervals[site]:
            if phase < off:
                return turn * self._period + on, turn * self._period + off
        on, off = self._intervals[site][0]
        return (turn + 1) * self._period + on, (turn + 1) * self._period + off


def diurnal(sites: Sequence[str], hours: float, seed: int) -> Trace:
    """Return a trace on which each site is on for so many hours of a day.

    Args:
        sites: each gets an hour of its own at which it comes on.
        hours: 0 to 24.
        seed: of the run.
    """
    intervals = {}
    for site in sites:
        begin = float(numpy_generator(seed, "clock", "diurnal", site).uniform(0, DAY))
        end = begin + hours * 3600.0
        if hours >= 24:
            intervals[site] = [(0.0, DAY)]
        elif end <= DAY:
            intervals[site] = [(begin, end)]
        else:
            intervals[site] = [(0.0, end - DAY), (begin, DAY)]
    return Trace(intervals, DAY)


def read_trace(path: Path, sites: Sequence[str]) -> tuple[Trace, str]:
    """Read a trace: a CSV with the columns site, on, off, in seconds.

    Its last end is the period after which it begins again, as in FedScale (Lai et al. 2022).

    Args:
        path: of the CSV.
        sites: each needs a line at least.

    Returns:
        The trace, and the SHA-256 of the file.

    Raises:
        ConfigError: names the file, and the line or site.
    """
    where = f"clock.availability={path}"
    try:
        content = path.read_bytes() if path.stat().st_size <= LARGEST else None
    except OSError as error:
        raise ConfigError(
            f"{where} is neither always nor diurnal, nor a file that can be read ({error.strerror})"
        ) from None
    if content is None:
        raise ConfigError(f"{where} is too large for a trace")
    intervals: dict[str, list[tuple[float, float]]] = {}
    try:
        table = csv.DictReader(content.decode().splitlines())
        if missing := set(COLUMNS) - set(table.fieldnames or ()):
            raise ConfigError(f"{where} has no column {sorted(missing)[0]}; it needs site,on,off")
        for row in table:
            on, off = float(row["on"]), float(row["off"])
            if not 0 <= on < off < math.inf:
                raise ValueError(f"{on:g} to {off:g} is no interval of seconds")
            intervals.setdefault(row["site"], []).append((on, off))
    except (ValueError, TypeError, csv.Error) as error:
        raise ConfigError(f"{where} cannot be read near line {table.line_num}: {error}") from None
    if lost := [site for site in sites if site not in intervals]:
        raise ConfigError(f"{where} has no line for site {lost[0]}; each site needs one at least")
    kept = {site: sorted(intervals[site]) for site in sites}
    for site, spans in kept.items():
        for (_, off), (on, _) in pairwise(spans):
            if on <= off:
                raise ConfigError(f"{where}: intervals of {site} touch or overlap at {on:g} s")
    period = max(off for spans in intervals.values() for _, off in spans)
    return Trace(kept, period), hashlib.sha256(content).hexdigest()

"""Parses the times in files: all become UTC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from fedpdm.data.rows import Bools, Floats, Strings

SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400, "weeks": 604_800}
_UNIX_FROM, _UNIX_TO = 946_684_800, 2_524_608_000  # 2000 to 2050
_UNIX_WORDS = {1: "seconds", 1e3: "milliseconds", 1e6: "microseconds", 1e9: "nanoseconds"}
_UNIX_KEYS = {1: "unix", 1e3: "unix_ms", 1e6: "unix_us", 1e9: "unix_ns"}


def carry_offset(values: pd.Series[Any]) -> Bools:
    """Return (R,) which ISO 8601 times end in a time zone: Z, +01:00."""
    behind_date = values.astype(str).str.slice(10)
    return behind_date.str.contains("[Zz+-]", regex=True).to_numpy(dtype=bool)


def unix_scale(values: Floats, unit: str) -> tuple[str, str] | None:
    """Return what Unix times the numbers look like, and the ``time_format`` that says so.

    Args:
        values: (R,) numbers.
        unit: what they are said to be in. Unix seconds are seconds.
    """
    if unit not in SECONDS and unit != "cycles":
        return None
    for factor, word in _UNIX_WORDS.items():
        if unit == "seconds" and factor == 1:
            continue
        if np.all((values >= _UNIX_FROM * factor) & (values <= _UNIX_TO * factor)):
            return word, _UNIX_KEYS[factor]
    return None


def are_written_dates(values: Floats) -> bool:
    """Return whether every number reads as a date, 20240131."""
    if not np.all((values >= 19_000_101) & (values <= 21_001_231) & (values == np.floor(values))):
        return False
    month, day = values // 100 % 100, values % 100
    return bool(np.all((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)))


def are_spreadsheet_days(values: Floats) -> bool:
    """Return whether numbers look like a spreadsheet's dates: days since 1900, parts of minutes."""
    since_2000 = np.all((values >= 36_526) & (values <= 54_789)) and len(values) > 0
    minutes = values * 1440
    parts = np.any(values % 1 != 0) and np.all(np.abs(minutes - np.round(minutes)) < 0.01)
    return bool(since_2000 and parts)


def from_zone(
    local: pd.Series[Any],
    zone: str,
    groups: Strings | None,
    refuse: Callable[[Bools], None],
) -> pd.Series[Any]:
    """Return local times as UTC.

    The hour that the end of summer time repeats is told apart by the order of the rows: it
    is summer time until a machine's clock steps back. A single time in it is summer time.

    Args:
        local: (R,) times without a zone.
        zone: name of the zone.
        groups: (R,) machine of each row; None: each row is by itself.
        refuse: called with (R,) times that the begin of summer time leaves out.
    """
    dates = pd.DatetimeIndex(local)
    exist = dates.tz_localize(zone, ambiguous=np.ones(len(dates), bool), nonexistent="NaT")
    refuse(np.asarray(exist.isna()))
    twice = np.asarray(dates.tz_localize(zone, ambiguous="NaT", nonexistent="NaT").isna())
    summer = np.ones(len(dates), dtype=bool)
    if twice.any() and groups is not None:
        clock = dates.to_numpy()
        place = pd.DataFrame({"machine": groups, "day": dates.floor("D")})
        backwards = _falling(clock, groups)
        for where in place[twice].groupby(["machine", "day"]).indices.values():
            rows = np.flatnonzero(twice)[where]
            if backwards.get(str(groups[rows[0]]), False):
                rows = rows[::-1]
            back = np.flatnonzero(np.diff(clock[rows]) <= np.timedelta64(0))
            if len(back):
                summer[rows[back[0] + 1 :]] = False
    utc = dates.tz_localize(zone, ambiguous=summer).tz_convert("UTC").tz_localize(None)
    return pd.Series(utc, index=local.index)


def _falling(clock: Any, groups: Strings) -> dict[str, bool]:
    """Return for each machine whether its rows stand from the newest to the oldest."""
    frame = pd.DataFrame({"machine": groups, "clock": clock})
    ends = frame.groupby("machine")["clock"].agg(["first", "last"])
    return {str(name): bool(first > last) for name, first, last in ends.itertuples()}

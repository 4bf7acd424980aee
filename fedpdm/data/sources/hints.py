"""Hints for cells that cannot be read: what to set in the site's yaml."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from fedpdm.data.sources.dialect import Dialect

IN = "in the site yaml"


def number(bad: pd.Series[Any], dialect: Dialect, otherwise: str) -> str:
    """Return what to do about cells that are no numbers, read from the first of them.

    Args:
        bad: the cells.
        dialect: how the file is said to be written.
        otherwise: what to do where nothing can be guessed.
    """
    text, point = str(bad.iloc[0]).strip(), dialect.decimal
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+", text) and point == ".":
        hint = f"this may be {text.replace(',', '')} (then set thousands: ',' {IN})"
        if text.count(",") == 1:
            hint += f" or {text.replace(',', '.')} (then set decimal: ',')"
        return hint
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+\.\d*", text):
        return f"this looks like groups of thousands: set thousands: ',' {IN}"
    if re.fullmatch(r"[-+]?\d{1,3}(\.\d{3})+,\d*", text) or re.fullmatch(
        r"[-+]?\d{1,3}(\.\d{3}){2,}", text
    ):
        decimal = "" if point == "," else " and decimal: ','"
        return f"this looks like groups of thousands: set thousands: '.'{decimal} {IN}"
    if re.fullmatch(r"[-+]?\d*,\d+", text) and point == ".":
        return f"this looks like a decimal comma: set decimal: ',' {IN}"
    if re.fullmatch(r"[-+]?\d+\.\d+", text) and point == ",":
        return f"this looks like a decimal point: set decimal: '.' {IN}"
    if bad.nunique() == 1:
        return f"{otherwise}; if it stands for no reading, set missing: [{text!r}] {IN}"
    return otherwise


def same_time(times: pd.Series[Any], dialect: Dialect, zoned: bool | None) -> str:
    """Return what to do about times that a machine has twice.

    Args:
        times: the later ones of each pair.
        dialect: how they are written.
        zoned: whether they say their time zone; None where they are numbers.
    """
    if zoned is False and dialect.time_zone is None:
        dates = pd.DatetimeIndex(
            pd.to_datetime(times.to_numpy(), format=dialect.time_format or "ISO8601")
        )
        if bool(((dates.day_of_week == 6) & (dates.hour < 4)).all()):  # when clocks are set back
            return (
                "these look like local times of the hour that the end of summer time repeats: "
                f"set time_zone, for example Europe/Warsaw, {IN}"
            )
    return "remove the duplicates, or map the column that tells these machines apart"

"""How a page writes numbers and dates: as English or as German readers expect them.

Only pages for people are written so. The screen, the config and files for programs keep the point.
Thousands are set apart by a narrow space in both, which nobody takes for a decimal mark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime

from fedpdm.errors import ConfigError

MARKS = {"en": ".", "de": ","}
"""Decimal marks by the name of a locale."""
DATES = {"en": "%Y-%m-%d %H:%M", "de": "%d.%m.%Y %H:%M"}
"""Formats of dates."""
DEFAULT = "en"

_CHOSEN: ContextVar[str] = ContextVar("locale", default=DEFAULT)


def checked(name: object, key: str) -> str:
    """Return the name of a locale.

    Args:
        name: what was asked for; None takes the default.
        key: the option that asked, for the message.

    Raises:
        ConfigError: there is no such locale.
    """
    if name is None:
        return DEFAULT
    if not isinstance(name, str) or name not in MARKS:
        raise ConfigError(f"{key}={name} is unknown; choose {' or '.join(MARKS)}")
    return name


@contextmanager
def written_in(name: str) -> Iterator[None]:
    """Write numbers and dates by a locale inside the block."""
    token = _CHOSEN.set(name)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def marked(text: str) -> str:
    """Return a number, or a text with numbers of one point each, with the decimal mark."""
    return re.sub(r"(?<=\d)\.(?=\d)", MARKS[_CHOSEN.get()], text)


def dated(when: datetime) -> str:
    """Return a date with hours and minutes."""
    return when.strftime(DATES[_CHOSEN.get()])


def written(time: object) -> str:
    """Return a time of a file: an ISO date by the locale, anything else as it is."""
    text = str(time)
    try:
        return dated(datetime.fromisoformat(text)) if "-" in text else text
    except ValueError:
        return text

"""All errors that fedpdm raises on purpose.

    FedPdmError                exit code
    ├── UserError                  2      the person who typed the command can correct it
    │   ├── ConfigError                   an option, its value, or a combination of options
    │   ├── DataError                     a file, a column, a site's rows
    │   │   └── LeakError                 rows or splits that would make scores too good
    │   ├── ModelError                    a model that does not exist, or does not take this input
    │   └── HistoryError                  a run folder: damaged, locked, or of another run
    ├── OwnCodeError               1      a class of the user's own raised something
    └── SiteError                  1      a site failed while it worked
        └── TrainingStopped               the run gave up by itself (three rollbacks in a row)

Messages are written for the person at the keyboard: what is wrong, where
(site, file, column or key), and what to do next.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable

_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys instead of showing it, and marks that turn text around."""


def printable(text: str) -> str:
    """Return text of a stranger's file for a terminal: control characters as ``\\x1b``."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class FedPdmError(Exception):
    """Base of all errors that fedpdm raises on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class UserError(FedPdmError):
    """A mistake in what the user asked for or handed over."""

    exit_code = 2


class ConfigError(UserError):
    """An option, its value, or a combination of options cannot work."""


class DataError(UserError):
    """A file, a column or a site's rows cannot be used."""


class LeakError(DataError):
    """Rows, splits or scaling would let a model know what it is tested on."""


class ModelError(UserError):
    """A model does not exist or does not take the input it is given."""


class HistoryError(UserError):
    """A run folder is damaged, locked, missing, or belongs to another run."""


class OwnCodeError(FedPdmError):
    """A class of the user's own raised something that it did not mean for the person."""


class SiteError(FedPdmError):
    """A site failed while it worked."""


class TrainingStopped(SiteError):
    """The run gave up by itself."""


def run_command(main: Callable[[], int]) -> int:
    """Run a command and return its exit code; who reads no further (``| head``) ends it quietly."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        return 141
    return code

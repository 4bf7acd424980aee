"""``log=file``: ``log.txt`` in the run folder, a line for each round, event and note.

For services, which nobody looks at: an ISO time, then what the screen says. Lines are added, so a
run that is resumed goes on in the same file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from fedpdm.config.values import Config, select
from fedpdm.errors import ConfigError, printable

NAME = "log.txt"


def log_of(cfg: Config, folder: Path) -> Callable[[str], None] | None:
    """Return what adds a line to the log of a run; None without ``log=file``.

    Args:
        cfg: the resolved config.
        folder: the run folder.

    Raises:
        ConfigError: ``log`` is something else.
    """
    asked = select(cfg, "log")
    if asked in (None, "screen"):
        return None
    if asked != "file":
        raise ConfigError(f"log={asked} is unknown; choose file, screen, or null for none")

    def add(text: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        line = f"{now} {printable(text).replace(chr(10), ' ')}\n"
        try:
            file = os.open(
                folder / NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666
            )
        except OSError:
            return  # a full disk ends the log, not the run
        try:
            os.write(file, line.encode("utf-8", "replace"))
        except OSError:
            pass
        finally:
            os.close(file)

    return add

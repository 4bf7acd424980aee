"""Processes that somebody has started and not ended."""

from __future__ import annotations

import os
import time
from pathlib import Path


def descendants() -> set[int]:
    """Return the ids of all processes below this one (none where there is no /proc)."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it has just ended
        if state != "Z":
            parents[int(file.parent.name)] = int(parent)
    found, new = set[int](), {os.getpid()}
    while new:
        new = {child for child, parent in parents.items() if parent in new}
        found |= new
    return found


def still_there(before: set[int], seconds: float = 30.0) -> set[int]:
    """Return descendants that were not there ``before`` and do not end by themselves."""
    deadline = time.monotonic() + seconds
    while (left := descendants() - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left

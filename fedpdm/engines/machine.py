"""What this machine offers an engine."""

from __future__ import annotations

import os
from pathlib import Path

TOPOLOGY = ("physical_package_id", "core_id")


def cores() -> int:
    """Return how many physical cores this process may use; two threads of one count once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    found = set()
    for number in allowed:
        topology = Path(f"/sys/devices/system/cpu/cpu{number}/topology")
        try:
            found.add(tuple((topology / name).read_text() for name in TOPOLOGY))
        except OSError:
            return len(allowed)
    return len(found)

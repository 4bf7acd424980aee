"""What this machine offers an engine, and how much of it a config may ask for."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedpdm.errors import ConfigError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
WORKER_BYTES = 200e6
"""Memory of a worker process without any site, at the least."""
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


def check_counts(null: bool = False, **settings: Any) -> None:
    """Refuse settings of an engine that are no whole numbers of at least 1.

    Args:
        null: None is good, too.
        **settings: by name.

    Raises:
        ConfigError: names the setting.
    """
    for name, value in settings.items():
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not whole and not (null and value is None):
            end = ", or null" if null else ""
            raise ConfigError(f"engine.{name}={value} must be a whole number of at least 1{end}")


def memory() -> int:
    """Return the bytes of memory that this process may use."""
    import resource

    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return whole if limit == resource.RLIM_INFINITY else min(whole, limit)


def require_memory(needed: float, what: str, way_out: str) -> None:
    """Refuse what needs more bytes than there are.

    Raises:
        ConfigError: says what is so large, both sizes, and the way out.
    """
    if needed > memory():
        raise ConfigError(
            f"{what} need about {needed / 2**30:,.1f} GiB of memory, and this process may use "
            f"{memory() / 2**30:,.1f}: {way_out}"
        )


def check_workers(workers: int | None) -> None:
    """Refuse more processes than this machine has memory for, if their number is given.

    Raises:
        ConfigError: says how much they would need.
    """
    if workers is not None and workers > cores():
        what = f"engine.workers={workers}: so many processes"
        require_memory(workers * WORKER_BYTES, what, "lower it; one per core is the most of use")


def keep_memory() -> None:
    """Let glibc's malloc keep what is freed, up to 256 MiB, instead of handing it back.

    Every site needs the same few buffers again. Fresh pages for them cost more than the
    arithmetic on them: a third of a small LSTM's training time on a virtual machine.
    Elsewhere than on glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_THRESHOLD, 32 * 1024**2)
    mallopt(M_TRIM_THRESHOLD, 256 * 1024**2)


@contextmanager
def settled() -> Iterator[None]:
    """Keep the garbage collector off what was there before.

    Rounds make many small objects; every full collection on their behalf would walk through
    all modules that were ever imported.
    """
    keep_memory()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()

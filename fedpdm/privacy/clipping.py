"""Clips updates to a ball, and withholds what is not to leave a site."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedpdm.aggregation.update import Update
from fedpdm.wire.records import BUFFERS, EXAMPLES, Arrays

TRIES = 50
"""Shorter and shorter updates are tried, because rounding may make one too long again."""


def differences(update: Update) -> dict[str, Arrays]:
    """Return what an update adds to what was sent, in float64, of all records but buffers."""
    found = {}
    for name, arrays in update.records.items():
        if name != BUFFERS:
            origin = update.origin(name)
            found[name] = {
                n: a.astype(np.float64) - origin.get(n, np.float64(0)) for n, a in arrays.items()
            }
    return found


def length(update: Update) -> float:
    """Return the Euclidean length of an update: weights and strategy records as one vector."""
    parts = (d for record in differences(update).values() for d in record.values())
    return float(np.sqrt(sum(float(np.vdot(d, d)) for d in parts)))


def clipped(update: Update, bound: float | None) -> Update:
    """Return the update, shortened to ``bound`` where it is longer: u · min(1, bound / ‖u‖).

    The bound holds for what the arrays hold after they were rounded to their types. An update
    that is not finite becomes one that changes nothing.

    Args:
        update: its buffers stay as they are.
        bound: the longest; None for no bound.
    """
    if bound is None or (size := length(update)) <= bound:
        return update
    deltas = differences(update)
    factor = bound / size if np.isfinite(size) else 0.0
    for attempt in range(TRIES + 1):
        factor = 0.0 if attempt == TRIES else factor
        shorter = update
        for record, arrays in deltas.items():
            parts = {n: d * factor if factor else np.zeros_like(d) for n, d in arrays.items()}
            shorter = shorter.with_delta(parts, record)
        if length(shorter) <= bound:
            return shorter
        factor *= 1 - 2.0 ** (attempt - 22) if attempt < 20 else 0.5
    return shorter


def withheld(update: Update) -> Update:
    """Return an update that counts as one, with the buffers that were sent and no metrics.

    The number of a site's examples, its losses, and what the strategy's client half reports stay
    at the site.
    """
    records = dict(update.records)
    if BUFFERS in records:
        records[BUFFERS] = {n: update.base.buffers[n] for n in records[BUFFERS]}
    return replace(update, records=records, metrics={EXAMPLES: 1.0}, weight=1.0)

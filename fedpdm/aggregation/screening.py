"""Which updates the server refuses. A check takes an update and returns why it is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from fedpdm.aggregation.update import Update
from fedpdm.wire.records import ARRAYS, BUFFERS, EXAMPLES, Arrays

Check = Callable[[Update], str | None]

MOST_EXAMPLES = 2.0**53
"""More than any site has; beyond it a sum of weights could not be exact."""


def screen(update: Update, checks: Iterable[Check]) -> str | None:
    """Return the first reason to refuse an update, or None."""
    for check in checks:
        if (reason := check(update)) is not None:
            return reason
    return None


def same_form(update: Update, kinds: bool = True) -> str | None:
    """Refuse tensors that differ from the sent model's in name or shape.

    Args:
        update: to be checked.
        kinds: refuse other kinds of number, too.
    """
    parameters = update.base.arrays
    flaw = mismatch(update.arrays, parameters, kinds)
    flaw = flaw or mismatch(update.buffers, update.base.buffers, kinds)
    for name, arrays in update.records.items():
        if flaw is None and name not in (ARRAYS, BUFFERS):
            flaw = mismatch(arrays, parameters, kinds)
            flaw = flaw and f"in its {name} {flaw}"
    return flaw


def countable(update: Update) -> str | None:
    """Refuse numbers of examples and weights that cannot be summed up."""
    for name, value in ((EXAMPLES, update.examples), ("weight", update.weight)):
        if not 0 <= value <= MOST_EXAMPLES:  # NaN is neither
            return f"its {name} is {value}"
    return None


def finite(update: Update) -> str | None:
    """Refuse NaN and infinity. The update must have the form of what was sent."""
    # A sum of squares is finite only if every value is: one pass instead of two.
    flaw = None if np.isfinite(update.norm) else not_finite(update.arrays)
    for name, arrays in update.records.items():
        if flaw is None and name != ARRAYS:
            flaw = not_finite(arrays)
            flaw = flaw if flaw is None or name == BUFFERS else f"in its {name} {flaw}"
    return flaw


OPEN: tuple[Check, ...] = (same_form, countable, finite)
"""Checks of an update whose values the server can read."""
HIDDEN: tuple[Check, ...] = (partial(same_form, kinds=False), countable)
"""Checks of an update whose values a transform hides from the server."""


def mismatch(arrays: Arrays, expected: Arrays, kinds: bool = True) -> str | None:
    """Return how names, shapes or kinds of received arrays differ from the model's, or None."""
    if arrays.keys() != expected.keys():
        odd = sorted(set(arrays) ^ set(expected))
        return f"its tensors are not the model's: {', '.join(odd[:3])}"
    for name, array in arrays.items():
        like = expected[name]
        if array.shape != like.shape:
            return f"{name} has shape {array.shape} and not {like.shape}"
        if kinds and array.dtype.kind != like.dtype.kind:
            return f"{name} holds {array.dtype} and not {like.dtype}"
    return None


def not_finite(arrays: Arrays) -> str | None:
    """Return where arrays hold NaN or infinity, or None."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            return f"{count} of {array.size} values of {name} are NaN or infinite"
    return None

"""Screening: checks that take an update and return why it is refused, or None."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from fedpdm.aggregation.update import Update
from fedpdm.wire.records import ARRAYS, BUFFERS, EXAMPLES, Arrays

Check = Callable[[Update], str | None]

MOST_EXAMPLES = 1e9
"""More windows than any site has: a thousand machines, every minute for two years."""
MOST_WEIGHT = 2.0**53
"""Beyond it a sum of weights could not be exact."""
NUMBERS = "biufc"
"""NumPy's letters for types that can be finite: text cannot."""
LONGEST = 1e18
"""Strategies square updates, and the square of a longer one is infinite in float32."""


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
        kinds: refuse other types of number, too: a cast of float64 can make infinity.
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
    flaw = beyond(EXAMPLES, update.examples, MOST_EXAMPLES)
    return flaw or beyond("weight", update.weight, MOST_WEIGHT)


def beyond(name: str, value: float, most: float = MOST_EXAMPLES) -> str | None:
    """Return that a number is negative, NaN or too large, or None."""
    if 0 <= value <= most:  # NaN is neither
        return None
    return f"its {name} is {value:g}, and only 0 to {most:g} is possible"


def finite(update: Update) -> str | None:
    """Refuse NaN and infinity, and a step whose square is infinite.

    The update must have the form of what was sent.
    """
    # A sum of squares is finite only if every value is: one pass instead of two.
    if update.norm <= LONGEST:
        return _finite(update, but=ARRAYS)
    return _finite(update) or f"it is {update.norm:.3g} away from the model that was sent"


def hidden_finite(update: Update) -> str | None:
    """Refuse NaN and infinity among values of which nothing else is known."""
    return _finite(update)


def _finite(update: Update, but: str | None = None) -> str | None:
    for name, arrays in update.records.items():
        if name != but and (flaw := not_finite(arrays)) is not None:
            return flaw if name in (ARRAYS, BUFFERS) else f"in its {name} {flaw}"
    return None


OPEN: tuple[Check, ...] = (same_form, countable, finite)
"""Checks of an update whose values the server can read."""
HIDDEN: tuple[Check, ...] = (partial(same_form, kinds=False), countable, hidden_finite)
"""Checks of an update whose values a transform hides from the server."""


def mismatch(arrays: Arrays, expected: Arrays, kinds: bool = True) -> str | None:
    """Return how names, shapes or types of received arrays differ from the model's, or None."""
    if arrays.keys() != expected.keys():
        odd = sorted(set(arrays) ^ set(expected))
        return f"its tensors are not the model's: {', '.join(odd[:3])}"
    for name, array in arrays.items():
        like = expected[name]
        if array.shape != like.shape:
            return f"{name} has shape {array.shape} and not {like.shape}"
        if kinds and array.dtype != like.dtype:
            return f"{name} holds {array.dtype} and not {like.dtype}"
    return None


def not_finite(arrays: Arrays) -> str | None:
    """Return where arrays hold NaN or infinity, or None."""
    for name, array in arrays.items():
        if array.dtype.kind not in NUMBERS:
            return f"{name} holds {array.dtype}"
        if not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            return f"{count} of {array.size} values of {name} are NaN or infinite"
    return None

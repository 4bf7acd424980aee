"""Converts one site's unit into another's."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

import numpy as np

from fedpdm.data.rows import Floats

if TYPE_CHECKING:
    import pint

LONGEST = 40  # characters of a unit
_TERM = r"(?:\d{1,4}(?:\.\d{1,4})?|°?[^\W\d_]\w*|[%°])(?:\s*(?:\*\*|\^)\s*-?\d(?:\.\d)?)?"
_UNIT = re.compile(rf"{_TERM}(?:(?:\s*[*/·]\s*|\s+){_TERM})*")


def convert(values: Floats, unit: str, other: str) -> Floats:
    """Return ``values`` in ``unit`` as values in ``other``; NaN stays NaN.

    Raises:
        ValueError: a unit is not known, or one cannot be converted into the other.
    """
    import pint

    for text in (unit, other):
        if len(text) > LONGEST:
            raise ValueError(f"a unit is longer than {LONGEST} characters")
        if not _UNIT.fullmatch(re.sub(r"[()]", "", text)):  # powers of powers never end
            raise ValueError(f"{text!r} is not written like a unit")
    try:
        quantity = _registry().Quantity(values, unit).to(other)
        return np.asarray(quantity.magnitude, dtype=np.float64)
    except (pint.PintError, ArithmeticError, AttributeError, TypeError, SyntaxError) as error:
        raise ValueError(" ".join(str(error).split())) from None


@functools.cache
def _registry() -> pint.UnitRegistry[float]:
    """Make the table of units at its first use: it takes a third of a second."""
    import pint

    return pint.UnitRegistry()

"""Units: converted by pint, and nothing else is worked out."""

from __future__ import annotations

import numpy as np
import pytest

from fedpdm.data.sources.units import convert


@pytest.mark.parametrize(
    ("value", "unit", "other", "right"),
    [
        (212, "degF", "degC", 100),
        (25, "°C", "K", 298.15),
        (1, "bar", "kPa", 100),
        (25.4, "mm/s", "in/s", 1),
        (1, "m/s**2", "cm/s^2", 100),
        (60, "1/min", "Hz", 1),
        (50, "%", "dimensionless", 0.5),
        (1, "kJ/(kg*K)", "J/kg/K", 1000),
        (3600, "rpm", "turn/s", 60),
    ],
)
def test_units_of_sensors(value: float, unit: str, other: str, right: float) -> None:
    found = convert(np.array([value, np.nan]), unit, other)
    np.testing.assert_allclose(found, [right, np.nan], rtol=1e-6)


@pytest.mark.parametrize(
    "unit",
    ["bar", "degX", "", "9**9**9**9", "9**(9**9)", "(9^9)^9^9", "__import__('os')", "x" * 99, "\0",
     "degC**99999", "lambda: 0", "1e999", "m m m m m m m m m m m m m m m m m m!"],
)  # fmt: skip
def test_what_is_no_temperature_is_refused(unit: str) -> None:
    with pytest.raises(ValueError):
        convert(np.ones(1), unit, "degC")

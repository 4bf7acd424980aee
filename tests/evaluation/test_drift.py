"""Drift against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from fedpdm.evaluation.drift import kolmogorov_smirnov, population_stability_index

EVEN = np.arange(1000.0)


def test_the_same_sample_has_no_drift() -> None:
    for order in (EVEN, EVEN[::-1]):
        assert population_stability_index(EVEN, order) == 0
        assert kolmogorov_smirnov(EVEN, order) == 0


def test_two_values_that_change_their_shares() -> None:
    """Bins of a quantity with two values are these two: the sum can be written down."""
    before = np.repeat([0.0, 1.0], [50, 50])
    after = np.repeat([0.0, 1.0], [80, 20])
    wanted = (0.8 - 0.5) * np.log(0.8 / 0.5) + (0.2 - 0.5) * np.log(0.2 / 0.5)
    assert population_stability_index(before, after) == pytest.approx(wanted)
    assert kolmogorov_smirnov(before, after) == pytest.approx(0.3)


def test_a_flag_that_switches_off_or_a_constant_that_falls_is_drift() -> None:
    flag, off = np.repeat([1.0, 0.0], [950, 50]), np.zeros(100)
    for before, after in ((flag, off), (np.full(9, 5.0), np.full(9, 3.0))):
        found = population_stability_index(before, after)
        assert found is not None and found > 2
    assert population_stability_index(flag, flag[::-1]) == 0


def test_a_shift_by_a_tenth_of_the_range() -> None:
    """Nine bins keep their share, the first loses it and the last gets it twice."""
    found = population_stability_index(EVEN, EVEN + 100)
    assert found == pytest.approx(
        (1e-4 - 0.1) * np.log(1e-4 / 0.1) + (0.2 - 0.1) * np.log(2), rel=0.02
    )
    assert kolmogorov_smirnov(EVEN, EVEN + 100) == pytest.approx(0.1)
    assert kolmogorov_smirnov(EVEN, EVEN + 5000) == 1


def test_two_samples_of_one_quantity_differ_as_much_as_chance_says() -> None:
    draw = np.random.default_rng(0)
    values = [
        population_stability_index(draw.normal(size=400), draw.normal(size=400)) for _ in range(200)
    ]
    assert np.mean([value for value in values if value is not None]) == pytest.approx(
        9 * 2 / 400, rel=0.25
    )


def test_missing_readings_are_left_out_and_nothing_is_no_number() -> None:
    gaps = np.where(EVEN % 3 == 0, np.nan, EVEN)
    assert population_stability_index(gaps, gaps) == 0
    assert kolmogorov_smirnov(gaps, EVEN) == pytest.approx(0, abs=2e-3)
    nothing = np.full(5, np.nan)
    assert population_stability_index(nothing, EVEN) is None
    assert kolmogorov_smirnov(EVEN, nothing) is None

"""Summary features against closed forms."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpdm.data.summaries import STATISTICS, summarise


def blocks(x: np.ndarray) -> dict[str, np.ndarray]:
    result = summarise(x)
    assert result.shape == (len(x), len(STATISTICS) * x.shape[2])
    return dict(zip(STATISTICS, np.split(result, len(STATISTICS), axis=1), strict=True))


def test_a_ramp_has_its_slope_and_a_constant_none() -> None:
    steps = np.arange(10.0)
    x = np.stack([3.0 * steps - 4.0, np.full(10, 7.25)], axis=1)[None].astype(np.float32)
    found = blocks(x)
    assert found["last"].tolist() == [[23.0, 7.25]]
    assert found["mean"].tolist() == [[9.5, 7.25]]
    assert found["min"].tolist() == [[-4.0, 7.25]]
    assert found["max"].tolist() == [[23.0, 7.25]]
    # The variance of 0..T-1 is (T² - 1) / 12.
    np.testing.assert_allclose(found["std"], [[3 * np.sqrt(99 / 12), 0.0]], rtol=1e-12)
    np.testing.assert_allclose(found["slope"], [[3.0, 0.0]], atol=1e-12)


@settings(max_examples=30)
@given(st.integers(1, 5), st.integers(2, 30), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_slope_is_that_of_a_fitted_line(n: int, length: int, features: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(n, length, features))
    slope = blocks(x)["slope"]
    for i in range(n):
        fitted = np.polynomial.polynomial.polyfit(np.arange(length), x[i], 1)[1]
        np.testing.assert_allclose(slope[i], fitted, atol=1e-9)


def test_order_matters_to_last_and_slope_only() -> None:
    x = np.random.default_rng(0).normal(size=(4, 12, 3))
    forward, backward = blocks(x), blocks(x[:, ::-1])
    for name in ("mean", "std", "min", "max"):
        np.testing.assert_allclose(forward[name], backward[name], atol=1e-12)
    np.testing.assert_allclose(forward["slope"], -backward["slope"], atol=1e-12)
    np.testing.assert_array_equal(backward["last"], x[:, 0])


def test_sums_are_taken_in_double_precision() -> None:
    # In float32, 2**24 + 1 is 2**24: the mean of many would be off.
    x = np.full((1, 4096, 1), 2**24 + 2, dtype=np.float32)
    assert blocks(x)["mean"].item() == 2**24 + 2
    assert blocks(x)["std"].item() == 0.0


def test_a_window_of_one_step_has_no_slope_and_no_spread() -> None:
    found = blocks(np.array([[[5.0]]]))
    assert found["slope"].item() == found["std"].item() == 0.0
    assert found["last"].item() == 5.0


def test_tabular_rows_stay_as_they_are() -> None:
    x = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    result = summarise(x)
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, x)


def test_no_windows_give_no_rows() -> None:
    assert summarise(np.empty((0, 8, 3), dtype=np.float32)).shape == (0, 18)

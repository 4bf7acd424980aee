"""Scaling: exact over sites, blind to everything but training rows, filled from the past."""

from __future__ import annotations

import functools
import operator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpdm.data.normalise import Moments, Scaler, fill_missing, moments
from fedpdm.data.rows import Rows, Split
from fedpdm.data.windows import segment_starts
from tests.data.row_examples import any_rows, rows_of


def site(seed: int, count: int = 60, conditions: int = 2, missing: float = 0.1) -> Rows:
    draw = np.random.default_rng(seed)
    values = draw.normal([0.0, 500.0, -3.0], [1.0, 20.0, 1e-3], (count, 3))
    values[draw.random(values.shape) < missing] = np.nan
    return rows_of(
        ["a"] * count,
        values=values,
        condition=draw.integers(0, conditions, count).tolist(),
        split=draw.choice([Split.TRAIN, Split.VALIDATION, Split.TEST], count).tolist(),
    )


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=6))
def test_moments_added_over_sites_are_those_of_the_pooled_training_rows(seeds: list[int]) -> None:
    sites = [site(seed) for seed in seeds]
    scaler = functools.reduce(operator.add, (moments(p, 2) for p in sites)).scaler()
    for k in range(2):
        pooled = np.concatenate(
            [p.values[(p.split == Split.TRAIN) & (p.condition == k)] for p in sites]
        )
        known = (~np.isnan(pooled)).sum(axis=0) >= 2
        if not known.all():
            continue
        np.testing.assert_allclose(scaler.mean[k], np.nanmean(pooled, axis=0), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(scaler.scale[k], np.nanstd(pooled, axis=0), rtol=1e-5)


@given(st.integers(0, 10_000), st.floats(-1e6, 1e6))
def test_rows_outside_training_cannot_move_the_scaler(seed: int, intruder: float) -> None:
    rows = site(seed)
    values = rows.values.copy()
    values[rows.split != Split.TRAIN] = intruder
    one, other = (moments(r, 2).scaler() for r in (rows, replace(rows, values=values)))
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.scale, other.scale)


def test_scaled_training_rows_have_mean_0_and_deviation_1_in_each_condition() -> None:
    rows = site(3, count=2000)
    scaled = moments(rows, 2).scaler().apply(rows.values, rows.condition)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(scaled), np.isnan(rows.values))
    for k in range(2):
        part = scaled[(rows.split == Split.TRAIN) & (rows.condition == k)].astype(np.float64)
        np.testing.assert_allclose(np.nanmean(part, axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(np.nanstd(part, axis=0), 1, atol=1e-4)


def test_conditions_are_scaled_apart() -> None:
    rows = rows_of(
        ["a"] * 4, values=np.array([[1.0], [3.0], [101.0], [105.0]]), condition=[0, 0, 1, 1]
    )
    scaler = moments(rows, 2).scaler()
    assert scaler.mean.tolist() == [[2.0], [103.0]] and scaler.scale.tolist() == [[1.0], [2.0]]
    assert scaler.apply(rows.values, rows.condition)[:, 0].tolist() == [-1, 1, -1, 1]


def test_unseen_condition_borrows_the_moments_of_all() -> None:
    rows = rows_of(["a"] * 2, values=np.array([[1.0], [3.0]]))
    scaler = moments(rows, 3).scaler()
    assert scaler.mean[:, 0].tolist() == [2.0, 2.0, 2.0]
    assert scaler.scale[:, 0].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("value", [0.0, 0.1, 518.67, 1e9, -1e-9])
def test_feature_that_never_varies_becomes_0_even_where_a_test_row_differs(value: float) -> None:
    rows = rows_of(
        ["a"] * 51,
        values=np.array([[value]] * 50 + [[value + 1]]),
        split=[Split.TRAIN] * 50 + [Split.TEST],
    )
    scaled = moments(rows, 1).scaler().apply(rows.values, rows.condition)
    assert not scaled.any()


def test_small_deviation_on_a_large_offset_survives() -> None:
    values = np.random.default_rng(0).normal(2388.0, 0.07, (5000, 1))  # C-MAPSS's fan speed
    scaler = moments(rows_of(["a"] * 5000, values=values), 1).scaler()
    np.testing.assert_allclose(scaler.scale[0, 0], values.std(), rtol=1e-6)


@given(
    st.lists(st.integers(0, 10_000), min_size=1, max_size=4),
    st.sampled_from([0.0, -1e3, 5e6, 1e9]),
    st.integers(1, 3),
)
def test_an_offset_moves_the_mean_and_nothing_else(
    seeds: list[int], offset: float, conditions: int
) -> None:
    """Readings that vary by 1 around a billion are scaled like the same around 0."""
    draws = [np.random.default_rng(seed) for seed in seeds]
    parts = [draw.normal(draw.uniform(-2, 2), 1.0, (40, 2)) for draw in draws]
    where = [draw.integers(0, conditions, 40) for draw in draws]
    plain, moved = (
        functools.reduce(
            operator.add,
            (Moments.of(p + c, k, conditions) for p, k in zip(parts, where, strict=True)),
        ).scaler()
        for c in (0.0, offset)
    )
    np.testing.assert_allclose(moved.scale, plain.scale, rtol=1e-5)
    np.testing.assert_allclose(moved.mean - offset, plain.mean, atol=1e-5)


@pytest.mark.parametrize("value", [0.1, 518.67, 1e9])
def test_a_constant_stays_one_over_sites_and_conditions(value: float) -> None:
    part = Moments.of(np.full((7, 1), value), np.arange(7) % 3, 3)
    scaler = functools.reduce(operator.add, [part] * 50).scaler()
    assert not scaler.scale.any()


def test_site_without_training_rows_adds_nothing() -> None:
    rows = site(1)
    silent = replace(rows, split=np.full(len(rows), Split.TEST, dtype=np.int8))
    both = moments(rows, 2) + moments(silent, 2)
    assert isinstance(both, Moments)
    np.testing.assert_array_equal(both.scaler().mean, moments(rows, 2).scaler().mean)


def holes(rows: Rows, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    scaled = draw.normal(size=(len(rows), 2)).astype(np.float32)
    scaled[draw.random(scaled.shape) < 0.4] = np.nan
    return scaled


@given(any_rows(), st.integers(0, 1000))
def test_missing_becomes_the_last_reading_of_the_segment_or_0(rows: Rows, seed: int) -> None:
    scaled = holes(rows, seed)
    filled = fill_missing(scaled, rows)
    start = segment_starts(rows)
    for i in range(len(rows)):
        for f in range(2):
            past = scaled[start[i] : i + 1, f]
            past = past[~np.isnan(past)]
            assert filled[i, f] == (past[-1] if len(past) else 0.0)


@given(any_rows(), st.integers(0, 1000), st.data())
def test_filling_never_looks_ahead(rows: Rows, seed: int, data: st.DataObject) -> None:
    scaled = holes(rows, seed)
    now = data.draw(st.integers(0, len(rows) - 1))
    other = scaled.copy()
    other[now + 1 :] = 99.0
    np.testing.assert_array_equal(
        fill_missing(scaled, rows)[: now + 1], fill_missing(other, rows)[: now + 1]
    )


def test_scaler_keeps_nan_for_a_feature_without_variation() -> None:
    scaler = Scaler(np.zeros((1, 1)), np.zeros((1, 1)))
    scaled = scaler.apply(np.array([[np.nan], [5.0]]), np.zeros(2, dtype=np.int64))
    assert np.isnan(scaled[0, 0]) and scaled[1, 0] == 0

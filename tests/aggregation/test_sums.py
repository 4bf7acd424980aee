"""The weighted mean that is added up as updates come."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fedpdm.aggregation.sums import Vectors, WeightedMean, is_weighted_mean, mismatch, not_finite
from fedpdm.config.compose import options
from fedpdm.testing.federated import named

FLOATS = st.floats(-1e6, 1e6, width=32)


def test_the_mean_by_hand() -> None:
    mean = WeightedMean()
    mean.add({"w": np.array([1.0, 2.0], np.float32), "n": np.array(3)}, 1)
    mean.add({"w": np.array([5.0, 0.0], np.float32), "n": np.array(7)}, 3)
    found = mean.mean()
    assert found is not None
    np.testing.assert_array_equal(found["w"], np.array([4.0, 0.5], np.float32))
    assert found["w"].dtype == np.float32
    assert found["n"] == 7 and found["n"].dtype == np.int64


def test_nothing_has_no_mean() -> None:
    assert WeightedMean().mean() is None


@given(
    array=arrays(np.float32, array_shapes(min_dims=0, max_dims=3, max_side=4), elements=FLOATS),
    weights=st.lists(st.integers(1, 1_000_000), min_size=1, max_size=50),
)
def test_sites_that_return_what_they_received_change_no_bit(
    array: np.ndarray, weights: list[int]
) -> None:
    mean = WeightedMean()
    for weight in weights:
        mean.add({"w": array}, weight)
    found = mean.mean()
    assert found is not None and found["w"].tobytes() == np.asarray(array).tobytes()


@given(st.lists(st.tuples(FLOATS, st.integers(1, 1000)), min_size=1, max_size=20))
def test_it_is_numpys_average(pairs: list[tuple[float, int]]) -> None:
    mean = WeightedMean()
    for value, weight in pairs:
        mean.add({"w": np.array([value])}, weight)
    found = mean.mean()
    values, weights = zip(*pairs, strict=True)
    assert found is not None
    np.testing.assert_allclose(
        found["w"][0], np.average(values, weights=weights), rtol=1e-9, atol=1e-9
    )


def test_distance_is_euclidean_and_tells_nan() -> None:
    old = {"a": np.zeros((2, 2), np.float32), "b": np.ones(1, np.float32)}
    new = {"a": np.full((2, 2), 2.0, np.float32), "b": np.zeros(1, np.float32)}
    vectors = Vectors(old)
    assert vectors.distance(vectors.of(new)) == pytest.approx(np.sqrt(17.0))
    for bad in (np.nan, np.inf, -np.inf):
        new["a"][1, 1] = bad
        assert not np.isfinite(vectors.distance(vectors.of(new)))
        assert "1 of 4 values of a" in str(not_finite(new))
    most = np.finfo(np.float32).max
    far = Vectors({"a": np.full(3, -most)})
    assert np.isfinite(far.distance(far.of({"a": np.full(3, most)})))


@given(
    array=arrays(np.float32, array_shapes(min_dims=0, max_dims=3, max_side=4), elements=FLOATS),
    weights=st.lists(st.integers(1, 1_000_000), min_size=1, max_size=50),
)
def test_as_vectors_too(array: np.ndarray, weights: list[int]) -> None:
    sent = {"w": np.asarray(array), "v": np.ones((2, 1), np.float64)}
    vectors = Vectors(sent)
    assert vectors.mean() is None
    for weight in weights:
        vectors.add(vectors.of(sent), weight)
    found = vectors.mean()
    assert found is not None and list(found) == ["w", "v"]
    for name, each in sent.items():
        assert found[name].dtype == each.dtype and found[name].shape == each.shape
        assert found[name].tobytes() == each.tobytes()


def test_other_names_and_shapes_are_told() -> None:
    expected = {"a": np.zeros(2), "b": np.zeros(3)}
    assert mismatch(expected, expected) is None
    assert "not the model's: b" in str(mismatch({"a": np.zeros(2)}, expected))
    assert "b has shape (4,)" in str(mismatch({"a": np.zeros(2), "b": np.zeros(4)}, expected))


def test_only_strategies_that_keep_flowers_mean_are_added_up() -> None:
    streamed = {
        name for name in options("strategy") if is_weighted_mean(named([f"strategy={name}"]))
    }
    assert streamed == {"fedavg", "fedprox"}
    assert not is_weighted_mean(FedAvg(weighted_by_key="hours"))


@given(
    pairs=st.lists(st.tuples(FLOATS, st.integers(1, 1_000_000)), min_size=1, max_size=30),
    random=st.randoms(use_true_random=False),
)
def test_the_order_of_sites_hardly_matters(pairs: list[tuple[float, int]], random: Random) -> None:
    means = []
    for order in (pairs, random.sample(pairs, len(pairs))):
        mean = WeightedMean()
        for value, weight in order:
            mean.add({"w": np.array([value]), "n": np.array(weight)}, weight)
        found = mean.mean()
        assert found is not None and found["n"] == max(weight for _, weight in pairs)
        means.append(found["w"][0])
    size = max(abs(value) for value, _ in pairs)
    assert abs(means[0] - means[1]) <= 1e-12 * max(size, 1.0)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8"])
def test_types_are_kept_and_what_was_added_is_not_changed(dtype: str) -> None:
    array, mean = np.array([[1, 2], [3, 4]], dtype), WeightedMean()
    for weight in (3, 5):
        mean.add({"w": array}, weight)
    found = mean.mean()
    assert found is not None and found["w"].dtype == array.dtype
    assert np.array_equal(found["w"], array) and array.tolist() == [[1, 2], [3, 4]]

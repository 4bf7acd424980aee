"""Weighted means that are added up as updates come."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp.strategy import FedAvg
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fedpdm.aggregation.screening import mismatch, not_finite
from fedpdm.aggregation.sums import Accumulation, MeanByExamples, is_weighted_mean
from fedpdm.aggregation.update import Base, Update
from fedpdm.config.command_line import options
from fedpdm.strategies.fedprox import FedProx
from fedpdm.testing.federated import named
from fedpdm.wire.flower import become_server
from fedpdm.wire.records import ARRAYS, BUFFERS, EXAMPLES, METRICS, Arrays, metric_record

FLOATS = st.floats(-1e6, 1e6, width=32)


@pytest.fixture(autouse=True)
def identity() -> None:
    become_server()  # or Flower makes no message


def means(pairs: Sequence[tuple[Arrays, float]]) -> tuple[Arrays, Arrays]:
    """Return the means of arrays with weights, once as parameters and once as buffers."""
    like = pairs[0][0]
    adding = Accumulation(Base(0, like, like), MeanByExamples())
    reply = Message(RecordDict({METRICS: metric_record(1, {})}), 1, "train")
    for each, weight in pairs:
        records = {ARRAYS: each, BUFFERS: each}
        adding.add(Update("a", Base(0, like, like), records, {EXAMPLES: weight}, weight), reply)
    totals = adding.totals()
    sums, buffers = adding.sums(totals, []), adding.buffers(totals)
    assert sums is not None and buffers is not None
    return sums.mean, buffers


def test_the_mean_by_hand() -> None:
    first = {"w": np.array([1.0, 2.0], np.float32), "n": np.array(3)}
    _, found = means([(first, 1), ({"w": np.array([5.0, 0.0], np.float32), "n": np.array(7)}, 3)])
    np.testing.assert_array_equal(found["w"], np.array([4.0, 0.5], np.float32))
    assert found["w"].dtype == np.float32
    assert found["n"] == 7 and found["n"].dtype == np.int64


def test_nothing_has_no_mean() -> None:
    nothing = Accumulation(Base(0, {}, {}), MeanByExamples())
    assert nothing.sums(nothing.totals(), []) is None
    assert nothing.buffers(nothing.totals()) is None


@given(
    array=arrays(np.float32, array_shapes(min_dims=0, max_dims=3, max_side=4), elements=FLOATS),
    weights=st.lists(st.integers(1, 1_000_000), min_size=1, max_size=50),
)
def test_sites_that_return_what_they_received_change_no_bit(
    array: np.ndarray, weights: list[int]
) -> None:
    sent = {"w": np.asarray(array), "v": np.ones((2, 1), np.float64)}
    mean, buffers = means([(sent, weight) for weight in weights])
    assert list(mean) == ["w", "v"]
    for name, each in sent.items():
        assert buffers[name].dtype == each.dtype and mean[name].dtype == np.float64
        assert mean[name].shape == each.shape
        assert buffers[name].tobytes() == mean[name].astype(each.dtype).tobytes() == each.tobytes()


@given(st.lists(st.tuples(FLOATS, st.integers(1, 1000)), min_size=1, max_size=20))
def test_it_is_numpys_average(pairs: list[tuple[float, int]]) -> None:
    values, weights = zip(*pairs, strict=True)
    for found in means([({"w": np.array([value])}, weight) for value, weight in pairs]):
        np.testing.assert_allclose(
            found["w"][0], np.average(values, weights=weights), rtol=1e-9, atol=1e-9
        )


def test_distance_is_euclidean_and_tells_nan() -> None:
    old = {"a": np.zeros((2, 2), np.float32), "b": np.ones(1, np.float32)}
    new = {"a": np.full((2, 2), 2.0, np.float32), "b": np.zeros(1, np.float32)}
    base = Base(0, old, {})
    assert base.distance(new) == pytest.approx(np.sqrt(17.0))
    for bad in (np.nan, np.inf, -np.inf):
        new = {**new, "a": new["a"].copy()}
        new["a"][1, 1] = bad
        assert not np.isfinite(base.distance(new))
        assert "1 of 4 values of a" in str(not_finite(new))
    most = np.finfo(np.float32).max
    far = Base(0, {"a": np.full(3, -most)}, {})
    assert np.isfinite(far.distance({"a": np.full(3, most)}))


def test_other_names_and_shapes_are_told() -> None:
    expected = {"a": np.zeros(2), "b": np.zeros(3)}
    assert mismatch(expected, expected) is None
    assert "not the model's: b" in str(mismatch({"a": np.zeros(2)}, expected))
    assert "b has shape (4,)" in str(mismatch({"a": np.zeros(2), "b": np.zeros(4)}, expected))


def test_only_strategies_that_keep_flowers_mean_are_added_up() -> None:
    streamed = {
        name for name in options("strategy") if is_weighted_mean(named([f"strategy={name}"]))
    }
    theirs = {
        name for name in options("strategy")
        if type(named([f"strategy={name}"])) in (FedAvg, FedProx)
    }  # fmt: skip
    assert streamed == theirs and {"fedavg", "fedprox", "ditto"} <= streamed
    assert not is_weighted_mean(FedAvg(weighted_by_key="hours"))


@given(
    pairs=st.lists(st.tuples(FLOATS, st.integers(1, 1_000_000)), min_size=1, max_size=30),
    random=st.randoms(use_true_random=False),
)
def test_the_order_of_sites_hardly_matters(pairs: list[tuple[float, int]], random: Random) -> None:
    found = []
    for order in (pairs, random.sample(pairs, len(pairs))):
        _, mean = means([({"w": np.array([v]), "n": np.array(w)}, w) for v, w in order])
        assert mean["n"] == max(weight for _, weight in pairs)
        found.append(mean["w"][0])
    size = max(abs(value) for value, _ in pairs)
    assert abs(found[0] - found[1]) <= 1e-12 * max(size, 1.0)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8"])
def test_types_are_kept_and_what_was_added_is_not_changed(dtype: str) -> None:
    array = np.array([[1, 2], [3, 4]], dtype)
    _, found = means([({"w": array}, weight) for weight in (3, 5)])
    assert found["w"].dtype == array.dtype
    assert np.array_equal(found["w"], array) and array.tolist() == [[1, 2], [3, 4]]

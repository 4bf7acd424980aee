"""Arrays that are bytes only when asked, and the sizes of what would travel."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fedpdm.wire.flower import wire_bytes
from fedpdm.wire.records import LiveArray, from_record, to_record

DTYPES = ["float32", "float64", "int64", "float16", "bool"]
ARRAY = st.sampled_from(DTYPES).flatmap(
    lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
NAMES = st.text("abc.é", min_size=1, max_size=8)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
LISTS = st.lists(st.integers(0, 9), max_size=3) | st.lists(st.floats(allow_nan=False), max_size=3)


@given(ARRAY)
def test_on_the_wire_it_is_flowers_array(array: np.ndarray) -> None:
    live, plain = LiveArray(array), Array(array)
    assert (live.dtype, live.shape, live.stype) == (plain.dtype, plain.shape, plain.stype)
    assert live.data == plain.data and live == plain
    content = RecordDict({"arrays": to_record({"x": array})})
    back = recorddict_from_proto(recorddict_to_proto(content)).array_records["arrays"]["x"]
    found = back.numpy()
    assert type(back) is Array and found.dtype == array.dtype
    assert found.shape == array.shape and found.tobytes() == array.tobytes()


def test_flower_takes_it_apart_and_puts_it_together_as_an_array() -> None:
    live = LiveArray(np.arange(6, dtype=np.float32).reshape(2, 3))
    back = Array.inflate(live.deflate(), live.children)
    assert back.numpy().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_arrays_that_are_not_contiguous_are_made_so() -> None:
    array = np.arange(12.0).reshape(3, 4).T
    record = to_record({"x": array})
    assert np.array_equal(record["x"].numpy(), array)
    assert record["x"].data == Array(np.ascontiguousarray(array)).data


def test_numpy_gives_a_copy_and_from_record_does_not() -> None:
    array = np.zeros(3)
    record = to_record({"x": array})
    record["x"].numpy()[0] = 1.0
    assert array[0] == 0.0 and from_record(record)["x"] is array


@pytest.mark.parametrize("protocol", [4, 5])
def test_it_can_be_pickled_and_copied(protocol: int) -> None:
    array = LiveArray(np.arange(3.0))
    for other in (pickle.loads(pickle.dumps(array, protocol)), copy.deepcopy(array)):
        assert isinstance(other, LiveArray) and other == array


@given(
    held=st.dictionaries(NAMES, st.dictionaries(NAMES, ARRAY, max_size=3), max_size=2),
    metrics=st.dictionaries(NAMES, NUMBERS | LISTS, max_size=4),
    config=st.dictionaries(NAMES, st.text(max_size=5) | st.booleans() | st.integers(0, 9)),
)
def test_sizes_are_those_of_flowers_serialisation(
    held: dict[str, dict[str, np.ndarray]],
    metrics: dict[str, object],
    config: dict[str, object],
) -> None:
    records: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {
        f"a{name}": to_record(each) for name, each in held.items()
    }
    records["m"] = MetricRecord(metrics)  # type: ignore[arg-type]
    records["c"] = ConfigRecord(config)  # type: ignore[arg-type]
    content = RecordDict(records)
    expected = recorddict_to_proto(content).ByteSize()
    assert wire_bytes([content]) == wire_bytes([content]) == expected
    assert wire_bytes([content, content]) == 2 * expected

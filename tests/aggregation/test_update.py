"""An update as a difference from what was sent."""

from __future__ import annotations

import numpy as np
import pytest

from fedpdm.aggregation.update import Base, Update
from fedpdm.wire.records import ARRAYS, BUFFERS, EXAMPLES

BASE = Base(4, {"w": np.array([1.0, 2.0], np.float32)}, {"seen": np.array(3)})
UPDATE = Update(
    "gdansk",
    BASE,
    {
        ARRAYS: {"w": np.array([4.0, -2.0], np.float32)},
        BUFFERS: {"seen": np.array(5)},
        "control": {"w": np.array([0.5, 0.5], np.float32)},
    },
    {EXAMPLES: 2.0},
    2.0,
)


def test_a_delta_is_the_difference_from_the_version_that_was_sent() -> None:
    assert UPDATE.base_version == 4 and UPDATE.norm == pytest.approx(5.0)
    assert UPDATE.delta()["w"].tolist() == [3.0, -4.0]
    assert UPDATE.delta(BUFFERS)["seen"] == 2
    assert UPDATE.delta("control")["w"].tolist() == [0.5, 0.5], "a difference already"


def test_another_delta_makes_another_update_in_the_types_of_the_model() -> None:
    half = UPDATE.with_delta({n: d / 2 for n, d in UPDATE.delta().items()})
    assert half.arrays["w"].tolist() == [2.5, 0.0] and half.arrays["w"].dtype == np.float32
    assert half.norm == pytest.approx(2.5) and UPDATE.norm == pytest.approx(5.0)
    counted = UPDATE.with_delta({"seen": np.array(7.0)}, BUFFERS)
    assert counted.buffers["seen"] == 10 and counted.buffers["seen"].dtype == np.int64

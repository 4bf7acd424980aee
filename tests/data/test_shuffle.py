"""Shuffled labels keep every share, go to other windows, and come back with the seed."""

from __future__ import annotations

import numpy as np
import pytest

from fedpdm.data.rows import Split
from fedpdm.data.shuffle import LabelShuffle
from fedpdm.data.windows import Windows
from fedpdm.errors import ConfigError


def windows(machines: int = 4, each: int = 25) -> Windows:
    count = machines * each
    y = np.tile(np.arange(each) >= each - 6, machines).astype(np.int64)
    return Windows(
        x=np.arange(count, dtype=np.float32)[:, None], y=y, truth=y.astype(float),
        machine=np.repeat([f"m{k}" for k in range(machines)], each),
        time=np.tile(np.arange(each, dtype=float), machines),
        padded=np.zeros(count, dtype=bool), last=np.zeros(count, dtype=bool),
    )  # fmt: skip


PARTS = {Split.TRAIN: windows(), Split.TEST: windows(3)}


@pytest.mark.parametrize("kind", ["windows", "rotated"])
def test_inputs_and_shares_stay_and_labels_move(kind: str) -> None:
    found = LabelShuffle(kind, 1)(PARTS, "pune")
    for split, part in found.items():
        before = PARTS[split]
        np.testing.assert_array_equal(part.x, before.x)
        assert part.y.sum() == before.y.sum() and (part.y != before.y).any()
        np.testing.assert_array_equal(part.truth, part.y)  # still of one window
    again = LabelShuffle(kind, 1)(PARTS, "pune")
    np.testing.assert_array_equal(again[Split.TEST].y, found[Split.TEST].y)
    others = [LabelShuffle(kind, 2)(PARTS, "pune"), LabelShuffle(kind, 1)(PARTS, "lyon")]
    for other in others:
        assert (other[Split.TRAIN].y != found[Split.TRAIN].y).any()


def test_rotated_labels_keep_their_runs_within_each_machine() -> None:
    part = LabelShuffle("rotated", 3)(PARTS, "pune")[Split.TRAIN]
    for machine in np.unique(part.machine):
        y = part.y[part.machine == machine]
        assert y.sum() == 6
        assert np.abs(np.diff(np.r_[y, y[0]])).sum() == 2  # one run, seen as a ring


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="shuffle_labels=rows is unknown; choose windows"):
        LabelShuffle("rows", 1)

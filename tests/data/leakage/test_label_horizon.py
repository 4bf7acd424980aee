"""Labels that look further ahead than the task says are refused, with the horizon they need."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedpdm.data.rows import Rows, Split
from fedpdm.errors import LeakError
from fedpdm.testing.tiny import TinySource
from tests.data.leakage.test_checks import check


class Labelled(TinySource):
    """Machines that fail every 60 to 90 hours and are watched for 800; labels look ``ahead``."""

    ahead: float = 30.0
    varied = False
    whole = False

    def rows(self, site: str) -> Rows:
        rows = super().rows(site)
        draw = np.random.default_rng(5)
        label = np.zeros(len(rows), dtype=np.int64)
        for name in np.unique(rows.machine):
            own = rows.machine == name
            failures = np.cumsum(draw.uniform(60, 90, 20))
            time = rows.time[own]
            for failure in failures:
                ahead = draw.uniform(5, 50) if self.varied else self.ahead
                label[np.flatnonzero(own)[(time <= failure) & (time >= failure - ahead)]] = 1
        split = rows.split
        if self.whole:
            last = np.isin(rows.machine, np.unique(rows.machine)[-2:])
            split = np.where(last, Split.TEST, Split.TRAIN).astype(np.int8)
        return replace(rows, label=label, split=split)


def site(reach: float) -> Labelled:
    return Labelled({"a": {"machines": 6, "rows": 800}}, reach=reach)


def test_labels_that_look_further_than_the_horizon_are_refused_with_the_way_out() -> None:
    message = r"a: labels look about 30 hours ahead .*task.horizon=7 .*set task.horizon=30"
    with pytest.raises(LeakError, match=message):
        check(site(7.0), reach=7.0)


@pytest.mark.parametrize("reach", [29.0, 30.0, 40.0])
def test_labels_that_look_as_far_as_the_horizon_are_welcome(reach: float) -> None:
    assert check(site(reach), reach=reach) == []


def test_short_labels_are_welcome() -> None:
    source = site(7.0)
    source.ahead = 7.0
    assert check(source, reach=7.0) == []


def test_stretches_of_many_lengths_may_tell_of_the_present_and_are_flagged() -> None:
    source = site(7.0)
    source.varied = True
    (warning,) = check(source, reach=7.0)
    assert warning.startswith("a: labels stay 1 for ")
    assert "longer than task.horizon=7; if they look ahead, set task.horizon=" in warning


def test_without_a_horizon_stretches_of_one_length_are_flagged() -> None:
    (warning,) = check(site(0.0), reach=0.0)
    assert "task.horizon is null; if they look ahead, set task.horizon=30" in warning


def test_whole_machines_in_one_part_have_no_label_that_looks_into_another() -> None:
    source = site(7.0)
    source.whole = True
    assert check(source, reach=7.0) == []


def test_stretches_of_an_even_number_of_lengths_are_only_flagged() -> None:
    """Of an even number the median lies between the two, and no stretch is that long."""

    class Halves(TinySource):
        def rows(self, site: str) -> Rows:
            rows = super().rows(site)
            label = np.zeros(len(rows), dtype=np.int64)
            for k, name in enumerate(np.unique(rows.machine)):
                length = (12, 16, 20, 24, 40, 44, 48, 52)[k]
                own = np.flatnonzero(rows.machine == name)
                for begin in (50, 150):
                    label[own[begin : begin + length]] = 1
            return replace(rows, label=label)

    source = Halves({"a": {"machines": 8, "rows": 800}}, reach=7.0)
    (warning,) = check(source, reach=7.0)
    assert "longer than task.horizon=7; if they look ahead" in warning

"""Sites are read when needed, windows carry their labels, and bad sites are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedpdm.data.rows import Rows, Split
from fedpdm.data.sources.base import expand_replicas
from fedpdm.errors import ConfigError, DataError
from fedpdm.federation import Federation, rows_size
from fedpdm.tasks import Failure, RemainingLife
from fedpdm.testing.tiny import TinySource


def federation(**sites: dict[str, int]) -> Federation:
    return Federation(
        TinySource(sites or {"a": {"machines": 8}, "b": {"machines": 8}}), Failure(4.0)
    )


def test_nothing_is_read_before_it_is_needed() -> None:
    built = federation()
    assert built.source.read == []  # type: ignore[attr-defined]
    built.moments("b")
    built.site("b", built.moments("b").scaler())
    assert built.source.read == ["b"]  # type: ignore[attr-defined]


def test_the_least_recently_used_site_is_dropped() -> None:
    sites = TinySource({n: {} for n in "abc"})
    one = rows_size(sites.rows("a"))
    sites.read.clear()
    built = Federation(sites, Failure(4.0), budget=2 * int(2.5 * one))  # room for the rows of two
    for name in ("a", "b", "a", "c", "a", "b"):
        built.rows(name)
    assert built.source.read == ["a", "b", "c", "b"]  # type: ignore[attr-defined]


def test_windows_end_at_rows_of_their_split_and_carry_their_label() -> None:
    built = federation()
    scaler = built.moments("a").scaler()
    rows, site = built.rows("a"), built.site("a", scaler)
    scaled = scaler.apply(rows.values, rows.condition)
    position = {(m, t): i for i, (m, t) in enumerate(zip(rows.machine, rows.time, strict=True))}
    for split, windows in site.windows.items():
        assert len(windows) > 0
        for n in range(len(windows)):
            end = position[(windows.machine[n], windows.time[n])]
            assert rows.split[end] == split
            assert windows.y[n] == (rows.time_to_failure[end] <= 4.0)
            np.testing.assert_array_equal(windows.x[n], scaled[end - 7 : end + 1])
            assert len(set(rows.machine[end - 7 : end + 1])) == 1
            assert len(set(rows.life[end - 7 : end + 1])) == 1
            assert set(rows.split[end - 7 : end + 1]) == {split}


def test_heldout_machines_are_in_no_other_split() -> None:
    built = federation()
    site = built.site("a", built.moments("a").scaler())
    heldout = set(site.heldout.machine)
    assert heldout
    for split in (Split.TRAIN, Split.VALIDATION, Split.TEST):
        assert not heldout & set(site.windows[split].machine)


def test_moments_never_see_a_row_outside_training() -> None:
    class Spoiled(TinySource):
        def rows(self, site: str) -> Rows:
            rows = super().rows(site)
            values = rows.values.copy()
            values[rows.split != Split.TRAIN] = 1e9
            return replace(rows, values=values)

    clean = Federation(TinySource({"a": {}}), Failure(4.0)).moments("a").scaler()
    spoiled = Federation(Spoiled({"a": {}}), Failure(4.0)).moments("a").scaler()
    np.testing.assert_array_equal(clean.mean, spoiled.mean)
    np.testing.assert_array_equal(clean.scale, spoiled.scale)


def test_a_task_that_is_tested_at_the_end_gets_each_machines_last_row() -> None:
    class Official(TinySource):
        def rows(self, site: str) -> Rows:
            rows = super().rows(site)
            return replace(
                rows,
                split=np.full(len(rows), Split.TEST, dtype=np.int8),
                time_to_failure=np.full(len(rows), 3.0),
                life=np.zeros(len(rows), dtype=np.int64),
                test_last_only=True,
            )

    source = Official({"a": {"machines": 5}})
    for task, count in ((RemainingLife(9.0), 5), (Failure(4.0), None)):
        built = Federation(source, task)
        test = built.site("a", built.moments("a").scaler()).test
        assert len(test) == count if count else len(test) > 5
        assert test.last.all() == (count is not None)


def test_the_shape_counts_and_does_not_leak_rows() -> None:
    built = federation()
    shape = built.shape(built.site("a", built.moments("a").scaler()))
    rows = built.rows("a")
    assert shape["rows"] == len(rows) == 960 and shape["machines"] == 8
    ends = np.flatnonzero(rows.time_to_failure == 0)
    assert shape["failures"] == len(ends)
    assert shape["windows"]["train"] > 0 and 0 < shape["prevalence"]["train"] < 1
    assert shape["sha256"] == rows.sha256()


def test_replicas_keep_settings_and_number_their_names() -> None:
    many = expand_replicas({"a": {"machines": 3}, "b": {}}, 12)
    assert list(many)[:2] == ["a-001", "a-002"] and list(many)[-1] == "b-012"
    assert many["a-012"] == {"machines": 3}
    assert expand_replicas({"a": {}}, 1) == {"a": {}}
    with pytest.raises(ConfigError, match="replicas=0"):
        expand_replicas({"a": {}}, 0)


def test_replicas_differ_in_their_data() -> None:
    built = Federation(TinySource(expand_replicas({"a": {}}, 2)), Failure(4.0))
    assert built.rows("a-001").sha256() != built.rows("a-002").sha256()


def check(built: Federation) -> list[str]:
    return built.check([built.site(n, built.moments(n).scaler()) for n in built.sites])


def test_a_federation_that_can_train_has_no_complaint() -> None:
    assert check(federation()) == []


def test_a_window_longer_than_every_life_is_refused_by_name() -> None:
    built = Federation(TinySource({"a": {}}, window=60), Failure(4.0))
    with pytest.raises(DataError, match=r"a: data\.window=60 is longer than every machine's life"):
        check(built)


def test_no_failure_anywhere_is_refused() -> None:
    class Healthy(TinySource):
        def rows(self, site: str) -> Rows:
            rows = super().rows(site)
            return replace(rows, time_to_failure=np.full(len(rows), np.nan),
                           observed=np.full(len(rows), 99.0))  # fmt: skip

    with pytest.raises(DataError, match="no failure in the training data of any site"):
        check(Federation(Healthy({"a": {}, "b": {}}), Failure(4.0)))


def test_a_site_without_failures_is_a_warning_where_others_have_them() -> None:
    class Mixed(TinySource):
        def rows(self, site: str) -> Rows:
            rows = super().rows(site)
            if site != "b":
                return rows
            return replace(rows, time_to_failure=np.full(len(rows), np.nan),
                           observed=np.full(len(rows), 99.0))  # fmt: skip

    warnings = check(Federation(Mixed({"a": {"machines": 8}, "b": {"machines": 8}}), Failure(4.0)))
    assert warnings and all(w.startswith("b: ") for w in warnings)


def test_no_sites_at_all() -> None:
    with pytest.raises(ConfigError, match="no site to run"):
        Federation(TinySource({}), Failure(4.0))

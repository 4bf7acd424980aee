"""Features of windows: every formula on numbers one can check, and scaling that sees no test."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from fedpdm.data.features import (
    FARTHEST,
    RANGE,
    STATISTICS,
    WindowFeatures,
    fill_inside,
    range_features,
    statistics,
)
from fedpdm.data.rows import Rows, Split
from fedpdm.errors import ConfigError
from fedpdm.federation import Federation
from fedpdm.tasks import Failure
from fedpdm.testing.tiny import TinySource


def of(values: list[float]) -> dict[str, float]:
    found = statistics(np.array(values, dtype=float)[None, :, None])[0, 0]
    return dict(zip(STATISTICS, found.tolist(), strict=True))


def against(values: list[float], lower: float, upper: float) -> dict[str, float]:
    x = np.array(values, dtype=float)[None, :, None]
    found = range_features(x, np.array([lower]), np.array([upper]))[0, 0]
    return dict(zip(RANGE, found.tolist(), strict=True))


def test_there_are_28_and_11() -> None:
    assert len(set(STATISTICS)) == 28 and len(set(RANGE)) == 11


def test_statistics_of_five_readings() -> None:
    # mean 4, deviations -3 -2 0 -2 7: squares add up to 66, cubes to 300, fourth powers to 2514
    found = of([1, 2, 4, 2, 11])
    second = 66 / 5
    expected = {
        "mean": 4, "std": second**0.5, "min": 1, "max": 11, "median": 2, "range": 10,
        "q25": 2, "q75": 4, "iqr": 2, "skewness": 60 / second**1.5,
        "kurtosis": 502.8 / second**2 - 3, "cv": second**0.5 / 4,
        # line over 0..4: slope (-2*-3 + -1*-2 + 1*-2 + 2*7) / 10
        "trend_slope": 2, "trend_intercept": 0,
        # halves of two: (2 + 11) / 2 against (2 + 4) / 2
        "recent_vs_past_ratio": 6.5 / 3, "recent_vs_past_diff": 3.5, "recent_change_rate": 2,
        # steps 1 2 -2 9
        "diff_mean": 2.5, "diff_std": (90 / 4 - 6.25) ** 0.5, "diff_abs_mean": 3.5,
        **{f"rolling_std_{k}_{of}": second**0.5 for k in (7, 14, 30) for of in ("mean", "max")},
        # highest so far 1 2 4 4 11
        "max_drawdown": 2, "mean_drawdown": 0.4,
    }  # fmt: skip
    assert found == pytest.approx(expected, abs=1e-12)


def test_rolling_deviations_are_of_runs_of_seven() -> None:
    found = of([0, 0, 0, 0, 0, 0, 0, 7])  # two runs: constant, and one 7 among six 0
    assert found["rolling_std_7_max"] == pytest.approx(6**0.5)
    assert found["rolling_std_7_mean"] == pytest.approx(6**0.5 / 2)
    assert found["rolling_std_14_max"] == pytest.approx(found["std"])


def test_long_windows_have_the_lengths_of_the_source() -> None:
    x = np.random.default_rng(0).normal(2, 1, 90)
    found = of(x.tolist())
    recent, past = x[-30:].mean(), x[-60:-30].mean()
    assert found["recent_vs_past_ratio"] == pytest.approx(recent / past)
    assert found["recent_vs_past_diff"] == pytest.approx(recent - past)
    assert found["recent_change_rate"] == pytest.approx((x[-1] - x[-10]) / 10)
    slope, intercept = np.polyfit(np.arange(90), x, 1)
    assert (found["trend_slope"], found["trend_intercept"]) == pytest.approx((slope, intercept))
    assert found["skewness"] == pytest.approx(stats.skew(x))
    assert found["kurtosis"] == pytest.approx(stats.kurtosis(x))
    for share, name in ((0.25, "q25"), (0.5, "median"), (0.75, "q75")):
        assert found[name] == pytest.approx(np.quantile(x, share))
    for size in (7, 14, 30):
        runs = [x[i : i + size].std() for i in range(91 - size)]
        assert found[f"rolling_std_{size}_mean"] == pytest.approx(np.mean(runs))
        assert found[f"rolling_std_{size}_max"] == pytest.approx(np.max(runs))


def test_range_features_of_six_readings() -> None:
    found = against([0, 1, 3, 2, 5, 4], lower=1, upper=4)
    expected = {
        "mean_distance_to_upper": 1.5, "mean_distance_to_lower": 1.5,
        "min_distance_to_upper": -1, "min_distance_to_lower": -1,
        "mean_distance_to_center": 1.5, "relative_position": 0.5, "in_range_ratio": 4 / 6,
        "out_of_range_count": 2, "max_consecutive_in_range": 3, "above_upper_ratio": 1 / 6,
        "below_lower_ratio": 1 / 6,
    }  # fmt: skip
    assert found == pytest.approx(expected)
    assert against([9, 9], 0, 1)["max_consecutive_in_range"] == 0


@pytest.mark.parametrize("length", [1, 2, 3, 12])
def test_a_constant_has_no_movement_and_no_infinities(length: int) -> None:
    for value in (0.0, 0.1, 1e9):
        found = of([value] * length)
        for name in ("mean", "min", "max", "median", "q25", "q75", "trend_intercept"):
            assert found.pop(name) == pytest.approx(value)
        ratio = found.pop("recent_vs_past_ratio")
        assert ratio == pytest.approx(1 if value or length == 1 else 0)
        assert list(found.values()) == pytest.approx([0] * len(found), abs=1e-6)


@settings(max_examples=40)
@given(arrays(float, (2, 9, 2), elements=st.floats(-1e6, 1e6)))
def test_every_feature_is_a_number_and_within_its_bounds(x: np.ndarray) -> None:
    found = statistics(x)
    assert found.shape == (2, 2, 28) and np.isfinite(found).all()
    named = dict(zip(STATISTICS, np.moveaxis(found, 2, 0), strict=True))
    order = [named[k] for k in ("min", "q25", "median", "q75", "max")]
    assert all((low <= high + 1e-9).all() for low, high in pairwise(order))
    assert (named["max_drawdown"] <= named["range"] + 1e-9).all()


def test_the_names_stand_where_their_columns_do() -> None:
    provider = WindowFeatures("statistics", {"b": [0, 10]})
    x = np.random.default_rng(1).normal(size=(3, 8, 2))
    names, found = provider.names(("a", "b")), provider.compute(x, ("a", "b"))
    assert found.shape == (3, 28 + 39) and len(names) == 67
    column = dict(zip(names, found.T, strict=True))
    assert np.allclose(column["b: mean"], x[:, :, 1].mean(1))
    assert np.allclose(column["a: max"], x[:, :, 0].max(1))
    assert np.allclose(column["b: mean_distance_to_lower"], x[:, :, 1].mean(1))
    assert "a: in_range_ratio" not in column


def test_missing_readings_are_filled_from_their_own_window_only() -> None:
    nan = np.nan
    x = np.array([[nan, 1, nan, 3], [nan] * 4])[:, :, None]
    filled = fill_inside(x)
    assert filled[0, :, 0].tolist() == [1, 1, 1, 3] and np.isnan(filled[1]).all()
    found = WindowFeatures("statistics").compute(x, ("a",))
    assert found[0, 0] == 1.5 and np.isnan(found[1]).all()


class Gappy(TinySource):
    """Machines whose readings get lost, one sensor of the first machine for ever."""

    def rows(self, site: str) -> Rows:
        rows = super().rows(site)
        lost = np.random.default_rng(0).random(rows.values.shape) < 0.2
        lost[rows.machine == f"{site}-0", 0] = True
        rows.values[lost] = np.nan
        return rows


def federation(mode: str, source: type[TinySource] = Gappy, **options: object) -> Federation:
    provider = WindowFeatures(mode, **options)  # type: ignore[arg-type]
    return Federation(source({"a": {}, "b": {}}), Failure(4.0), features=provider)


def test_features_have_mean_0_and_deviation_1_over_the_training_windows_of_all_sites() -> None:
    built = federation("statistics")
    scaler = (built.moments("a") + built.moments("b")).scaler()
    sites = [built.site(name, scaler) for name in ("a", "b")]
    raw = np.concatenate([built._features(name)[Split.TRAIN] for name in ("a", "b")])
    varied = scaler.scale[0, 3:] > 0
    x = np.concatenate([site.train.x for site in sites])
    inside = varied & (np.abs(x).max(axis=0) < FARTHEST) & ~np.isnan(raw).any(axis=0)
    assert x.shape == (len(raw), 84) and inside.sum() > 30 and np.isfinite(x).all()
    assert np.allclose(x[:, inside].mean(0), 0, atol=1e-4)
    assert np.allclose(x[:, inside].std(0), 1, atol=1e-3)


def test_both_adds_constant_channels_and_leaves_the_readings_alone() -> None:
    plain, both, alone = (federation(mode) for mode in ("raw", "both", "statistics"))
    x = plain.site("a", plain.moments("a").scaler()).test.x
    joined = both.site("a", both.moments("a").scaler()).test.x
    rows = alone.site("a", alone.moments("a").scaler()).test.x
    assert joined.shape == (*x.shape[:2], 3 + 84)
    assert np.array_equal(joined[:, :, :3], x)
    assert np.array_equal(joined[:, :, 3:], np.repeat(rows[:, None], x.shape[1], axis=1))
    assert (plain.inputs, both.input_length, alone.input_length) == (("a", "b", "c"), 8, None)
    assert both.features.apart(joined, 3)[1].tolist() == rows.tolist()  # type: ignore[union-attr]


class Spoiled(Gappy):
    """The same sites, but for what is no training row."""

    def rows(self, site: str) -> Rows:
        rows = super().rows(site)
        rows.values[rows.split != Split.TRAIN] *= -50
        return rows


def test_no_row_outside_training_moves_the_scaler_or_a_training_input() -> None:
    clean, spoiled = federation("both"), federation("both", Spoiled)
    first, second = (built.moments("a").scaler() for built in (clean, spoiled))
    assert np.array_equal(first.mean, second.mean) and np.array_equal(first.scale, second.scale)
    trained = [built.site("a", first).train.x for built in (clean, spoiled)]
    assert np.array_equal(*trained)


def test_limits_go_with_the_federation_to_other_processes() -> None:
    kind, arguments = federation("both", limits={"a": [-1, 1]}).__reduce__()
    again = kind(*arguments)
    assert len(again.inputs) == 3 + 84 + 11


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"mode": "all"}, "features.mode=all is unknown; choose raw, statistics, both or history"),
        ({"mode": "both", "limits": {"a": [2, 1]}}, r"features.limits.a=\[2, 1\] must be two"),
        ({"mode": "both", "limits": {"a": 3}}, "features.limits.a=3 must be two numbers"),
        ({"mode": "both", "limits": {"z": [0, 1]}}, "z is no sensor of data=tiny; there are a, b"),
        ({"mode": "raw", "limits": {"a": [0, 1]}}, "of use only with features=statistics"),
    ],
)
def test_features_that_cannot_be(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        federation(**options)  # type: ignore[arg-type]


def test_data_without_time_or_with_conditions_has_no_window_features() -> None:
    rows = TinySource({"a": {}}, window=None)
    with pytest.raises(ConfigError, match="data=tiny has single rows: leave features=raw"):
        Federation(rows, Failure(4.0), features=WindowFeatures("both"))
    several = TinySource({"a": {}})
    several.conditions = 6
    with pytest.raises(ConfigError, match="switches between 6 operating conditions"):
        Federation(several, Failure(4.0), features=WindowFeatures("both"))

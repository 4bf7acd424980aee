"""Who gains and who loses, and the sentence that says so."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fedpdm.evaluation.wording import duration, listing, metric, number, percent, size
from fedpdm.report.gain_table import gain_table
from fedpdm.report.summary_text import headline

Json = dict[str, Any]


def summary(name: str, federated: Json, alone: Json, sites: list[str] | None = None) -> Json:
    def part(values: Json) -> Json:
        return {s: {name: v, "n": 100.0, "positives": 0.0 if v is None else 5.0} for s, v in values.items()}  # fmt: skip # noqa: E501

    return {
        "sites": sites or list(federated),
        "validation": {"metric": name},
        "test": {
            "global": {name: 0.5},
            "per_site": part(federated),
            "baselines": {"alone": {"global": {name: 0.4}, "per_site": part(alone)}},
        },
    }


def test_gain_is_positive_where_the_shared_model_is_better_whatever_the_metric() -> None:
    high = gain_table(summary("average_precision", {"a": 0.6}, {"a": 0.5}))
    low = gain_table(summary("rmse", {"a": 13.0}, {"a": 16.0}))
    assert high.rows[0].gain == pytest.approx(0.1)
    assert low.rows[0].gain == pytest.approx(3.0)
    assert high.rows[0].verdict == low.rows[0].verdict == "better"
    worse = gain_table(summary("rmse", {"a": 16.0}, {"a": 13.0})).rows[0]
    assert (worse.gain, worse.verdict) == (-3.0, "worse")


def test_a_change_smaller_than_the_digits_shown_is_no_change() -> None:
    row = gain_table(summary("average_precision", {"a": 0.5004}, {"a": 0.5001})).rows[0]
    assert row.verdict == "same"


def test_the_mean_is_over_sites_that_have_every_predictor() -> None:
    table = gain_table(
        summary(
            "average_precision",
            {"a": 0.6, "b": 0.9, "c": None, "d": 0.4},
            {"a": 0.5, "b": None, "c": None, "d": 0.5},
        )
    )
    assert table.mean.name == "Mean of 2 sites"
    assert table.mean.values["federated"] == pytest.approx(0.5)
    assert table.mean.values["alone"] == pytest.approx(0.5)
    assert [row.verdict for row in table.rows] == ["better", "unknown", "unknown", "worse"]
    assert table.rows[2].note is not None and "no failure" in table.rows[2].note
    assert table.rows[1].note is not None and "Alone" in table.rows[1].note


def test_the_mean_has_the_interval_of_the_same_sites_and_of_no_others() -> None:
    run = summary("average_precision", {"a": 0.6, "b": 0.9}, {"a": 0.5, "b": 0.6})
    ends = {"low": 0.1, "high": 0.3, "reason": None, "sure": True}
    own = {name: ends | {"value": 0.1} for name in "ab"}
    drawn = {"per_site": own, "mean_site": ends | {"value": 0.2003}}  # of another rounding
    run["test"]["bootstrap"] = {"gain": {"alone": drawn}}
    assert gain_table(run).mean.interval == (0.1, 0.3) and gain_table(run).mean.sure
    own["c"] = ends | {"value": 0.1}
    mean = gain_table(run).mean
    assert mean.interval is None and mean.sure is None
    assert mean.unsure == "its interval is of other sites"


def test_null_baselines_of_a_deployment_are_shown_as_missing() -> None:
    run = summary("average_precision", {"a": 0.6}, {"a": 0.5})
    run["test"]["baselines"]["pooled"] = None
    row = gain_table(run).rows[0]
    assert row.values["pooled"] is None
    assert row.values["federated"] == 0.6


def test_rules_are_a_column_only_where_there_are_rules() -> None:
    run = summary("average_precision", {"a": 0.6}, {"a": 0.5})
    assert "rules" not in gain_table(run).columns
    run["test"]["baselines"]["rules"] = {"per_site": {"a": {"average_precision": 0.85}}}
    assert gain_table(run).rows[0].values["rules"] == 0.85


def test_sites_that_were_not_evaluated_are_named_not_listed() -> None:
    run = summary("average_precision", {"a": 0.6}, {"a": 0.5}, sites=["a", "b", "c"])
    table = gain_table(run)
    assert [row.name for row in table.rows] == ["a"]
    assert table.left_out == ("b", "c")


AP = "average_precision"


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (
            summary(AP, {"a": 0.6, "b": 0.5}, {"a": 0.5, "b": 0.45}),
            "The shared model helps both sites (a by 0.100 and b by 0.050). "
            "Mean average precision rises from 0.475 to 0.550.",
        ),
        (
            summary("rmse", {"a": 13, "b": 15, "c": 12}, {"a": 16, "b": 14, "c": 16}),
            "The shared model helps 2 of 3 sites and hurts 1 (b by 1.00). "
            "Mean RMSE falls from 15.33 to 13.33.",
        ),
        (
            summary(AP, {"a": 0.4, "b": 0.5}, {"a": 0.5, "b": 0.5}),
            "The shared model helps no site: it hurts 1 (a by 0.100) and changes nothing for "
            "1 (b). Mean average precision falls from 0.500 to 0.450.",
        ),
        (
            summary(AP, {"a": 0.5, "b": 0.5}, {"a": 0.5, "b": 0.5}),
            "The shared model changes nothing for both sites. "
            "Mean average precision stays at 0.500.",
        ),
        (
            summary(AP, {"a": 0.6, "b": None}, {"a": 0.5, "b": None}),
            "The shared model helps the one site that can be judged (a by 0.100). "
            "Mean average precision rises from 0.500 to 0.600. 1 could not be judged.",
        ),
        (
            summary(AP, {"a": 0.6, "b": 0.6}, {}),
            "The shared model reaches average precision 0.500; "
            "no site was trained alone to compare it with.",
        ),
    ],
)
def test_headline_says_who_gains_who_loses_and_how_much(run: Json, said: str) -> None:
    assert headline(gain_table(run)) == said


def test_one_site_is_not_called_shared() -> None:
    said = headline(gain_table(summary(AP, {"houston": 0.6}, {"houston": 0.5})))
    assert said.startswith("houston is the only site")
    assert "shared model" not in said


def test_where_nothing_can_be_computed_the_headline_says_so() -> None:
    run = summary(AP, {"a": None, "b": None}, {"a": None, "b": None})
    run["test"]["global"] = {AP: None}
    assert "cannot be said" in headline(gain_table(run))


@pytest.mark.parametrize(
    ("value", "digits", "sign", "text"),
    [
        (0.1234, 3, False, "0.123"),
        (-0.05, 2, True, "\u22120.05"),
        (0.05, 2, True, "+0.05"),
        (-0.0001, 2, True, "±0.00"),
        (12345.6, 0, False, "12\u202f346"),
        (None, 3, True, "\u2013"),
        (math.nan, 3, False, "\u2013"),
        (-math.inf, 3, False, "\u2212∞"),
        (True, 3, False, "\u2013"),
    ],
)
def test_numbers_are_written_for_people(value: Any, digits: int, sign: bool, text: str) -> None:
    assert number(value, digits, sign) == text


def test_shares_sizes_times_and_lists_are_written_for_people() -> None:
    assert percent(0.0309) == "3.1\u00a0%"
    assert [size(n) for n in (12, 4_500, 2_340_000, 1.5e9)] == ["12 B", "4.5 kB", "2.3 MB", "1.50 GB"]  # fmt: skip # noqa: E501
    assert [duration(s) for s in (0.44, 12.2, 200, 7500)] == ["0.4 s", "12 s", "3 min 20 s", "2 h 05 min"]  # fmt: skip # noqa: E501
    assert listing(["a"]) == "a"
    assert listing(["a", "b"]) == "a and b"
    assert listing(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_metrics_nobody_described_are_still_shown() -> None:
    assert metric("average_precision_30").label == "average precision, horizon 30"
    assert metric("average_precision_30").higher_is_better
    assert not metric("quantile_loss").higher_is_better
    assert metric("quantile_loss").label == "quantile loss"

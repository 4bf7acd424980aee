"""Numbers and dates as German and English readers expect them."""

from __future__ import annotations

from datetime import datetime

import pytest

from fedpdm.errors import ConfigError
from fedpdm.evaluation.locales import checked, dated, marked, written, written_in
from fedpdm.evaluation.wording import duration, number, percent, size


def test_german_numbers_have_a_comma_and_dates_begin_with_the_day() -> None:
    when = datetime(2025, 10, 19, 9, 5)
    assert (number(-1234.5, 2), dated(when)) == ("\u22121\u202f234.50", "2025-10-19 09:05")
    with written_in("de"):
        assert number(-1234.5, 2) == "\u22121\u202f234,50"
        assert (percent(0.123), size(1.5e6), duration(2.5)) == ("12,3\u00a0%", "1,5 MB", "2,5 s")
        assert dated(when) == "19.10.2025 09:05"
        assert marked("epsilon 2.5 at delta 1e-05.") == "epsilon 2,5 at delta 1e-05."
    assert number(0.5) == "0.500"


@pytest.mark.parametrize(
    ("time", "german"),
    [
        ("2025-10-19T09:05:00", "19.10.2025 09:05"),
        ("2025-10-19", "19.10.2025 00:00"),
        ("19.10.2025 09:05", "19.10.2025 09:05"),
        ("10/19/2025 9:05 AM", "10/19/2025 9:05 AM"),
        ("20251019", "20251019"),
        (-3.5, "-3.5"),
        (17, "17"),
    ],
)
def test_times_of_a_file_are_rewritten_only_where_they_can_be_read_in_one_way(
    time: object, german: str
) -> None:
    with written_in("de"):
        assert written(time) == german


def test_a_locale_that_does_not_exist_is_refused_with_those_that_do() -> None:
    assert checked(None, "report.locale") == "en"
    for wrong in ("fr", [], {"a": 1}, False):
        with pytest.raises(ConfigError, match=r"report\.locale=.*en or de"):
            checked(wrong, "report.locale")

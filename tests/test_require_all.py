"""In CI nothing may be skipped for want of data or of a browser."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CASES = """
import pytest

def test_data(data_folder): ...
def test_gpu(): pytest.skip("needs a GPU")
@pytest.mark.xfail(strict=True)
def test_known(): assert False
def test_sound(): ...
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    conftest = Path(__file__).with_name("conftest.py")
    pytester.makeconftest(conftest.read_text(encoding="utf-8"))
    pytester.makepyfile(CASES)
    monkeypatch.setenv("FEDPDM_DATA", str(pytester.path / "nothing_here"))
    return pytester


def test_a_skip_for_want_of_data_fails_in_ci(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDPDM_REQUIRE_ALL", "1")
    result = suite.runpytest("-p", "no:cacheprovider")
    # A skip while the fixture is made is an error, as pytest calls it.
    result.assert_outcomes(errors=1, skipped=1, xfailed=1, passed=1)
    result.stdout.fnmatch_lines(["*nothing may be skipped here*real data is not in*"])


def test_elsewhere_the_skip_stays_a_skip(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEDPDM_REQUIRE_ALL", raising=False)
    suite.runpytest("-p", "no:cacheprovider").assert_outcomes(skipped=2, xfailed=1, passed=1)


def test_a_file_that_skips_itself_fails_in_ci(
    pytester: pytest.Pytester, suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDPDM_REQUIRE_ALL", "1")
    path = pytester.makepyfile(test_whole="import pytest\npytest.importorskip('no_such_module')")
    result = suite.runpytest("-p", "no:cacheprovider", path)
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*nothing may be skipped here*no_such_module*"])

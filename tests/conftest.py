"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest
import torch

# Two threads per process on two cores are slower than one, and CI runs two workers.
torch.set_num_threads(1)
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

HARDWARE = re.compile(r"\b(CUDA|GPU|processor)\b", re.IGNORECASE)
"""Reasons to skip a test that no installation can mend."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI (FEDPDM_REQUIRE_ALL=1) fail a test that skips for want of data or of a browser."""
    return no_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole file that skips while it is collected."""
    return no_skip((yield))


def no_skip(report: Report) -> Report:
    """Turn a skip into a failure where nothing may be skipped."""
    if os.environ.get("FEDPDM_REQUIRE_ALL") != "1" or not report.skipped:
        return report
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if hasattr(report, "wasxfail") or HARDWARE.search(reason):
        return report
    report.outcome = "failed"
    report.longrepr = f"nothing may be skipped here (FEDPDM_REQUIRE_ALL=1), but: {reason}"
    return report


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder with AI4I 2020 and C-MAPSS; the test is skipped by name where it is absent."""
    folder = Path(os.environ.get("FEDPDM_DATA", Path.home() / ".cache" / "fedpdm"))
    if not (folder / "cmapss" / "train_FD001.txt").exists():
        pytest.skip(f"real data is not in {folder}: python -m fedpdm.data fetch cmapss")
    return folder

"""Fixtures shared by all tests."""

from __future__ import annotations

import copy
import os
import re
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hypothesis import HealthCheck, settings

from fedpdm.config.schema import conf_dir

# Two threads per process on two cores are slower than one, and CI runs two workers.
torch.set_num_threads(1)
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# Where memory can hold the tests' folders, no test waits for a disk: none cuts the power.
MEMORY = Path("/dev/shm")
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 8 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# How fast a machine is decides no test: a busy one draws slowly, and that is no error.
settings.register_profile("fedpdm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fedpdm")

READ: dict[tuple[str, str, str], ConfigResult] = {}
"""What Hydra has read: nobody changes ``conf/`` while tests run, and most tests compose."""
Plugins.instance()  # registers what reads files
FILES: Any = SourcesRegistry.instance().types["file"]
reads = FILES.load_config


def read_once(source: Any, config_path: str) -> ConfigResult:
    """Return a file of ``conf/`` as it was read first, and any other file as it is."""
    if source.path != str(conf_dir()):
        return reads(source, config_path)  # type: ignore[no-any-return]
    key = (source.provider, source.path, config_path)
    if key not in READ:
        READ[key] = reads(source, config_path)
    return copy.deepcopy(READ[key])


FILES.load_config = read_once
# Hydra composes a command twice, first to look for ``hydra.mode``, which nothing here sets.
Hydra.get_mode = lambda self, config_name, overrides: None

TOGETHER = {
    "tests/deployment/test_superlink.py": "deployment",
    "tests/engines/ray/test_ray_grid.py": "ray",
    "tests/deployment/test_simulation_runtime.py": "deployment",
    "tests/runs/test_resume.py": "kills",
    "tests/test_notebooks.py": "notebooks",
    "tests/test_own_code.py": "own code",
    "tests/test_simulate.py": "simulate",
    "tests/promote/test_gates.py": "promote",
    "tests/promote/test_promote.py": "promote",
    "tests/test_bad_input.py": "bad input",
}
"""Files that begin first, longest first; one worker runs all that have the same word."""


def in_file(nodeid: str) -> str:
    """Return the file of a test, as it is called in ``TOGETHER``."""
    return nodeid.partition("::")[0]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let workers begin with what takes longest, so that none is left with it at the end."""
    if hasattr(config, "workerinput"):
        order = {file: place for place, file in enumerate(TOGETHER)}
        items.sort(key=lambda item: order.get(in_file(item.nodeid), len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep together a file, whose tests share fixtures, and what ``TOGETHER`` names.

    Not by marks: pytest 9.2 ignores xdist's (github.com/pytest-dev/pytest-xdist/issues/1386).
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling

    class Together(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return TOGETHER.get(in_file(nodeid), in_file(nodeid))

    config.option.loadscopereorder = False  # the number of tests says nothing of their time
    return Together(config, log)


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


@pytest.fixture(autouse=True)
def own_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test's ``imports=`` reach the workers of a later one."""
    from fedpdm.config import imports

    monkeypatch.setattr(imports, "_imported", dict(imports._imported))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder with AI4I 2020 and C-MAPSS; the test is skipped by name where it is absent."""
    folder = Path(os.environ.get("FEDPDM_DATA", Path.home() / ".cache" / "fedpdm"))
    if not (folder / "cmapss" / "train_FD001.txt").exists():
        pytest.skip(f"real data is not in {folder}: python -m fedpdm.data fetch cmapss")
    return folder

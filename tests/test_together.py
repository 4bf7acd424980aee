"""Tests of one file stay on one worker of pytest-xdist, and the long files are there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.conftest import TOGETHER, pytest_xdist_make_scheduler

ROOT = Path(__file__).parent.parent


def scheduler(dist: str) -> Any:
    asked = {"dist": dist, "tx": ["2*popen"]}.__getitem__
    config = SimpleNamespace(getvalue=asked, option=SimpleNamespace(loadscopereorder=True))
    return pytest_xdist_make_scheduler(config, None)  # type: ignore[arg-type]


def test_tests_that_share_processes_have_one_worker() -> None:
    of = scheduler("loadgroup")._split_scope
    ray = "tests/engines/ray/test_ray_grid.py::test_it"
    assert of(ray) == of(f"{ray}[a::b@c]") == "ray"
    assert of("tests/test_seeding.py::test_a") == "tests/test_seeding.py"
    assert of("tests/promote/test_gates.py::a") == of("tests/promote/test_promote.py::b")
    assert scheduler("load") is None


def test_every_file_is_there() -> None:
    assert [name for name in TOGETHER if not (ROOT / name).is_file()] == []

"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# Two threads per process on two cores are slower than one, and CI runs two workers.
torch.set_num_threads(1)
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder with AI4I 2020 and C-MAPSS; the test is skipped by name where it is absent."""
    folder = Path(os.environ.get("FEDPDM_DATA", Path.home() / ".cache" / "fedpdm"))
    if not (folder / "cmapss" / "train_FD001.txt").exists():
        pytest.skip(f"real data is not in {folder}: python -m fedpdm.data fetch cmapss")
    return folder

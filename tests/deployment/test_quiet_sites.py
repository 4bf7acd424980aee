"""Sites where nothing ever failed: no data for a task that learns labels, enough for another."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fedpdm.deployment.server import DeployedRun
from fedpdm.errors import DataError
from fedpdm.runs.experiment import build
from tests.deployment.test_client import FLEET, composed


def look(tmp_path: Path, *words: str) -> Any:
    cfg = composed([*FLEET, *words])
    shape = {"site": "pune", "prevalence": {"train": 0.0}, "windows": {"train": 9}}
    said = SimpleNamespace(shape=shape, notes=0)
    registry = SimpleNamespace(described={"pune": said}, sites=("detroit", "pune"))
    run = DeployedRun(build(cfg), cfg, tmp_path, cast(Any, None), cast(Any, registry))
    return run._look(lambda text: None)


def test_only_a_task_that_learns_labels_refuses_them(tmp_path: Path) -> None:
    assert len(look(tmp_path, "task=anomaly", "model=masked_autoencoder")[1]) == 1
    with pytest.raises(DataError, match="no failure"):
        look(tmp_path)

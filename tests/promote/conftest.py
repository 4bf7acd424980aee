"""One small run, tested again once, for all tests of promotion."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpdm.promote.evidence import Evidence, collect
from fedpdm.promote.export import Exported, export_model
from fedpdm.simulate import main as simulate
from tests.promote.toy_sites import SETTINGS, write_sites


@pytest.fixture(scope="session")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sites(tmp_path_factory.mktemp("promote") / "sites")


@pytest.fixture(scope="session")
def run(sites: Path) -> Path:
    """A finished run that passes every gate that was asked."""
    folder = sites.parent / "run"
    assert simulate([
        "--config-dir", str(sites), f"data.path={sites}", "site=north,south,west", *SETTINGS,
        f"hydra.run.dir={folder}",
    ]) == 0  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def evidence(run: Path) -> Evidence:
    return collect(run)


@pytest.fixture(scope="session")
def exported(evidence: Evidence) -> Exported:
    module = evidence.predictor.model.module
    return export_model(module, evidence.task, evidence.windows(1)[0])

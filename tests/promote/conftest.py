"""One small run, tested again once, for all tests of promotion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedpdm.promote import promotion
from fedpdm.promote.__main__ import main
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


@pytest.fixture
def quick(
    evidence: Evidence, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """The command on evidence that is there already; the store is ``tmp_path / "store"``."""

    def command(*words: str, **changes: Any) -> int:
        changed = replace(evidence, **changes)
        monkeypatch.setattr(promotion, "collect", lambda *_, **__: changed)
        monkeypatch.setattr(promotion, "export_model", lambda *_: exported)
        return main([str(evidence.run), "--out", str(tmp_path / "store"), *words])

    return command

"""Compression both ways over the deployment path: the bits of one process, stopped in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpdm.config.compose import compose
from fedpdm.history import History
from fedpdm.simulate import simulate
from fedpdm.testing.federated import same
from tests.deployment import test_hostile_sites as sites

WORDS = (
    f"{sites.TINY} strategy=scaffold transforms=[powersgd,topk] transforms.powersgd.direction=up "
    "transforms.topk.direction=down transforms.topk.share=0.1 faults.nan=pune@2"
)


def test_a_resumed_run_with_a_refused_update_has_the_bits_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sites.deployed, "POLL_SECONDS", 0.05)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    sites.go(**{"overrides": WORDS, "run-folder": f"{tmp_path}/deployed"})
    sites.go(resume=f"{tmp_path}/deployed", overrides="rounds=3")  # fresh supernodes
    words = [*WORDS.split(), "rounds=3", "engine=serial", "baselines.max_plants=0"]
    simulate(compose(words), tmp_path / "one")
    with History.open(tmp_path / "deployed") as run, History.open(tmp_path / "one") as serial:
        records, expected = run.rounds(), serial.rounds()
        assert same(run.weights(3), serial.weights(3))
        assert [r.bytes_down for r in records] == [r.bytes_down for r in expected]
    odd = [(e["kind"], e["site"]) for record in records for e in record.events]
    assert odd == [("refused", "pune")]
    assert "examples" in records[3].sites["pune"]

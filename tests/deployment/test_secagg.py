"""Secure aggregation over the deployment path: the bits of one process, and no secret in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict

from fedpdm.config.compose import compose
from fedpdm.deployment.server import serve
from fedpdm.history import History
from fedpdm.simulate import simulate
from fedpdm.testing.federated import same
from fedpdm.transforms.masking import MASKED
from tests.deployment import test_hostile_sites as sites

TINY = sites.TINY.replace("strategy=fedadam", "server=secagg")


@pytest.mark.parametrize(
    "strategy", ["strategy=fedavg", "strategy=scaffold travels=body server.validation=withheld"]
)
def test_a_deployed_run_has_the_bits_of_one_process(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second remembers something at the sites, in files that secrets must not get into."""
    monkeypatch.setattr(sites.deployed, "POLL_SECONDS", 0.05)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    words = f"{TINY} {strategy} faults.nan=pune@1"
    sites.go(**{"overrides": words, "run-folder": f"{tmp_path}/deployed"})
    simulate(compose([*words.split(), "engine=serial", "baselines.max_plants=0"]), tmp_path / "one")
    with History.open(tmp_path / "deployed") as run, History.open(tmp_path / "one") as serial:
        assert same(run.weights(2), serial.weights(2)) and not same(run.weights(1), run.weights(0))
        assert [r.bytes_up for r in run.rounds()] == [r.bytes_up for r in serial.rounds()]
        assert "examples" not in run.rounds()[1].sites.get("pune", {})
        (said,) = [e for e in run.events() if "server=secagg" in e["message"]]
        assert said["kind"] == "warning"
        reported = any("validation" in s for r in run.rounds() for s in r.sites.values())
        assert reported == ("withheld" not in strategy) == ("validation" in said["message"])
    kept = list((tmp_path / "flower").rglob("*.bin"))
    assert bool(kept) == ("scaffold" in strategy)
    assert all(b"round.secagg" not in path.read_bytes() for path in kept)


def test_a_site_that_stays_silent_after_it_shared_its_keys_is_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sites.deployed, "POLL_SECONDS", 0.05)

    def silent(message: Message, reply: Message) -> Message | None:
        return None if not reply.has_error() and MASKED in reply.content else reply

    asked = {"overrides": f"{TINY} rounds=1", "run-folder": str(tmp_path / "run")}
    serve(sites.Nodes(silent), Context(1, 0, {}, RecordDict(), asked))  # type: ignore[arg-type]
    with History.open(tmp_path / "run") as history:
        record = history.rounds()[1]
        assert {s for s, v in record.sites.items() if "examples" in v} == {"detroit", "houston"}
        assert [(e["kind"], e["site"]) for e in record.events] == [("timeout", "pune")]
        assert not same(history.weights(1), history.weights(0))

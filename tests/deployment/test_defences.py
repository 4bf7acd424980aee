"""Defences under a SuperLink: they know sites by name, and refuse attacks as any deployed run."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict

from fedpdm.config.compose import compose
from fedpdm.deployment import grid as deployed
from fedpdm.deployment.server import serve
from fedpdm.history import History
from fedpdm.simulate import simulate
from fedpdm.testing.federated import same
from fedpdm.wire.records import ARRAYS, arrays_in, to_record
from tests.deployment.test_hostile_sites import TINY, Nodes

ROOTED = TINY.replace("strategy=fedadam", "strategy=fltrust strategy.root=houston")


def turned(message: Message, reply: Message) -> Message:
    """Send the opposite of what was learned."""
    if message.metadata.message_type == "train":
        received, trained = arrays_in(message.content, ARRAYS), arrays_in(reply.content, ARRAYS)
        reply.content[ARRAYS] = to_record({n: 2 * a - trained[n] for n, a in received.items()})
    return reply


def test_a_trusted_site_is_found_by_its_name_and_an_attacker_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployed, "POLL_SECONDS", 0.05)
    weights = {}
    for name, tamper in (("honest", lambda m, r: r), ("hostile", turned)):
        asked = {"overrides": ROOTED, "run-folder": str(tmp_path / name)}
        serve(Nodes(tamper), Context(1, 0, {}, RecordDict(), asked))  # type: ignore[arg-type]
        with History.open(tmp_path / name) as history:
            weights[name] = history.weights(2)
            said = [event["message"] for event in history.events()]
            assert any("no defence can be relied on" in message for message in said)
            trusted = [r.metrics["trusted_sites"] for r in history.rounds()[1:]]
            assert trusted[0] == (3 if name == "honest" else 2)
    simulate(compose([*ROOTED.split(), "baselines.max_plants=0"]), tmp_path / "simulated")
    with History.open(tmp_path / "simulated") as history:
        assert same(history.weights(2), weights["honest"])

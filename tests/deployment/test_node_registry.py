"""The server learns from the nodes who they are, and holds to who was there first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo

from fedpdm.deployment.envelope import Description, Envelope
from fedpdm.deployment.grid import DeployedGrid
from fedpdm.deployment.node_registry import NodeRegistry
from fedpdm.engines.local_grid import set_message_id
from fedpdm.errors import ConfigError, SiteError
from fedpdm.wire.flower import become_server


def said(site: str, **other: Any) -> Description:
    values = {"data": "files", "features": ("heat", "load"), "window": 8, "conditions": 1,
              "time_unit": "days", "version": "1", "shape": {"sha256": site}}  # fmt: skip
    return Description(**{"site": site, **values, **other})


class FakeNodes:
    """Stands for Flower's Grid: nodes that say who they are, or stay silent."""

    def __init__(self, nodes: dict[int, Description | str | None]) -> None:
        become_server()
        self.nodes = nodes
        self.names: dict[int, str] = {}
        """Under which their keys were registered."""
        self.replies: dict[str, Message] = {}
        self.envelopes: list[Envelope] = []
        self.sent = 0

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=node, name=self.names.get(node, "")) for node in self.nodes]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            self.sent += 1
            set_message_id(message, f"m{self.sent}")
            self.envelopes.append(Envelope.of(message.content))
            answer = self.nodes.get(message.metadata.dst_node_id)
            if isinstance(answer, Description):
                self.replies[f"m{self.sent}"] = Message(answer.content(), reply_to=message)
            elif isinstance(answer, str):
                self.replies[f"m{self.sent}"] = Message(Error(2, answer), reply_to=message)
            ids.append(f"m{self.sent}")
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self.replies.pop(i) for i in message_ids if i in self.replies]


def receive(
    nodes: dict[int, Description | str | None], sites: tuple[str, ...]
) -> tuple[NodeRegistry, FakeNodes, list[dict[str, Any]]]:
    fake, events = FakeNodes(nodes), []
    registry = NodeRegistry(DeployedGrid(fake, "seed: 1"), sites, 0.0, 0.0)  # type: ignore[arg-type]
    registry.listen(events.append)
    registry._look()  # asks; the answers are heard at the next look
    return registry, fake, events


def test_sites_come_in_the_order_of_the_config_whatever_their_nodes_are() -> None:
    registry, _, events = receive({3: said("lyon"), 9: said("gdansk")}, ("gdansk", "lyon"))
    assert list(registry.connected().items()) == [("gdansk", 9), ("lyon", 3)]
    assert not events


def test_of_two_nodes_with_one_name_the_first_stays_until_it_is_silent() -> None:
    registry, fake, events = receive({3: said("lyon")}, ("lyon",))
    assert registry.connected() == {"lyon": 3}
    fake.nodes[1] = said("lyon")
    registry._look()
    assert registry.connected() == {"lyon": 3}
    assert [e["kind"] for e in events] == ["plant-refused"] and "also says" in events[0]["message"]
    fake.nodes[3] = None  # dead, but Flower has not noticed
    registry.grid.send_and_receive([Message(RecordDict(), 3, "train")], timeout=0.01)
    assert registry.connected() == {"lyon": 1}


@pytest.mark.parametrize("name", ["porto", "paris", ""])
def test_a_site_that_is_silent_is_replaced_by_no_other_key(name: str) -> None:
    registry, fake, events = receive({3: None}, ("lyon", "porto"))
    fake.names[3] = "lyon"
    registry._look()  # sees that lyon has a key
    del fake.nodes[3]
    fake.nodes[5], fake.names[5] = said("lyon"), name
    registry._look()
    assert registry._look() == {}
    assert [(e["kind"], e["site"]) for e in events] == [("plant-refused", "lyon")]
    assert "--name lyon" in events[0]["message"]
    fake.nodes[9], fake.names[9] = said("lyon"), "lyon"
    registry._look()
    assert registry.connected() == {"lyon": 9}


def test_who_came_without_a_name_goes_when_the_first_name_comes() -> None:
    registry, fake, events = receive({5: said("lyon")}, ("lyon", "porto"))
    assert registry.connected() == {"lyon": 5}  # so far no key has a name
    fake.nodes[7], fake.names[7] = said("porto"), "porto"
    registry._look()
    assert registry._look() == {"porto": 7}
    assert ("plant-refused", "lyon") in [(e["kind"], e["site"]) for e in events]


def test_a_site_that_restarts_as_another_node_is_found_again() -> None:
    registry, fake, events = receive({3: said("lyon"), 4: said("porto")}, ("lyon", "porto"))
    assert registry.connected() == {"lyon": 3, "porto": 4}
    del fake.nodes[3]
    assert registry.connected() == {"porto": 4}
    fake.nodes[8] = said("lyon")
    registry._look()
    assert registry.connected() == {"lyon": 8, "porto": 4}
    assert [(e["kind"], e["site"]) for e in events] == [
        ("disconnected", "lyon"), ("connected", "lyon"),
    ]  # fmt: skip


def test_a_silent_site_rests_for_one_turn_each_time() -> None:
    registry, fake, _ = receive({3: said("lyon"), 4: said("porto")}, ("lyon", "porto"))
    registry.connected()
    fake.nodes[3] = None
    for _ in range(2):
        registry.grid.send_and_receive([Message(RecordDict(), 3, "train")], timeout=0.01)
        assert list(registry.connected()) == ["porto"]
        assert list(registry.connected()) == ["lyon", "porto"]
    assert list(registry.connected()) == ["lyon", "porto"]


@pytest.mark.parametrize(
    ("stranger", "words"),
    [(said("paris"), "the run has lyon"), ("lyon: lyon.csv is missing", "lyon.csv is missing")],
)
def test_who_is_missing_and_why_is_said(stranger: Description | str, words: str) -> None:
    registry, _, _ = receive({3: said("lyon"), 5: stranger}, ("lyon", "porto"))
    with pytest.raises(SiteError, match=r"missing: porto\.") as raised:
        registry.wait(2, 0.0)
    assert words in str(raised.value)
    registry.wait(1, 0.0)  # deployment.min_plants=1


def test_a_run_that_every_site_refuses_ends_at_once() -> None:
    registry, _, _ = receive({3: "data.window is wrong", 4: "data.window is wrong"}, ("a", "b"))
    with pytest.raises(SiteError, match=r"every site was refused: node 3: data\.window is wrong"):
        registry.wait(2, 600.0)


def test_sites_that_disagree_are_named() -> None:
    other = said("porto", features=("load", "heat"))
    fake = FakeNodes({3: said("lyon"), 4: other})
    registry = NodeRegistry(DeployedGrid(fake, ""), ("lyon", "porto"))  # type: ignore[arg-type]
    registry._look()
    registry.wait(2, 0.0)
    with pytest.raises(ConfigError, match="porto and lyon disagree on the features: porto has lo"):
        registry.agreed()


def test_sites_that_state_different_units_are_refused() -> None:
    """No site reads another's yaml here, so nothing was converted."""
    degrees = said("lyon", units={"heat": "degC"})
    assert degrees.differs(said("porto")) is None
    assert degrees.differs(said("porto", units={"heat": "degC", "load": "kW"})) is None
    other = Description.of(said("porto", units={"heat": "degF"}).content())
    assert "unit of heat: lyon has degC, porto has degF" in str(degrees.differs(other))


def test_sites_whose_codes_have_other_values_are_refused() -> None:
    here = Description.of(said("lyon", levels={"load": 3}).content())
    assert here.levels == {"load": 3} and here.differs(said("porto", levels={"load": 3})) is None
    assert "values of codes" in str(here.differs(said("porto", levels={"load": 4})))


def test_a_late_site_that_disagrees_is_refused_and_the_run_goes_on() -> None:
    registry, fake, events = receive({3: said("lyon")}, ("lyon", "porto"))
    registry.connected()
    fake.nodes[4] = said("porto", window=9)
    registry._look()
    assert list(registry.connected()) == ["lyon"]
    assert "disagree on the window" in events[-1]["message"]


def test_every_message_says_what_the_run_is_and_whom_it_is_for() -> None:
    registry, fake, _ = receive({3: said("lyon")}, ("lyon",))
    registry.connected()
    registry.grid.send_and_receive([Message(RecordDict(), 3, "train")], timeout=0.01)
    assert fake.envelopes[-1] == Envelope("seed: 1", "lyon")

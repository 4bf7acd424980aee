"""Headquarters learns from the nodes who they are, and holds to who was there first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from flwr.app import Context, Error, Message, RecordDict
from omegaconf import OmegaConf

from fedpdm.deployment.grid import DeployedGrid
from fedpdm.deployment.headquarters import composed, plants_of
from fedpdm.deployment.letters import (
    DESCRIBE_QUERY,
    LETTER,
    TEST_QUERY,
    Description,
    Letter,
    result_in,
)
from fedpdm.deployment.plant import DeployedPlant
from fedpdm.deployment.reception import Reception
from fedpdm.engines.flower import become_server
from fedpdm.engines.local import set_message_id
from fedpdm.errors import ConfigError, SiteError
from fedpdm.messages import ARRAYS, to_record


def said(site: str, **other: Any) -> Description:
    values = {"data": "files", "features": ("heat", "load"), "window": 8, "conditions": 1,
              "time_unit": "days", "version": "1", "shape": {"sha256": site}}  # fmt: skip
    return Description(**{"site": site, **values, **other})


class FakeNodes:
    """Stands for Flower's Grid: nodes that say who they are, or stay silent."""

    def __init__(self, nodes: dict[int, Description | str | None]) -> None:
        become_server()
        self.nodes = nodes
        self.replies: dict[str, Message] = {}
        self.letters: list[Letter] = []
        self.sent = 0

    def get_node_ids(self) -> Iterable[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            self.sent += 1
            set_message_id(message, f"m{self.sent}")
            self.letters.append(Letter.of(message.content))
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
) -> tuple[Reception, FakeNodes, list[dict[str, Any]]]:
    fake, events = FakeNodes(nodes), []
    reception = Reception(DeployedGrid(fake, "seed: 1"), sites, 0.0, 0.0)  # type: ignore[arg-type]
    reception.listen(events.append)
    reception._look()  # asks; the answers are heard at the next look
    return reception, fake, events


def test_plants_come_in_the_order_of_the_config_whatever_their_nodes_are() -> None:
    reception, _, events = receive({3: said("lyon"), 9: said("gdansk")}, ("gdansk", "lyon"))
    assert list(reception.connected().items()) == [("gdansk", 9), ("lyon", 3)]
    assert not events


def test_of_two_nodes_with_one_name_the_first_stays_until_it_is_silent() -> None:
    reception, fake, events = receive({3: said("lyon")}, ("lyon",))
    assert reception.connected() == {"lyon": 3}
    fake.nodes[1] = said("lyon")
    reception._look()
    assert reception.connected() == {"lyon": 3}
    assert [e["kind"] for e in events] == ["plant-refused"] and "also says" in events[0]["message"]
    fake.nodes[3] = None  # dead, but Flower has not noticed
    reception.grid.send_and_receive([Message(RecordDict(), 3, "train")], timeout=0.01)
    assert reception.connected() == {"lyon": 1}


def test_a_plant_that_restarts_as_another_node_is_found_again() -> None:
    reception, fake, events = receive({3: said("lyon"), 4: said("porto")}, ("lyon", "porto"))
    assert reception.connected() == {"lyon": 3, "porto": 4}
    del fake.nodes[3]
    assert reception.connected() == {"porto": 4}
    fake.nodes[8] = said("lyon")
    reception._look()
    assert reception.connected() == {"lyon": 8, "porto": 4}
    assert [(e["kind"], e["site"]) for e in events] == [
        ("disconnected", "lyon"), ("connected", "lyon"),
    ]  # fmt: skip


def test_a_silent_plant_rests_for_one_turn() -> None:
    reception, fake, _ = receive({3: said("lyon"), 4: said("porto")}, ("lyon", "porto"))
    reception.connected()
    fake.nodes[3] = None
    reception.grid.send_and_receive([Message(RecordDict(), 3, "train")], timeout=0.01)
    assert list(reception.connected()) == ["porto"]
    assert list(reception.connected()) == ["lyon", "porto"]


@pytest.mark.parametrize(
    ("stranger", "words"),
    [(said("paris"), "the run has lyon"), ("lyon: lyon.csv is missing", "lyon.csv is missing")],
)
def test_who_is_missing_and_why_is_said(stranger: Description | str, words: str) -> None:
    reception, _, _ = receive({3: said("lyon"), 5: stranger}, ("lyon", "porto"))
    with pytest.raises(SiteError, match=r"missing: porto\.") as raised:
        reception.wait(2, 0.0)
    assert words in str(raised.value)
    reception.wait(1, 0.0)  # deployment.min_plants=1


def test_a_run_that_every_plant_refuses_ends_at_once() -> None:
    reception, _, _ = receive({3: "data.window is wrong", 4: "data.window is wrong"}, ("a", "b"))
    with pytest.raises(SiteError, match=r"Refused: node 3: data\.window is wrong"):
        reception.wait(2, 600.0)


def test_plants_that_disagree_are_named() -> None:
    other = said("porto", features=("load", "heat"))
    fake = FakeNodes({3: said("lyon"), 4: other})
    reception = Reception(DeployedGrid(fake, ""), ("lyon", "porto"))  # type: ignore[arg-type]
    reception._look()
    reception.wait(2, 0.0)
    with pytest.raises(ConfigError, match="porto and lyon disagree on the features: porto has lo"):
        reception.agreed()


def test_a_late_plant_that_disagrees_is_refused_and_the_run_goes_on() -> None:
    reception, fake, events = receive({3: said("lyon")}, ("lyon", "porto"))
    reception.connected()
    fake.nodes[4] = said("porto", window=9)
    reception._look()
    assert list(reception.connected()) == ["lyon"]
    assert "disagree on the window" in events[-1]["message"]


def test_every_message_says_what_the_run_is_and_whom_it_is_for() -> None:
    reception, fake, _ = receive({3: said("lyon")}, ("lyon",))
    reception.connected()
    reception.grid.send_and_receive([Message(RecordDict(), 3, "train")], timeout=0.01)
    assert fake.letters[-1] == Letter("seed: 1", "lyon")


# The plant's side --------------------------------------------------------------------------


def ask(node_config: dict[str, Any], config: str, kind: str, **content: Any) -> Message:
    become_server()
    site = content.pop("site", "")
    letter = Letter(config, site).record()
    message = Message(RecordDict({LETTER: letter, **content}), 5, kind)
    return DeployedPlant()(message, Context(1, 5, node_config, RecordDict(), {}))


FLEET = ("site=[detroit,pune] data.days=150 data.step_hours=24 data.window=8 model=mlp "
         "sites.pune.machines=4 sites.detroit.machines=4").split()  # fmt: skip


def test_a_plant_describes_and_tests_itself_and_sends_numbers_only() -> None:
    cfg = composed(FLEET)
    text = OmegaConf.to_yaml(cfg)
    described = Description.of(ask({"site": "pune"}, text, DESCRIBE_QUERY).content)
    assert described.site == "pune" and described.window == 8 and described.shape["rows"] > 0
    numbered = ask({"partition-id": 1, "num-partitions": 2}, text, DESCRIBE_QUERY)
    assert Description.of(numbered.content) == described

    from fedpdm.experiment import build

    arrays = to_record(build(cfg).initial)
    tested = result_in(ask({"site": "pune"}, text, TEST_QUERY, **{ARRAYS: arrays}).content)
    assert set(tested) == {"threshold", "validation", "test", "heldout"}
    assert all(not isinstance(v, list | dict) for v in tested["test"].values())


@pytest.mark.parametrize(
    ("node_config", "site", "words"),
    [
        ({}, "", "does not say which plant it is"),
        ({"site": "paris"}, "", "none of this run's plants: it has detroit, pune"),
        ({"partition-id": 2}, "", "set num-supernodes to 2"),
        ({"sit": "pune"}, "", "sit=… means nothing"),
        ({"site": "pune"}, "detroit", "this supernode is pune, not detroit"),
        ({"site": "pune", "config": "/no/where.yaml"}, "", "/no/where.yaml is not a file"),
    ],
)
def test_a_plant_says_what_is_wrong_with_its_start(
    node_config: dict[str, Any], site: str, words: str
) -> None:
    text = OmegaConf.to_yaml(composed(FLEET))
    reply = ask(node_config, text, DESCRIBE_QUERY, site=site)
    assert reply.has_error() and words in reply.error.reason


def test_headquarters_needs_no_yaml_of_plants_with_files() -> None:
    cfg = composed(["data=files", "site=[gdansk,lyon]"])
    assert plants_of(cfg) == ("gdansk", "lyon")
    with pytest.raises(ConfigError, match="site=gdansk does not exist"):
        composed(["data=fleet", "site=[gdansk]"])

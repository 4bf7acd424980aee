"""One site of three does what it likes; the run goes on without it, and says so.

Through the server's own code from ``serve`` on, with a Grid that hands messages to the sites'
own code in this process.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo

from fedpdm.config.compose import compose
from fedpdm.deployment import grid as deployed
from fedpdm.deployment.client import DeployedSiteApp
from fedpdm.deployment.envelope import DESCRIPTION, TEST_QUERY, TESTED
from fedpdm.deployment.server import serve
from fedpdm.engines.local_grid import set_message_id
from fedpdm.errors import ConfigError
from fedpdm.history import History
from fedpdm.simulate import simulate
from fedpdm.storage import read_json
from fedpdm.testing.federated import same
from fedpdm.wire.flower import become_server
from fedpdm.wire.records import ARRAYS, METRICS, arrays_in, metric_record, to_record

SITES = ("detroit", "houston", "pune")
TINY = (
    f"site=[{','.join(SITES)}] data.days=150 data.step_hours=24 data.window=8 model=mlp rounds=2 "
    "training.local_epochs=1 round_timeout=0.6 sites.detroit.machines=4 "
    "sites.houston.machines=4 sites.pune.machines=4 strategy=fedadam"
)
Tamper = Callable[[Message, Message], Message | None]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sites in this process write their lists of machines there."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))


class Nodes:
    """Stands for Flower's Grid: sites in this process, one of them hostile."""

    def __init__(self, tamper: Tamper) -> None:
        become_server()
        self.tamper, self.app, self.sent = tamper, DeployedSiteApp(), 0
        self.states = {node: RecordDict() for node in range(1, 4)}
        self.replies: dict[str, Message] = {}
        self.run = None

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=node, name=site) for node, site in enumerate(SITES, 1)]

    def get_node_ids(self) -> Iterable[int]:
        return [1, 2, 3]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            self.sent += 1
            set_message_id(message, f"m{self.sent}")
            ids.append(f"m{self.sent}")
            node = message.metadata.dst_node_id
            context = Context(1, node, {"site": SITES[node - 1]}, self.states[node], {})
            reply: Message | None = self.app(message, context)
            self.states[node] = context.state
            if node == 3:
                assert reply is not None
                reply = self.tamper(message, reply)
            if reply is not None:
                self.replies[f"m{self.sent}"] = reply
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self.replies.pop(i) for i in message_ids if i in self.replies]


def trained(change: Callable[[RecordDict], None]) -> Tamper:
    """Change what the site sends of its training."""

    def tamper(message: Message, reply: Message) -> Message:
        if message.metadata.message_type == "train":
            change(reply.content)
        return reply

    return tamper


def arrays_as(new: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Tamper:
    def change(content: RecordDict) -> None:
        found = arrays_in(content, ARRAYS)
        content[ARRAYS] = to_record({name: new(array) for name, array in found.items()})

    return trained(change)


def answers(kind: str, key: str, value: Any) -> Tamper:
    """Change one record of what the site answers to messages of a kind."""

    def tamper(message: Message, reply: Message) -> Message:
        if message.metadata.message_type == kind:
            reply.content[key] = value
        return reply

    return tamper


def silent(message: Message, reply: Message) -> Message | None:
    return None if message.metadata.message_type == "train" else reply


def replayed() -> Tamper:
    """Answer every round with what round 1 was answered."""
    first: list[Message] = []

    def tamper(message: Message, reply: Message) -> Message:
        if message.metadata.message_type != "train":
            return reply
        first.append(reply)
        return first[0]

    return tamper


def text(value: Any) -> ConfigRecord:
    return ConfigRecord({"json": json.dumps(value)})


RUBBISH = Array("float32", (10**6, 10**6), "numpy.ndarray", b"?")
HOSTILE: dict[str, tuple[Tamper, str]] = {
    "float64": (arrays_as(lambda a: a.astype(float) + 1e300), "refused"),
    "huge step": (arrays_as(lambda a: a + np.float32(3e38)), "refused"),
    "infinite": (arrays_as(lambda a: a + np.float32(np.inf)), "refused"),
    "giant": (arrays_as(lambda a: np.zeros((1000, 1000), np.float32)), "refused"),
    "false shape": (answers("train", ARRAYS, ArrayRecord({"a": RUBBISH})), "refused"),
    "examples": (answers("train", METRICS, metric_record(2**60, {"train_loss": 0.1})), "refused"),
    "no metrics": (trained(lambda content: content.pop(METRICS)), "refused"),
    "silent": (silent, "timeout"),
    "error": (
        lambda m, r: Message(Error(2, "x" * 10_000_000), reply_to=m)
        if m.metadata.message_type == "train" else r,
        "site-failed",
    ),
    "replayed": (replayed(), "timeout"),
    "precision": (
        answers("evaluate", METRICS, metric_record(9, {"loss": 0.1, "average_precision": 7.0})),
        "refused",
    ),
    "tested 5": (answers(TEST_QUERY, TESTED, text({"test": 5})), "refused"),
    "script": (
        answers(TEST_QUERY, TESTED, text({"test": {}, "heldout": None, "threshold": "<script>"})),
        "refused",
    ),
    "nothing": (answers(TEST_QUERY, TESTED, ConfigRecord({})), "refused"),
}  # fmt: skip
OFTEN = ("float64", "silent", "replayed", "precision", "script")
"""Those of the normal suite."""


@pytest.mark.parametrize(
    "name", [n if n in OFTEN else pytest.param(n, marks=pytest.mark.long) for n in HOSTILE]
)
def test_a_hostile_site_is_named_and_the_run_ends(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployed, "POLL_SECONDS", 0.05)
    tamper, kind = HOSTILE[name]
    asked = {"overrides": TINY, "run-folder": str(tmp_path / "run")}
    summary = serve(Nodes(tamper), Context(1, 0, {}, RecordDict(), asked))  # type: ignore[arg-type]

    with History.open(tmp_path / "run") as history:
        records, events = history.rounds(), history.events()
        events += [event for record in records for event in record.events]
        for number in range(3):
            assert all(np.isfinite(a).all() for a in history.weights(number).values())
    assert {event["kind"] for event in events if event["site"] == "pune"} >= {kind}
    assert not [event for event in events if event["site"] not in ("pune", None)]
    assert all(len(event["message"]) < 1000 for event in events)
    assert set(summary["test"]["per_site"]) >= {"detroit", "houston"}
    stored = json.dumps(read_json(tmp_path / "run" / "summary.json"), allow_nan=False)
    assert "<script>" not in stored
    assert "<script>" not in (tmp_path / "run" / "report.html").read_text().split("</head>")[-1]


@pytest.mark.parametrize(
    "said", [5, {"site": "pune"}, {"site": ["pune"]}, {"shape": {"rows": "<script>"}}]
)
def test_what_a_site_says_of_itself_is_checked(said: Any, tmp_path: Path) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        if DESCRIPTION in reply.content:
            own = json.loads(str(reply.content.config_records[DESCRIPTION]["json"]))
            changed = own | said if isinstance(said, dict) and len(said) > 1 else said
            reply.content[DESCRIPTION] = text(changed)
        return reply

    asked = {"overrides": f"{TINY} deployment.min_plants=2 rounds=1", "run-folder": f"{tmp_path}/r"}
    summary = serve(Nodes(tamper), Context(1, 0, {}, RecordDict(), asked))  # type: ignore[arg-type]
    assert list(summary["test"]["per_site"]) == ["detroit", "houston"]
    events = [e for e in summary["events"] if e["kind"] == "plant-refused"]
    assert events and all("cannot be read" in event["message"] for event in events)


WORDS = f"{TINY} strategy=scaffold travels=body"


def go(**asked: str) -> None:
    """Run with supernodes that have just been started: only their files remember."""
    nodes = Nodes(lambda message, reply: reply)
    serve(nodes, Context(1, 0, {}, RecordDict(), asked))  # type: ignore[arg-type]


def test_a_site_whose_update_was_refused_forgets_the_round_as_in_a_simulation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployed, "POLL_SECONDS", 0.05)
    words = f"{WORDS} faults.nan=pune@1"
    go(**{"overrides": words, "run-folder": f"{tmp_path}/deployed"})
    simulate(compose([*words.split(), "engine=serial", "baselines.max_plants=0"]), tmp_path / "one")
    with History.open(tmp_path / "deployed") as run, History.open(tmp_path / "one") as serial:
        assert "examples" not in run.rounds()[1].sites["pune"]
        assert same(run.weights(2), serial.weights(2))


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two rounds, and a copy that was stopped in its second."""
    monkeypatch.setattr(deployed, "POLL_SECONDS", 0.05)
    go(**{"overrides": f"{WORDS} rounds=1", "run-folder": f"{tmp_path}/half"})
    shutil.copytree(tmp_path / "half", tmp_path / "copy")
    go(resume=f"{tmp_path}/copy", overrides="rounds=2")
    return tmp_path / "half"


def kept_by(site: str, tmp_path: Path) -> list[Path]:
    return sorted(next((tmp_path / "flower" / "fedpdm").glob(f"*-{site}")).iterdir())


def test_a_resumed_run_has_the_bits_of_one_that_was_not(half: Path, tmp_path: Path) -> None:
    go(**{"overrides": WORDS, "run-folder": f"{tmp_path}/whole"})
    go(resume=str(half), overrides="rounds=2")
    with History.open(tmp_path / "whole") as whole, History.open(half) as resumed:
        assert same(whole.weights(2), resumed.weights(2))
    one, two = (read_json(tmp_path / f / "summary.json")["test"] for f in ("whole", "half"))
    assert one == two


def test_a_site_that_lost_its_memory_is_left_out_and_named(half: Path, tmp_path: Path) -> None:
    kept_by("pune", tmp_path)[0].unlink()
    go(resume=str(half), overrides="rounds=2")
    with History.open(half) as history:
        last = history.rounds()[-1]
    assert {s for s, said in last.sites.items() if "examples" in said} == {"detroit", "houston"}
    told = [e for e in last.events if e["kind"] == "site-failed" and e["site"] == "pune"]
    assert told and "after round 1" in told[0]["message"]


def test_a_copy_of_a_run_does_not_go_on_with_what_the_other_left(
    half: Path, tmp_path: Path
) -> None:
    go(resume=str(half), overrides="rounds=3")  # now the copy's round 2 is forgotten
    with pytest.raises(ConfigError, match="after round 2"):
        go(resume=f"{tmp_path}/copy", overrides="rounds=3")
